"""Priors of new views: the exact one's posterior and predictions by hand, and networks like
Zero-1-to-3, tiny and random.
"""

import json
import math
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dsd_lab import (
    SDS,
    Camera,
    DSDStar,
    InputView,
    compare,
    ddim,
    distill_images,
    image_to_3d,
    load_prior,
    priors,
    text_to_3d,
)
from dsd_lab.cameras import orbit
from dsd_lab.distill.scenes import Stage
from dsd_lab.priors import NovelViewPrior, NovelViewSet, Query, ViewSet
from dsd_lab.priors.loading import load_novel_view, projection_of
from dsd_lab.priors.network import quiet
from dsd_lab.priors.zero123 import NovelViewNetwork, relative_pose
from dsd_lab.worlds import ToyboxWorld, make_toys, render
from dsd_lab.worlds.toybox.world import resized

f64 = torch.float64
BANK = orbit(4)
SIDE = Camera(90)  # one of them
ONE = (Stage(16, 8, 1.0, 1),)


# ---- the exact prior -----------------------------------------------------------------------------


def alike(size=16, apart=12):
    """Five toys whose pictures from four cameras, noise all of them, differ from each other by some
    of 255 a value.
    """
    toys = make_toys(["chair", "chair", "mug", "chair", "mug"], [0, 1, 0, 9, 1])
    generator = torch.Generator().manual_seed(3)
    base = torch.randint(60, 190, (1, 4, 3, size, size), generator=generator)
    own = torch.randint(-apart, apart + 1, (5, 4, 3, size, size), generator=generator)
    prompts = ("a chair", "a mug", *dict.fromkeys(toys.captions))
    return ToyboxWorld(
        prompts, toys, torch.tensor([0, 0, 1, 0, 1]), torch.arange(5), BANK, (base + own).byte()
    )


@pytest.fixture(scope="module")
def world():
    return alike()


@pytest.fixture
def prior(world):
    return NovelViewSet(world)


@pytest.fixture(scope="module")
def twins():
    """A chair, then three that differ from it all over and from each other in their back alone, 32
    x 32.
    """
    toys = make_toys(["chair"] * 4, [3, 10, 10, 10], [None, 0, 1, 2])
    views = (render(toys, BANK, 32).rgb * 255).round().byte()
    return ToyboxWorld(
        ("a chair", *dict.fromkeys(toys.captions)),
        toys,
        torch.zeros(4, dtype=torch.int64),
        torch.tensor([0, 1, 1, 1]),
        BANK,
        views,
    )


def seen(world, weights, camera=SIDE):
    """A picture between the objects' own from a camera of the bank: their weighted mean."""
    own = world.views[:, world.cameras.index(camera)].double() / 255
    image = torch.einsum(
        "n,nchw->chw", torch.tensor(weights, dtype=f64) / sum(weights), own
    ).float()
    return InputView(image, torch.ones_like(image[:1]), camera)


BETWEEN = (5, 3, 0, 1, 0)


def by_hand(world, view, tolerance):
    """p(object | picture), from the mean squared differences of 3 x 16 x 16 values in [0, 1]."""
    own = world.views[:, world.cameras.index(view.camera)].double() / 255
    error = [float(((picture - view.image.double()) ** 2).sum()) / (3 * 16 * 16) for picture in own]
    likelihood = torch.tensor(
        [math.exp(-e / (2 * tolerance * tolerance)) for e in error], dtype=f64
    )
    return likelihood / likelihood.sum()


@pytest.mark.parametrize("tolerance", [0.01, 0.02, 0.05])
def test_the_posterior_by_hand(tolerance, world):
    prior, view = NovelViewSet(world, tolerance=tolerance), seen(world, BETWEEN)
    want = by_hand(world, view, tolerance)
    got = prior.log_posterior(view)
    assert got.dtype == f64 and want.log().diff().abs().max() > 0.05
    torch.testing.assert_close(got, want.log(), rtol=0, atol=1e-3)
    assert prior.log_posterior(view) is got and float(got.exp().sum()) == pytest.approx(1)


def test_at_the_tolerance_the_likelihood_has_fallen_to_its_half_exponential(world):
    """Two objects: the picture is one of them, the other is off by 0.02 everywhere: e^(-1/2) times
    as likely.
    """
    views = torch.full((5, 4, 3, 16, 16), 100, dtype=torch.uint8)
    views[1] = 151  # by 51 / 255 = 0.2
    flat = ToyboxWorld(world.prompts, world.toys, world.kind_label, world.groups, BANK, views)
    view = InputView(torch.full((3, 16, 16), 100 / 255), torch.ones(1, 16, 16), SIDE)
    log_p = NovelViewSet(flat, tolerance=0.2).log_posterior(view)
    torch.testing.assert_close(
        log_p - log_p[0], torch.tensor([0, -0.5, 0, 0, 0], dtype=f64), rtol=0, atol=1e-5
    )
    assert NovelViewSet(flat).tolerance == 0.02
    assert float(NovelViewSet(flat).log_posterior(view).diff()[0]) == pytest.approx(-50, rel=1e-4)


def closed_form(prior, x, t, camera, p):
    """E[x0 | x_t] for pictures with weights p from a camera of the bank, for one item."""
    views = prior.world.views.double() / 127.5 - 1
    y = prior.scale * (views[:, camera] - views.mean((0, 1))).flatten(1)
    a, s = float(prior.schedule.alpha[t]), float(prior.schedule.sigma[t])
    likelihood = -(x.double().flatten() - a * y).square().sum(1) / (2 * s * s)
    return ((likelihood + p.log()).softmax(0) @ y).reshape(x.shape)


def asked(prior, view, cameras=(3, 0), levels=(640, 400)):
    """Two items from two cameras, at levels where several objects are possible."""
    cond = prior.condition(view, camera=[BANK[c] for c in cameras])
    t, noise = torch.tensor(levels), prior.noise([0, 1], f64)
    return 0.3 * noise, t, cond, cameras


@pytest.mark.parametrize("dtype", [f64, torch.float32])
def test_a_prediction_is_the_mean_under_the_posterior(dtype, prior, world):
    view = seen(world, BETWEEN)
    p, even = by_hand(world, view, 0.02), torch.full((5,), 0.2, dtype=f64)
    x, t, cond, cameras = asked(prior, view)
    terms, guided = (
        prior.predict(x.to(dtype), t, cond),
        prior.predict_guided(x.to(dtype), t, cond, 3.0),
    )
    for i, camera in enumerate(cameras):
        x_c, x_u = (closed_form(prior, x[i], int(t[i]), camera, weights) for weights in (p, even))
        assert (x_c - x_u).abs().max() > 0.01
        for got, want in (
            (terms["cond"].x0, x_c),
            (terms["uncond"].x0, x_u),
            (guided.x0, x_u + 3 * (x_c - x_u)),
        ):
            torch.testing.assert_close(got[i].double(), want, rtol=0, atol=5e-5)
        doubled = (2 * p.log()).softmax(0)
        assert (
            closed_form(prior, x[i], int(t[i]), camera, doubled) - x_c
        ).abs().max() > 1e-3  # a factor 2 would show
    alone = prior.predict(x[1:].to(dtype), 400, prior.condition(view, camera=BANK[0]))
    torch.testing.assert_close(alone["cond"].x0[0], terms["cond"].x0[1], rtol=0, atol=1e-5)


def test_one_condition_for_a_batch_and_several_queries_in_a_call(prior, world):
    one, other = seen(world, BETWEEN), seen(world, (0, 1, 0, 4, 0))
    x, t, cond, _ = asked(prior, one)
    queries = [
        Query(x, t, cond),
        Query(x + 0.1, 500, prior.condition(one, camera=BANK[3]), ("cond",)),
        Query(x, t, prior.condition(other, camera=[BANK[3], BANK[0]])),
    ]  # the third is asked by another picture
    for query, got in zip(queries, prior.predict_many(queries), strict=True):
        want = prior.predict(*query)
        assert set(got) == set(query.terms)
        for term in query.terms:
            torch.testing.assert_close(got[term].x0, want[term].x0, rtol=0, atol=1e-8)
    assert (
        prior.predict(*queries[0])["cond"].x0 - prior.predict(*queries[2])["cond"].x0
    ).abs().max() > 0.01


def test_objects_that_look_otherwise_are_out(world):
    """Even where x_t is such an object's own picture: below e^-30 it has no weight at all."""
    views = world.views.clone()
    views[2, 1] = 255 - views[2, 1]  # from the picture's camera alone
    prior = NovelViewSet(
        ToyboxWorld(world.prompts, world.toys, world.kind_label, world.groups, BANK, views)
    )
    view = seen(world, BETWEEN)
    assert prior.log_posterior(view)[2] < -30
    own = prior.encode(prior.world.images(camera_index=0))
    x, others = own[2:3], own[[0, 1, 3, 4]]
    got = prior.predict(x, 0, prior.condition(view, camera=BANK[0]))
    torch.testing.assert_close(got["uncond"].x0, x, rtol=0, atol=1e-4)
    nearest = (others - x).flatten(1).norm(dim=1).argmin()
    torch.testing.assert_close(got["cond"].x0[0], others[nearest], rtol=0, atol=1e-4)
    assert (others[nearest] - x).abs().max() > 0.05


def test_degraded_and_no_negative(prior, world):
    x, t, cond, cameras = asked(prior, seen(world, BETWEEN))
    plain = ViewSet(world)
    want = plain.predict(
        x, t, plain.condition("a chair", camera=[BANK[c] for c in cameras]), ("degraded",)
    )["degraded"].x0
    torch.testing.assert_close(prior.predict(x, t, cond, ("degraded",))["degraded"].x0, want)
    with pytest.raises(ValueError, match='no term "negative"'):
        prior.predict(x, t, cond, ("negative",))


def test_conditions_keep_their_picture(prior, world):
    view = seen(world, BETWEEN)
    cond = prior.condition(view, camera=BANK)
    assert len(cond) == 4 and cond.view is view and cond.select([2, 0]).view is view
    assert cond.select([2, 0]).camera == (BANK[2], BANK[0]) and cond.negative is None
    image = torch.ones(3, 40, 40)
    image[:, 10:30, 10:30] = 0.5
    own = prior.condition(image, Camera(33, 5), BANK[0]).view
    assert own.camera == Camera(33, 5) and own.image.shape == (
        3,
        16,
        16,
    )  # made as `input_view` makes it, at its own size
    assert own.mask.mean().item() == pytest.approx(0.25)


# ---- twins


@pytest.mark.parametrize("size", [16, 32])
def test_twins_are_equally_likely_from_the_front_and_told_apart_from_behind(size, twins):
    """They look the same from the front and the sides; which it is only the back says."""
    prior = NovelViewSet(resized(twins, size))
    for camera, off in (
        (0, 1e-6),
        (1, 0.02),
        (3, 0.02),
    ):  # a little of a back may show from the side
        view = InputView(
            prior.world.images(camera_index=camera)[2], torch.ones(1, size, size), BANK[camera]
        )
        log_p = prior.log_posterior(view)
        torch.testing.assert_close(
            log_p[1:].exp(), torch.full((3,), 1 / 3, dtype=f64), rtol=0, atol=off
        )
        assert log_p[0] < -4 and set(prior.answers(view).tolist()) == {1, 2, 3}
    behind = InputView(prior.world.images(camera_index=2)[2], torch.ones(1, size, size), BANK[2])
    assert prior.answers(behind).tolist() == [2] and prior.log_posterior(behind)[2] > -0.01


def test_answers(prior, world, monkeypatch):
    view = seen(world, BETWEEN)
    p = torch.tensor([0.05, 0.3, 0.008, 0.6, 0.042], dtype=f64)
    monkeypatch.setattr(prior, "log_posterior", lambda asked: p.log() if asked is view else None)
    assert prior.answers(view).tolist() == [3, 1, 0, 4]  # one in a hundred or more
    assert prior.answers(view, 0.045).tolist() == [3, 1, 0] and prior.answers(
        view, 0.001
    ).tolist() == [3, 1, 0, 4, 2]


def test_the_paths_end_at_the_answers(twins):
    """What is behind is the seed's: DDIM from the side that the picture does not show comes to each
    of the three backs.
    """
    prior = NovelViewSet(resized(twins, 16))
    view = InputView(prior.world.images(camera_index=0)[1], torch.ones(1, 16, 16), BANK[0])
    images = ddim(prior, prior.noise(range(24)), prior.condition(view, camera=BANK[2]), 12).images
    away = (images[:, None] - prior.world.images(camera_index=2)).square().flatten(2).mean(2).sqrt()
    assert away.min(1).values.max() < 0.02 and set(away.argmin(1).tolist()) == {1, 2, 3}


def test_joint_views_agree_on_an_answer(twins):
    """From each seed all new views are of one of the three toys that the picture leaves open."""
    prior = NovelViewSet(resized(twins, 16), joint=True)
    view, ends = (
        InputView(prior.world.images(camera_index=0)[1], torch.ones(1, 16, 16), BANK[0]),
        set(),
    )
    for seed in range(12):
        path = ddim(
            prior, prior.noise([seed]).expand(4, -1, -1, -1), prior.condition(view, camera=BANK), 12
        )
        away = (
            (path.images - prior.world.images()).square().flatten(2).mean(2).sqrt()
        )  # (object, view)
        assert away.amin(0).max() < 0.02
        ends.add(int(away.sum(1).argmin()))
        assert away[int(away.sum(1).argmin())].max() < 0.02
    assert ends == {1, 2, 3} and prior.views_per_item == 4


def test_a_picture_from_any_camera(twins):
    """One that the bank lacks: all objects are rendered from there, at the picture's size."""
    prior, camera = NovelViewSet(twins), Camera(20, 35, 3.2, 38)
    own = render(twins.toys, [camera], 16).rgb[:, 0]
    view = InputView(0.6 * own[0] + 0.4 * own[1], torch.ones(1, 16, 16), camera)
    error = (own - view.image).double().square().mean((1, 2, 3))
    want = torch.log_softmax(-error / (2 * 0.02**2), 0)
    torch.testing.assert_close(prior.log_posterior(view), want, rtol=1e-3, atol=1e-3)
    assert prior.answers(view).tolist() == [1, 2, 3] if error[0] > error[1] else [0]
    with pytest.raises(
        ValueError,
        match="knows 4 cameras and Camera.azimuth=20.0.* is not one of them; the nearest is",
    ):
        prior.condition(view, camera=camera)


def test_the_same_posterior_at_a_smaller_size(twins, monkeypatch):
    """From the larger prior's own pictures, whichever is asked first: nothing is rendered for a
    camera of the bank.
    """
    monkeypatch.setattr(sys.modules["dsd_lab.priors.novel_view"], "render", None)
    prior = NovelViewSet(twins, tolerance=0.05)
    half = prior.at_size(16)
    assert (
        isinstance(half, NovelViewSet)
        and half.tolerance == 0.05
        and half.shape == (3, 16, 16)
        and half.picture_size == 16
    )
    assert (
        half.scale == 2 * prior.scale and prior.at_size(16) is half and prior.at_size(32) is prior
    )
    front = twins.images(camera_index=0)
    for first, second, number in ((prior, half, 0), (half, prior, 2)):
        view = InputView(0.5 * (front[0] + front[number]), torch.ones(1, 32, 32), BANK[0])
        assert first.log_posterior(view) is second.log_posterior(view)
        assert torch.equal(
            second.log_posterior(view), NovelViewSet(twins, tolerance=0.05).log_posterior(view)
        )
    got = half.predict(half.noise([0]), 900, half.condition(view, camera=BANK[2]), ("cond",))[
        "cond"
    ].x0[0]
    want = closed_form(half, half.noise([0])[0], 900, 2, half.log_posterior(view).exp())
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-4)


# ---- what it is asked, and what it is not


def test_prompts_are_refused(prior, world):
    for ask in (
        lambda: prior.condition("a chair", camera=BANK[0]),
        lambda: prior.condition(camera=BANK[0]),
        lambda: prior.resolve("a chair"),
        lambda: distill_images(prior, "a chair", SDS(), [0], 1),
        lambda: compare(prior, ["a chair"], {"DSD*": DSDStar()}, [0], 1),
    ):
        with pytest.raises(
            TypeError, match="toybox-novel-view is asked by a picture, not by a prompt"
        ):
            ask()
    with pytest.raises(TypeError, match="is asked by a picture: use image_to_3d"):
        text_to_3d(prior, "a chair", SDS(), stages=ONE)
    with pytest.raises(
        TypeError, match='toybox is asked by a prompt: use text_to_3d, .* "toybox-novel-view"'
    ):
        image_to_3d(ViewSet(world), seen(world, BETWEEN), SDS(), stages=ONE)


@pytest.mark.parametrize(
    "image, camera, error, message",
    [
        ("nowhere.png", BANK[0], ValueError, "there is no picture nowhere.png"),
        (3, BANK[0], TypeError, "a picture is a tensor .3, S, S., a PIL image or a path, got int"),
        (torch.ones(3, 16, 16), BANK[0], ValueError, "the picture is empty"),
        ("view", None, ValueError, "toybox-novel-view needs a camera"),
        ("view", Camera(7), ValueError, r"knows 4 cameras and Camera\(azimuth=7.0"),
        ("view", [], ValueError, "cameras is empty"),
        ("view", "front", TypeError, "every camera must be a Camera"),
    ],
)
def test_conditions_that_it_refuses(image, camera, error, message, prior, world):
    with pytest.raises(error, match=message):
        prior.condition(
            seen(world, BETWEEN) if isinstance(image, str) and image == "view" else image,
            camera=camera,
        )


@pytest.mark.parametrize("tolerance", [0, -0.1, math.inf, math.nan])
def test_tolerances_that_it_refuses(tolerance, world):
    with pytest.raises(ValueError, match="tolerance, an RMSE, must be positive and finite"):
        NovelViewSet(world, tolerance=tolerance)


def test_load_prior(monkeypatch):
    priors._new_views.cache_clear()
    monkeypatch.setattr(priors, "toybox", alike)
    try:
        prior = load_prior("toybox-novel-view", 32)
        assert (
            type(prior) is NovelViewSet
            and prior.shape == (3, 32, 32)
            and load_prior("toybox-novel-view", 32) is prior
        )
        joint = load_prior("toybox-novel-view-joint", 32)
        assert (
            joint.views_per_item == 4
            and joint.name == "toybox-novel-view-joint"
            and prior.views_per_item == 1
        )
        assert (
            prior.name == "toybox-novel-view"
            and prior.asked_by == "picture"
            and prior.cameras == BANK
        )
    finally:
        priors._new_views.cache_clear()


# ---- networks like Zero-1-to-3 -------------------------------------------------------------------

EMBEDDING, TOKEN = 12, 32
LAYOUTS = {"cc_projection": "projection", "clip_camera_projection": "proj"}


def make_unet(channels=8, out=4, **settings):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=out,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=TOKEN,
        norm_num_groups=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **settings,
    )


def make_parts():
    """A UNet on 8 x 8 latents of 16 x 16 pictures, and an image encoder that wants 24 x 24."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=32,
            projection_dim=EMBEDDING,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=24,
            patch_size=8,
        )
        projection = nn.Linear(EMBEDDING + 4, TOKEN)
        vae = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
            scaling_factor=0.18215,
        )
        scheduler = DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
        return SimpleNamespace(
            unet=make_unet(),
            vae=vae,
            image_encoder=CLIPVisionModelWithProjection(vision),
            projection=projection,
            scheduler=scheduler,
        )


def write(parts, folder, layout="cc_projection"):
    from safetensors.torch import save_file

    with quiet():
        for name in ("unet", "vae", "image_encoder", "scheduler"):
            getattr(parts, name).save_pretrained(folder / name)
    (folder / layout).mkdir()
    weights = {
        f"{LAYOUTS[layout]}.{key}": value.detach().contiguous()
        for key, value in parts.projection.state_dict().items()
    }
    save_file(weights, folder / layout / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (folder / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "Zero1to3StableDiffusionPipeline",
                layout: ["pipeline_zero1to3", "CCProjection"],
            }
        )
    )
    return folder


@pytest.fixture(scope="module")
def parts():
    return make_parts()


@pytest.fixture(scope="module")
def folders(parts, tmp_path_factory):
    root = tmp_path_factory.mktemp("zero123")
    return {layout: write(parts, root / layout, layout) for layout in LAYOUTS}


@pytest.fixture(scope="module")
def nets(folders):
    return {layout: load_prior(folder, device="cpu") for layout, folder in folders.items()}


@pytest.fixture
def net(nets):
    return nets["cc_projection"]


@pytest.fixture(scope="module")
def view():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    return InputView(image, torch.ones(1, 16, 16), Camera(30, 10, 3.0))


WANTED = (Camera(75, 40, 2.5), Camera(-60, 0, 3.0), Camera(30, 10, 3.0))
POSES = [
    [
        -math.pi / 6,
        math.sin(math.pi / 4),
        math.cos(math.pi / 4),
        -0.5,
    ],  # 30 up, 45 to the right, nearer
    [math.pi / 18, -1.0, 0.0, 0.0],
    [0.0, 0.0, 1.0, 0.0],
]


def test_relative_poses_by_hand():
    seen_from = Camera(30, 10, 3.0)
    torch.testing.assert_close(
        relative_pose(seen_from, WANTED), torch.tensor(POSES), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        relative_pose(seen_from, WANTED[0]), torch.tensor(POSES[:1]), rtol=0, atol=1e-6
    )
    around = relative_pose(
        Camera(170), [Camera(-170), Camera(80)]
    )  # 20 degrees on, across the wrap; and 90 back
    torch.testing.assert_close(
        around[:, 1:3], torch.tensor([[math.sin(math.pi / 9), math.cos(math.pi / 9)], [-1.0, 0.0]])
    )
    assert relative_pose(seen_from, Camera(30, 10, 3.0, 60)).tolist() == [
        [0, 0, 1, 0]
    ]  # a field of view is not told


def token_by_hand(parts, view, poses):
    """projection([embedding, pose]) of the picture at 24 x 24, in CLIP's colours."""
    large = F.interpolate(view.image[None], (24, 24), mode="bicubic", align_corners=True)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    embedding = parts.image_encoder((large - mean) / std).image_embeds
    told = torch.cat([embedding.expand(len(poses), -1), torch.tensor(poses)], 1)
    return (told @ parts.projection.weight.T + parts.projection.bias)[:, None]


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_a_prediction_is_the_unet_called_by_hand(layout, nets, parts, view):
    prior, t = nets[layout], torch.tensor([50, 500, 950])
    x, cond = prior.noise([0, 1, 2]), prior.condition(view, camera=WANTED)
    latents = parts.vae.encode(2 * view.image[None] - 1).latent_dist.mean.expand(
        3, -1, -1, -1
    )  # not scaled

    def unet(x, latents, token):
        return parts.unet(torch.cat([x, latents], 1), t, encoder_hidden_states=token).sample

    token = token_by_hand(parts, view, POSES)
    e_c, e_u = unet(x, latents, token), unet(x, torch.zeros_like(latents), torch.zeros(3, 1, TOKEN))
    got = prior.predict(x, t, cond)
    torch.testing.assert_close(got["cond"].output, e_c, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got["uncond"].output, e_u, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        prior.predict_noise(x, t, cond, 3.0), e_u + 3 * (e_c - e_u), rtol=1e-4, atol=5e-5
    )
    turned = token_by_hand(
        parts, view, [[-polar, -sin, cos, far] for polar, sin, cos, far in POSES]
    )
    for other in (
        unet(x, 0.18215 * latents, token),
        unet(x, latents, turned),
        unet(x, latents, torch.zeros_like(token)),
        unet(x, torch.zeros_like(latents), token),
    ):
        assert (other[:2] - e_c[:2]).abs().max() > 5e-4  # each of these would show


def test_what_it_says_of_itself(nets, net):
    assert (
        all(isinstance(prior, NovelViewPrior) for prior in nets.values())
        and net.name == "cc_projection"
    )
    assert net.shape == (4, 8, 8) and net.image_shape == (3, 16, 16) and net.picture_size == 16
    assert (
        net.cameras == "any"
        and net.asked_by == "picture"
        and net.schedule.prediction_type == "epsilon"
    )
    assert (
        not any(weight.requires_grad for weight in net.network.parameters())
        and not net.unet.training
    )


def test_encode_and_decode_are_the_autoencoders_own(net, parts):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)).requires_grad_()
    x = net.encode(images)
    torch.testing.assert_close(x, 0.18215 * parts.vae.encode(2 * images - 1).latent_dist.mean)
    with torch.no_grad():
        torch.testing.assert_close(
            net.decode(x), (parts.vae.decode(x / 0.18215).sample / 2 + 0.5).clamp(0, 1)
        )
    assert torch.autograd.grad(x.square().sum(), images)[0].abs().max() > 0


def test_a_batch_is_its_items_one_by_one(net, view):
    x, t, cond = (
        net.noise([0, 1, 2]),
        torch.tensor([50, 500, 950]),
        net.condition(view, camera=WANTED),
    )
    together = net.predict_guided(x, t, cond, 3.0).output
    for i in range(3):
        alone = net.predict_guided(
            x[i : i + 1], t[i : i + 1], net.condition(view, camera=WANTED[i]), 3.0
        ).output
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
    one, other = (
        net.condition(view, camera=WANTED[1]),
        InputView(1 - view.image, view.mask, view.camera),
    )
    queries = [
        Query(x, 500, one),
        Query(x[:1], 20, net.condition(other, camera=WANTED[0]), ("cond",)),
        Query(x, 500, one),
    ]
    sizes = []
    handle = net.unet.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    answers = net.predict_many(queries)
    handle.remove()
    assert sizes == [7] and net.evaluations >= 13  # the third is the first again
    for query, got in zip(queries, answers, strict=True):
        want = net.predict(*query)
        for term in query.terms:
            torch.testing.assert_close(got[term].output, want[term].output, rtol=1e-4, atol=1e-5)


def test_a_picture_is_looked_at_once_and_in_the_networks_size(net, view, monkeypatch):
    large = InputView(
        torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(4)),
        torch.ones(1, 32, 32),
        view.camera,
    )
    calls = []
    handle = net.network.image_encoder.register_forward_hook(lambda *_: calls.append(0))
    x = net.noise([0])
    got = [
        net.predict(x, t, net.condition(large, camera=WANTED[0]), ("cond",))["cond"].output
        for t in (500, 500)
    ]
    handle.remove()
    assert len(calls) == 1 and torch.equal(*got)
    small = InputView(
        large.image.reshape(3, 16, 2, 16, 2).mean((2, 4)), large.mask[:, :16, :16], view.camera
    )
    want = net.predict(x, 500, net.condition(small, camera=WANTED[0]), ("cond",))["cond"].output
    torch.testing.assert_close(got[0], want, rtol=1e-4, atol=1e-5)


def test_ddim_and_a_scene(net, view):
    path = ddim(net, net.noise([0, 1]), net.condition(view, camera=WANTED[:2]), 3, 3.0)
    assert path.images.shape == (2, 3, 16, 16) and torch.isfinite(path.final).all()
    image = torch.ones(3, 20, 20)
    image[:, 5:15, 5:15] = 0.2
    scene = image_to_3d(
        net, image, SDS(), 0, 2, stages=ONE, cameras=orbit(3), image_camera=Camera(0, 10), refresh=1
    )
    assert torch.isfinite(scene.field.grid).all()


def test_terms_and_prompts_that_it_refuses(net, view):
    cond = net.condition(view, camera=WANTED[0])
    for term in ("negative", "degraded"):
        with pytest.raises(ValueError, match=f'no term "{term}" here; allowed: uncond, cond'):
            net.predict(net.noise([0]), 500, cond, (term,))
    with pytest.raises(TypeError, match="cc_projection is asked by a picture, not by a prompt"):
        net.condition("a chair", camera=WANTED[0])
    with pytest.raises(ValueError, match="needs a camera"):
        net.condition(view)
    with pytest.raises(TypeError, match="use image_to_3d"):
        text_to_3d(net, "a chair", SDS(), stages=ONE)


def test_another_dtype(folders, net, view):
    half = load_novel_view(str(folders["cc_projection"]), "cpu", torch.bfloat16, "half")
    x = net.noise([0, 1])
    got, want = (
        p.predict(x, 500, p.condition(view, camera=WANTED[0]))["cond"].output for p in (half, net)
    )
    assert (
        half.name == "half"
        and half.network.projection.weight.dtype == torch.bfloat16
        and got.dtype == torch.float32
    )
    assert 0 < (got - want).norm() < 0.05 * want.norm()


# ---- folders that cannot be used


@pytest.fixture
def copy(folders, tmp_path):
    shutil.copytree(folders["cc_projection"], tmp_path / "copy")
    return tmp_path / "copy"


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def with_projection(weights):
    def spoil(copy):
        from safetensors.torch import save_file

        save_file(
            {key: torch.zeros(shape) for key, shape in weights.items()},
            copy / "cc_projection" / "diffusion_pytorch_model.safetensors",
        )

    return spoil


def without(part):
    return lambda copy: shutil.rmtree(copy / part)


def as_bin(part):
    def spoil(copy):
        file = next((copy / part).glob("*.safetensors"))
        file.rename(file.with_suffix(".bin"))

    return spoil


def four_channels(copy):
    shutil.rmtree(copy / "unet")
    with quiet():
        make_unet(4).save_pretrained(copy / "unet")


def another_depth(copy):
    edit(copy / "unet" / "config.json", layers_per_block=2)


def no_json(copy):
    (copy / "scheduler" / "scheduler_config.json").write_text("{")


def no_bytes(copy):
    next((copy / "image_encoder").glob("*.safetensors")).write_bytes(b"nothing")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (without("vae"), "lacks its folder vae"),
        (without("image_encoder"), "lacks its folder image_encoder"),
        (without("unet"), "lacks its folder unet"),
        (without("scheduler"), "lacks its folder scheduler"),
        (as_bin("unet"), r"unet has no .safetensors weights \(it has diffusion_pytorch_model.bin"),
        (as_bin("image_encoder"), r"image_encoder has no .safetensors weights \(it has model.bin"),
        (
            as_bin("cc_projection"),
            r"cc_projection has no .safetensors weights \(it has diffusion_pytorch_model.bin",
        ),
        (
            four_channels,
            "UNet of 4 input and 4 output channels; "
            "one that sees a picture beside its latents of 4 .* has 8 and 4",
        ),
        (
            with_projection({"projection.weight": (TOKEN, EMBEDDING), "projection.bias": TOKEN}),
            "projection from 12 to 32; its embedding, pose and UNet ask for 16 to 32",
        ),
        (
            with_projection({"projection.weight": (16, EMBEDDING + 4), "projection.bias": 16}),
            "projection from 16 to 16; .* 16 to 32",
        ),
        (
            with_projection({"projection.weight": (TOKEN, 16)}),
            "must hold one linear map, a weight and a bias; it has projection",
        ),
        (
            with_projection({"projection.weight": (TOKEN, 16), "projection.bias": 16}),
            "cc_projection must hold one linear map",
        ),
        (
            with_projection({"projection.weight": TOKEN, "projection.bias": TOKEN}),
            "must hold one linear map",
        ),
        (
            with_projection({"0.weight": (TOKEN, 16), "0.bias": TOKEN, "2.scale": TOKEN}),
            "it has 0.bias, 0.weight, 2.scale",
        ),
        (another_depth, "weights do not fit config.json|cannot be read"),
        (no_json, "cannot be read as a pipeline like Zero-1-to-3: .*is damaged .JSONDecodeError"),
        (no_bytes, "cannot be read as a pipeline like Zero-1-to-3"),
    ],
)
def test_a_folder_that_cannot_be_used(spoil, message, copy):
    spoil(copy)
    with pytest.raises(ValueError, match=message):
        load_prior(copy, device="cpu")


def test_weights_stored_in_half_precision_alone(copy, net, view):
    from safetensors.torch import load_file, save_file

    for file in copy.glob("*/*.safetensors"):
        save_file(
            {name: weight.half() for name, weight in load_file(file).items()},
            file.with_suffix(".fp16.safetensors"),
            {"format": "pt"},
        )
        file.unlink()
    half = load_prior(copy, device="cpu")
    assert half.unet.dtype == half.network.projection.weight.dtype == torch.float32
    got, want = (
        p.predict(p.noise([0]), 500, p.condition(view, camera=WANTED[0]))["cond"].output
        for p in (half, net)
    )
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.02)


def test_a_folder_is_known_by_its_projection(folders, copy):
    assert all(projection_of(folder) for folder in folders.values())
    shutil.rmtree(copy / "cc_projection")
    assert projection_of(copy) is None
    with pytest.raises(ValueError, match="lacks its folder cc_projection"):
        load_novel_view(copy)


def test_networks_that_it_refuses(parts):
    network = NovelViewNetwork(parts.unet, parts.image_encoder, nn.Linear(EMBEDDING + 3, TOKEN))
    with pytest.raises(
        ValueError, match="mine has a projection from 15 to 32; .* ask for 16 to 32"
    ):
        NovelViewPrior(network, parts.vae, parts.scheduler.config, "mine", "cpu")
    with pytest.raises(ValueError, match="UNet of 8 input and 8 output channels"):
        NovelViewPrior(
            NovelViewNetwork(make_unet(8, 8), parts.image_encoder, parts.projection),
            parts.vae,
            parts.scheduler.config,
            device="cpu",
        )
    labelled = make_unet(
        8, 4, class_embed_type="simple_projection", projection_class_embeddings_input_dim=8
    )
    with pytest.raises(
        ValueError, match="class embedding is of 8 numbers; what it can be told is a pose, of 4"
    ):
        NovelViewPrior(
            NovelViewNetwork(labelled, parts.image_encoder, parts.projection),
            parts.vae,
            parts.scheduler.config,
            device="cpu",
        )

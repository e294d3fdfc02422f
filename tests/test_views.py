"""The exact prior of views: closed forms written out in float64, conditions with cameras, sizes."""

import pytest
import torch
from torch.nn import functional as F

from dsd_lab import Camera, ImageSet, ddim, load_prior, priors
from dsd_lab.cameras import nearest, orbit
from dsd_lab.priors import GaussianMixture, Query, ViewSet
from dsd_lab.worlds import ToyboxWorld, make_toys

f64 = torch.float64
BANK = orbit(4)
CHAIRS, PINK, MUGS = [0, 1, 3], [1, 3], [2, 4]  # of the world below
SCALE = 0.05  # random pictures stand far apart: small, so that several of them weigh something


def small(size=16):
    """Three chairs, two of them pink, and two mugs; noise for pictures, 3 x size x size from four
    cameras.
    """
    toys = make_toys(["chair", "chair", "mug", "chair", "mug"], [0, 1, 0, 9, 1])
    assert [toys.colours[i] == "pink" for i in CHAIRS] == [False, True, True]
    views = torch.randint(
        0, 256, (5, 4, 3, size, size), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
    )
    prompts = ("a chair", "a mug", *dict.fromkeys(toys.captions))
    return ToyboxWorld(prompts, toys, torch.tensor([0, 0, 1, 0, 1]), torch.arange(5), BANK, views)


@pytest.fixture(scope="module")
def world():
    return small()


@pytest.fixture
def prior(world):
    return ViewSet(world, SCALE)


def pictures(world, camera, scale=SCALE):
    """All objects' pictures from one camera in the prior's space, in float64: (N, 3 H W)."""
    views = world.views.double() / 127.5 - 1
    return scale * (views[:, camera] - views.mean((0, 1))).flatten(1)


def closed_form(x, t, y, schedule):
    """E[x0 | x_t] for the equally likely pictures y, and the noise that goes with it; one item."""
    a, s = schedule.alpha[t], schedule.sigma[t]
    x0 = (-(x.flatten() - a * y).square().sum(1) / (2 * s**2)).softmax(0) @ y
    return x0.reshape(x.shape), (x - a * x0.reshape(x.shape)) / s


def mixed(prior):
    """Six items: prompts that overlap, all cameras, some of them twice, and levels from clean to
    noise.
    """
    prompts = ["a chair", "a pink chair", "a chair", "a mug", "a pink chair", "a chair"]
    members, cameras = [CHAIRS, PINK, CHAIRS, MUGS, PINK, CHAIRS], [2, 0, 0, 3, 1, 2]
    t = torch.tensor([300, 700, 900, 999, 500, 20])
    noise = prior.noise(range(6), f64)
    a, s = (prior.schedule.at(name, t, noise) for name in ("alpha", "sigma"))
    means = torch.stack(
        [pictures(prior.world, c)[m].mean(0) for m, c in zip(members, cameras, strict=True)]
    )
    x = a * means.reshape(noise.shape) + s * noise
    return x, t, prior.condition(prompts, camera=[BANK[c] for c in cameras]), members, cameras


@pytest.mark.parametrize("dtype", [f64, torch.float32])
def test_a_prediction_is_the_mean_of_that_prompts_pictures_from_that_camera(prior, dtype):
    x, t, cond, members, cameras = mixed(prior)
    got = prior.predict(x.to(dtype), t, cond)
    torch.testing.assert_close(
        prior.mean_picture.float(), (prior.world.views.double().mean((0, 1)) / 127.5 - 1).float()
    )
    several = 0
    for i, (who, camera) in enumerate(zip(members, cameras, strict=True)):
        y = pictures(prior.world, camera)
        for term, own in (("cond", y[who]), ("uncond", y)):
            x0, eps = closed_form(x[i], int(t[i]), own, prior.schedule)
            torch.testing.assert_close(
                got[term].x0[i].double(), x0, rtol=0, atol=1e-6 if dtype == f64 else 3e-5
            )
            torch.testing.assert_close(
                got[term].eps[i].double(), eps, rtol=0, atol=2e-5 if dtype == f64 else 3e-4
            )
            several += int((own.reshape(-1, *prior.shape) - x0).flatten(1).norm(dim=1).min() > 0.05)
    assert several >= 6  # most of these are no one picture, but a mean of several


def test_a_mixed_batch_is_its_items_one_by_one(prior):
    x, t, cond, *_ = mixed(prior)
    whole = prior.predict(x.float(), t, cond)
    for i in range(6):
        alone = prior.predict(
            x[i : i + 1].float(), int(t[i]), prior.condition(cond.prompt[i], camera=cond.camera[i])
        )
        for term in ("uncond", "cond"):
            torch.testing.assert_close(alone[term].x0[0], whole[term].x0[i], rtol=0, atol=1e-5)
    one = prior.condition("a chair", camera=BANK[1])
    both = prior.predict_many(
        [Query(x[:2].float(), t[:2], one, ("cond",)), Query(x.float(), t, cond)]
    )
    assert set(both[0]) == {"cond"}
    torch.testing.assert_close(
        both[0]["cond"].x0, prior.predict(x[:2].float(), t[:2], one)["cond"].x0, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(both[1]["cond"].x0, whole["cond"].x0, rtol=0, atol=1e-5)


def test_negative_prompts_and_the_degraded_term(prior):
    x, t, *_ = mixed(prior)
    cond = prior.condition("a chair", "a mug", [BANK[0], BANK[1]])
    terms = prior.predict(x[:2], 600, cond, ("negative", "degraded"))
    i = torch.arange(16, dtype=f64)
    blur = torch.softmax(-((i[:, None] - i) ** 2) / 18, dim=1)  # a Gaussian of 3 pixels
    for item in (0, 1):
        y = pictures(prior.world, item)
        torch.testing.assert_close(
            terms["negative"].x0[item],
            closed_form(x[item], 600, y[MUGS], prior.schedule)[0],
            rtol=0,
            atol=1e-6,
        )
        mean = SCALE * prior.mean_picture.double()
        worse = blur @ (y.reshape(-1, 3, 16, 16) + mean) @ blur.T - mean
        torch.testing.assert_close(
            terms["degraded"].x0[item],
            closed_form(x[item], 600, worse.flatten(1), prior.schedule)[0],
            rtol=0,
            atol=1e-6,
        )


def test_evaluations_are_items_times_terms(prior):
    x, t, cond, *_ = mixed(prior)
    prior.predict_noise(x, t, cond, 7.5)
    assert prior.evaluations == 12
    prior.predict_noise(x, t, cond, 1.0)
    assert prior.evaluations == 18


def test_members_and_prompts(prior):
    assert (
        prior.members("chair").tolist() == CHAIRS and prior.members("a pink chair").tolist() == PINK
    )
    assert (
        prior.resolve("Mug") == "a mug"
        and prior.prompts == prior.world.prompts
        and prior.cameras == BANK
    )
    with pytest.raises(ValueError, match='unknown prompt "a chiar"; did you mean "a chair"'):
        prior.condition("a chiar", camera=BANK[0])


def test_conditions_with_cameras(prior):
    cond = prior.condition("chair", "mug", BANK)
    assert (
        cond.prompt == ("a chair",) * 4 and cond.negative == ("a mug",) * 4 and cond.camera == BANK
    )
    assert cond.select([3, 1]).camera == (BANK[3], BANK[1]) and cond.select([3]).negative == (
        "a mug",
    )
    assert cond.repeat(2).camera == BANK * 2
    one = prior.condition("chair", camera=BANK[2])
    assert len(one) == 1 and one.repeat(3) is one and one.select([0, 0]) is one


@pytest.mark.parametrize(
    "camera, error, message",
    [
        (None, ValueError, "toybox needs a camera"),
        (
            Camera(100, 25),
            ValueError,
            r"knows 4 cameras and Camera\(azimuth=100.0.* nearest is "
            r"Camera\(azimuth=90.0, elevation=20.0",
        ),
        (
            [BANK[0], Camera(0, 21)],
            ValueError,
            r"Camera\(azimuth=0.0, elevation=21.0.* the nearest is Camera\(azimuth=0.0",
        ),
        ([BANK[0]] * 2, ValueError, "2 cameras for 3 items; give one, or one an item"),
        ([], ValueError, "cameras is empty"),
        ("front", TypeError, "every camera must be a Camera"),
        (0, TypeError, "every camera|cameras must be a sequence"),
    ],
)
def test_cameras_that_it_refuses(camera, error, message, prior):
    with pytest.raises(error, match=message):
        prior.condition(["a chair"] * 3, camera=camera)


def test_a_prior_without_cameras_refuses_one(small_world):
    with pytest.raises(ValueError, match="small takes no camera"):
        ImageSet(small_world).condition("warm", camera=BANK[0])
    assert ImageSet(small_world).condition("warm").camera is None


def test_the_nearest_camera():
    assert [nearest(Camera(a, 0), BANK) for a in (44, 46, 180, -100)] == [0, 1, 2, 3]


def test_encode_and_decode(prior):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x = prior.encode(images)
    torch.testing.assert_close(
        x.detach(), SCALE * (2 * images.detach() - 1 - prior.mean_picture.float())
    )
    torch.testing.assert_close(prior.decode(x.detach()), images.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(x.sum(), images)[0], torch.full_like(images, 2 * SCALE)
    )
    assert prior.decode(
        torch.tensor([-9.0, 9.0])[:, None, None, None].expand(2, 3, 16, 16)
    ).unique().tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"must have shape \(B, 3, 16, 16\)"):
        prior.encode(images[..., :8])


def test_other_sizes(world):
    """Pictures are block means; the scale grows as the side falls, so that a squared difference
    keeps its weight.
    """
    large = small(32)
    prior = ViewSet(large)
    assert prior.scale == 9.6 / 32 and prior.at_size(32) is prior
    half = prior.at_size(16)
    assert (
        half.shape == (3, 16, 16)
        and half.scale == 9.6 / 16
        and ViewSet(large, 0.2).at_size(16).scale == 0.4
    )
    means = large.views.double().reshape(5, 4, 3, 16, 2, 16, 2).mean((4, 6))
    assert (half.world.views.double() - means).abs().max() <= 0.5  # whole numbers
    near = half.predict(
        half.encode(half.world.images("a mug", 3)),
        0,
        half.condition("a mug", camera=BANK[3]),
        ("cond",),
    )
    assert torch.equal(
        (half.decode(near["cond"].x0) * 255).round().byte(), half.world.views[MUGS, 3]
    )
    block = (
        F.avg_pool2d(prior.encode(large.images("a mug", 3)), 2) * 2
    )  # what the paths at both sizes have in common
    torch.testing.assert_close(
        half.encode(half.world.images("a mug", 3)), block, rtol=0, atol=0.6 * 2 / 255
    )
    with pytest.raises(ValueError, match="a smaller size must divide that, got 64"):
        prior.at_size(64)


# ---- joint


def joint_by_hand(world, scale):
    """A prior whose pictures are all four views of an object one under the other, so that no view
    is alone.
    """
    stacked = torch.cat([pictures(world, camera, scale) for camera in range(4)], 1)
    return GaussianMixture(
        {"a chair": stacked[CHAIRS].tolist(), "a mug": stacked[MUGS].tolist()}, width=0.0
    )


def test_joint_views_are_one_picture_of_all_views(world):
    """Two objects in one call, at levels of their own, their views in any order: each is denoised
    as one stacked picture.
    """
    prior, stacked = ViewSet(world, SCALE, joint=True), joint_by_hand(world, SCALE)
    noise, level = prior.noise(range(8), f64).unflatten(0, (2, 4)), torch.tensor([700, 850])
    mean = torch.stack([pictures(world, camera)[CHAIRS].mean(0) for camera in range(4)]).reshape(
        4, 3, 16, 16
    )
    a, s = (prior.schedule.at(name, level, noise) for name in ("alpha", "sigma"))
    x = a * mean + s * noise  # (object, view, 3, 16, 16)
    wanted = stacked.predict(x.flatten(1), level, stacked.condition("a chair"))
    order = torch.tensor([[2, 0, 3, 1], [1, 2, 0, 3]])
    mixed = torch.stack([own[o] for own, o in zip(x, order, strict=True)]).flatten(0, 1)
    cond = prior.condition("a chair", camera=[BANK[i] for i in order.flatten().tolist()])
    alone = ViewSet(world, SCALE).predict(mixed, level.repeat_interleave(4), cond)
    got = prior.predict(mixed, level.repeat_interleave(4), cond)
    for term in ("cond", "uncond"):
        own = torch.stack(
            [x0.reshape(4, 3, 16, 16)[o] for x0, o in zip(wanted[term].x0, order, strict=True)]
        ).flatten(0, 1)
        torch.testing.assert_close(got[term].x0, own, rtol=0, atol=1e-6)
        assert (alone[term].x0 - own).abs().max() > 0.01  # which views denoised each alone are not
    both = prior.predict_many(
        [
            Query(mixed, level.repeat_interleave(4), cond),
            Query(mixed[:4], level[:1].repeat(4), cond.select(range(4))),
        ]
    )
    torch.testing.assert_close(both[1]["cond"].x0, got["cond"].x0[:4], rtol=0, atol=1e-6)


def test_joint_views_agree_on_the_object(world):
    """From each seed all views end at one object; denoised alone they do not, from most seeds."""
    ends = {}
    for joint in (True, False):
        prior = ViewSet(world, joint=joint)
        cond, ends[joint] = prior.condition("a chair", camera=BANK), []
        for seed in range(8):
            x = ddim(prior, prior.noise([seed]).expand(4, -1, -1, -1), cond, 12).x0[-1].double()
            away = torch.stack(
                [(x[v].flatten() - pictures(world, v, prior.scale)).norm(dim=1) for v in range(4)]
            )
            ends[joint].append(len(away.argmin(1).unique()))
    assert ends[True] == [1] * 8 and sum(ends[False]) > 12


def test_a_joint_prior_says_so_and_has_smaller_pictures(world):
    prior = ViewSet(small(32), joint=True)
    assert (
        prior.views_per_item == 4 and prior.scale == 9.6 / 32 / 2 and prior.name.endswith("-joint")
    )
    assert prior.at_size(16).views_per_item == 4 and prior.at_size(16).scale == 9.6 / 16 / 2
    assert ViewSet(world).views_per_item == 1


def test_load_prior(monkeypatch):
    """By its name, and made once a size; the whole world takes a minute and stays unmade here."""
    priors._toybox.cache_clear()
    monkeypatch.setattr(priors, "toybox", small)
    try:
        prior = load_prior("toybox", 32)
        assert (
            isinstance(prior, ViewSet)
            and prior.shape == (3, 32, 32)
            and load_prior("toybox", 32) is prior
        )
        assert (
            load_prior("toybox-joint", 32).views_per_item == 4
            and load_prior("toybox-joint", 32).name == "toybox-joint"
        )
        assert (
            load_prior("toybox").shape == (3, 64, 64)
            and prior.name == "toybox"
            and prior.scale == 9.6 / 32
        )
    finally:
        priors._toybox.cache_clear()
    with pytest.raises(ValueError, match='did you mean "toybox"'):
        load_prior("toybocks")


def test_a_smaller_prior_counts_on_the_one_it_comes_from(prior):
    small = prior.at_size(8)
    before = prior.evaluations
    small.predict(small.noise([0]), 500, small.condition("a chair", camera=small.cameras[0]))
    assert prior.evaluations == small.evaluations == before + 2

"""Training a novel-view mini: what each step learns from, that it stops and goes on, and the folder
that comes out.
"""

import json
import re
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dsd_lab import Camera, InputView, load_prior
from dsd_lab.cameras import sample_cameras
from dsd_lab.minis import novel_view as own
from dsd_lab.minis.novel_view import ViewPairs, make_network, train_novel_view
from dsd_lab.minis.text_to_image import (
    Recipe,
    encode_all,
    generator_of,
    make_autoencoder,
    make_unet,
)
from dsd_lab.priors import NovelViewPrior
from dsd_lab.priors.network import quiet
from dsd_lab.priors.novel_view import relative_pose

TOYS, VIEWS = 3, 4
TINY = dict(steps=4, batch=2, widths=(16, 16, 16), text_width=16)


def pairs():
    """Noise for pictures of three toys, each from four cameras of its own."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (TOYS, VIEWS, 3, 16, 16), generator=generator, dtype=torch.uint8)
    cameras = tuple(sample_cameras(VIEWS, generator, distance=(2.5, 3.5)) for _ in range(TOYS))
    return ViewPairs("noise", pixels, cameras, "Noise: made here.")


DATA = pairs()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """One that takes the autoencoder of a pipeline's folder."""
    folder = tmp_path_factory.mktemp("other")
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        make_autoencoder(16, Recipe(autoencoder_widths=(8, 8, 8))).save_pretrained(folder / "vae")
    return Recipe(autoencoder=str(folder), **TINY)


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("mini")
    return SimpleNamespace(out=out, prior=train_novel_view(DATA, out, recipe, device="cpu"))


def assert_same_bits(one, other):
    for part in ("network", "vae"):
        a, b = (getattr(prior, part).state_dict() for prior in (one, other))
        assert a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


# ---- what a step learns from


def told(recipe, monkeypatch, tmp_path, **changes):
    """What the loss is told at each step, in a training that does not learn: [(x0, latents,
    pictures, pose, keep)].
    """
    seen = []

    def loss(learner, schedule, x0, conditions, generator, gamma):
        assert gamma == recipe.min_snr and schedule.prediction_type == recipe.prediction
        seen.append((x0, *conditions))
        return next(learner.parameters()).sum() * 0

    monkeypatch.setattr(own, "denoising_loss", loss)
    settings = {**TINY, "autoencoder": recipe.autoencoder, "steps": 2, "batch": 200, **changes}
    prior = train_novel_view(DATA, tmp_path, Recipe(**settings), device="cpu")
    return [torch.cat(part) for part in zip(*seen, strict=True)], prior


def test_pairs_come_from_one_toy_and_the_pose_leads_from_given_to_asked(
    recipe, monkeypatch, tmp_path
):
    """Each row is found again among the toys' views: by its picture what is given, its toy's first;
    by its latents the rest.
    """
    (x0, latents, pictures, pose, keep), prior = told(recipe, monkeypatch, tmp_path)
    vae = prior.vae
    unscaled = encode_all(vae, DATA.pixels.flatten(0, 1), "cpu")
    torch.testing.assert_close(
        float((unscaled * vae.config.scaling_factor).std()), 1.0, rtol=0, atol=1e-3
    )
    given = (
        (DATA.pixels.flatten(0, 1).float() / 255 - pictures[:, None]).abs().amax((2, 3, 4)).min(1)
    )
    asked = (unscaled * vae.config.scaling_factor - x0[:, None]).abs().amax((2, 3, 4)).min(1)
    assert given.values.max() < 1e-6 and asked.values.max() < 1e-5
    torch.testing.assert_close(
        latents, unscaled[given.indices]
    )  # as the network will see it: not scaled
    toy, other = given.indices // VIEWS, asked.indices // VIEWS
    assert torch.equal(toy, other)
    assert set(given.indices.tolist()) == {0, VIEWS, 2 * VIEWS}
    assert (
        len({(i, j) for i, j in zip(given.indices.tolist(), asked.indices.tolist(), strict=True)})
        == TOYS * VIEWS
    )
    cameras = [camera for row in DATA.cameras for camera in row]
    for i, j, got in zip(given.indices.tolist(), asked.indices.tolist(), pose, strict=True):
        torch.testing.assert_close(got, relative_pose(cameras[i], cameras[j])[0])
    turned = torch.cat(
        [
            relative_pose(cameras[j], cameras[i])
            for i, j in zip(given.indices.tolist(), asked.indices.tolist(), strict=True)
        ]
    )
    assert (turned - pose).abs().max() > 0.5
    assert set(keep.tolist()) <= {0.0, 1.0}


def test_the_condition_is_dropped_in_its_share(recipe, monkeypatch, tmp_path):
    (*_, keep), _ = told(recipe, monkeypatch, tmp_path, drop=0.3)
    assert float(keep.mean()) == pytest.approx(0.7, abs=0.08)  # 400 draws: 3.5 standard errors


def test_what_is_dropped_is_zeros_for_both_the_latents_and_the_token(recipe):
    """The network's own call of its UNet: item 1 is dropped, item 0 is not."""
    network, seen = make_network(16, recipe), []
    handle = network.unet.register_forward_hook(
        lambda _, args, kwargs, output: seen.append((*args, kwargs)), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(1)
    x_t, latents = torch.randn(2, 2, 4, 4, 4, generator=generator)
    embedding, pose = (
        torch.randn(2, 16, generator=generator),
        torch.randn(2, 4, generator=generator),
    )
    network(x_t, torch.tensor([5, 900]), latents, embedding, pose, torch.tensor([1.0, 0.0]))
    handle.remove()
    ((x, t, kwargs),) = seen
    token = network.projection(torch.cat([embedding, pose], 1))
    assert token[1].abs().max() > 0.1 and t.tolist() == [5, 900]  # the bias is dropped too
    torch.testing.assert_close(
        kwargs["encoder_hidden_states"], torch.stack([token[0], torch.zeros(16)])[:, None]
    )
    torch.testing.assert_close(
        x, torch.cat([x_t, torch.stack([latents[0], torch.zeros(4, 4, 4)])], 1)
    )
    torch.testing.assert_close(kwargs["class_labels"], torch.stack([pose[0], torch.zeros(4)]))


def test_it_starts_as_another_minis_unet(recipe, tmp_path):
    """Whatever picture is given and whatever the pose, before training it predicts what that UNet
    does, told no camera.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        other = make_unet(
            16,
            recipe,
            class_embed_type="simple_projection",
            projection_class_embeddings_input_dim=8,
        )
        other.save_pretrained(tmp_path / "unet")
    network = make_network(16, replace(recipe, start=str(tmp_path)))
    network.unet.class_embedding.requires_grad_(False).weight.zero_()
    network.unet.class_embedding.bias.copy_(other.class_embedding.bias)
    generator = torch.Generator().manual_seed(1)
    x_t, latents = torch.randn(2, 2, 4, 4, 4, generator=generator)
    embedding, pose = (
        torch.randn(2, 16, generator=generator),
        torch.randn(2, 4, generator=generator),
    )
    with torch.no_grad():
        token = network.projection(torch.cat([embedding, pose], 1))[:, None]
        got = network(x_t, torch.tensor([5, 900]), latents, embedding, pose, torch.ones(2))
        want = other(x_t, torch.tensor([5, 900]), token, class_labels=torch.zeros(2, 8)).sample
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    "widths, message",
    [((16, 16, 32), "widths .16, 16, 16.; the recipe's are .16, 16, 32."), (None, "no unet in")],
)
def test_a_start_that_does_not_fit(widths, message, recipe, tmp_path):
    if widths:
        with quiet():
            make_unet(16, recipe).save_pretrained(tmp_path / "unet")
    with pytest.raises(ValueError, match=message):
        train_novel_view(
            DATA,
            tmp_path / "out",
            replace(recipe, start=str(tmp_path), **({"widths": widths} if widths else {})),
            device="cpu",
        )
    assert not (tmp_path / "out").exists()


def test_everything_but_the_autoencoder_learns(recipe, trained):
    """The image encoder, the projection and the UNet move; the averages are exported; the
    autoencoder stays as it was.
    """
    start = make_network(16, recipe).state_dict()
    moved = {
        name
        for name, value in trained.prior.network.state_dict().items()
        if not torch.equal(value, start[name])
    }
    assert {name.split(".")[0] for name in moved} == {"unet", "image_encoder", "projection"}
    assert {"projection.weight", "projection.bias", "unet.conv_in.weight"} <= moved
    before = make_autoencoder(16, recipe).state_dict()
    assert all(
        torch.equal(value, before[name]) for name, value in trained.prior.vae.state_dict().items()
    )


def test_training_lowers_the_loss(recipe, monkeypatch, tmp_path):
    losses, real = [], own.denoising_loss

    def measured(*args):
        loss = real(*args)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(own, "denoising_loss", measured)
    train_novel_view(
        DATA,
        tmp_path,
        Recipe(**TINY | dict(autoencoder=recipe.autoencoder, steps=16, lr=5e-2, batch=8)),
        device="cpu",
        every=1000,
    )
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


# ---- stopping, and going on


class Stop(Exception):
    pass


def test_a_broken_training_goes_on_to_the_same_bits(recipe, trained, monkeypatch, tmp_path):
    real, calls = own.denoising_loss, []

    def loss(*args):
        calls.append(0)
        if len(calls) > 2:
            raise Stop
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(own, "denoising_loss", loss)
        with pytest.raises(Stop):
            train_novel_view(DATA, tmp_path, recipe, device="cpu")
    assert not (tmp_path / "model_index.json").exists()
    assert_same_bits(train_novel_view(DATA, tmp_path, recipe, device="cpu"), trained.prior)


def test_samples_change_nothing(recipe, trained, tmp_path):
    """They come from a copy, as a prior freezes, casts and moves what it is made of; a break there
    is no harm either.
    """
    shown = []

    def samples(prior, step):
        shown.append((step, prior.name, next(prior.unet.parameters()).requires_grad))
        prior.network.half()
        if step == 2:
            raise Stop

    with pytest.raises(Stop):
        train_novel_view(DATA, tmp_path, recipe, device="cpu", every=1, samples=samples)
    assert shown == [(1, tmp_path.name, False), (2, tmp_path.name, False)]
    assert_same_bits(train_novel_view(DATA, tmp_path, recipe, device="cpu"), trained.prior)


def test_a_finished_training_is_not_written_again(recipe, trained):
    file = trained.out / "checkpoint" / "network.safetensors"
    before = file.stat().st_mtime_ns
    assert_same_bits(train_novel_view(DATA, trained.out, recipe, device="cpu"), trained.prior)
    assert file.stat().st_mtime_ns == before


def test_another_training_in_the_same_folder_is_refused(recipe, trained):
    other = ViewPairs("noise", DATA.pixels.flip(0), DATA.cameras)
    for data, changes in ((DATA, {"lr": 0.5}), (other, {})):
        with pytest.raises(ValueError, match="another training"):
            train_novel_view(
                data,
                trained.out,
                Recipe(**TINY | {"autoencoder": recipe.autoencoder} | changes),
                device="cpu",
            )


@pytest.mark.parametrize(
    "autoencoder, message",
    [
        (None, 'takes its autoencoder from another mini: Recipe.autoencoder="icons-mini"'),
        ("icons-mimi", 'no vae in "icons-mimi"; allowed: .*icons-mini'),
    ],
)
def test_a_recipe_without_an_autoencoder(autoencoder, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_novel_view(
            DATA, tmp_path / "new", Recipe(**TINY, autoencoder=autoencoder), device="cpu"
        )
    assert not (tmp_path / "new").exists()


# ---- what comes out


def test_load_prior_reads_it(trained):
    """Every part is there, in half precision on the disk; so its predictions are those of the
    returned prior, nearly.
    """
    prior = load_prior(trained.out, device="cpu")
    assert isinstance(prior, NovelViewPrior) and prior.name == trained.out.name
    assert (
        prior.shape == (4, 4, 4)
        and prior.image_shape == (3, 16, 16)
        and prior.schedule.prediction_type == "v_prediction"
    )
    view = InputView(DATA.pixels[0, 0].float() / 255, torch.ones(1, 16, 16), DATA.cameras[0][0])
    x, images = prior.noise([0, 1]), DATA.pixels[1, :2].float() / 255
    got, want = (
        p.predict(x, 500, p.condition(view, camera=[Camera(50), Camera(-50)]))
        for p in (prior, trained.prior)
    )
    for term in ("cond", "uncond"):
        torch.testing.assert_close(got[term].output, want[term].output, rtol=0.02, atol=0.02)
    torch.testing.assert_close(
        prior.encode(images), trained.prior.encode(images), rtol=0.02, atol=0.02
    )
    again = load_prior(trained.out, device="cpu").network.state_dict()
    assert all(
        torch.equal(value.half(), again[name].half())
        for name, value in trained.prior.network.state_dict().items()
    )


def test_the_folder_is_laid_out_as_the_conversion_of_zero_1_to_3(trained):
    from safetensors.torch import load_file

    index = json.loads((trained.out / "model_index.json").read_text())
    assert index["cc_projection"] == ["pipeline_zero1to3", "CCProjection"] and index[
        "_class_name"
    ].startswith("Zero1to3")
    for part in ("unet", "vae", "image_encoder", "cc_projection"):
        (file,) = (trained.out / part).glob("*.safetensors")
        tensors = load_file(file)
        assert part in index and all(
            v.dtype == torch.float16 for v in tensors.values() if v.is_floating_point()
        )
    assert set(tensors) == {"projection.weight", "projection.bias"} and tensors[
        "projection.weight"
    ].shape == (16, 20)
    facts = json.loads((trained.out / "training.json").read_text())
    assert (facts["data"], facts["toys"], facts["pictures"], facts["credit"]) == (
        "noise",
        3,
        12,
        DATA.credit,
    )
    assert facts["recipe"]["steps"] == 4 and facts["minutes"]["autoencoder"] == 0


def test_nothing_is_printed(recipe, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_novel_view(
            DATA,
            tmp_path,
            Recipe(**TINY | dict(autoencoder=recipe.autoencoder, steps=2)),
            device="cpu",
            every=1,
            samples=lambda prior, step: None,
        )
    printed = capfd.readouterr()
    assert printed.out == "" and re.sub(r"^\s*$", "", printed.err) == ""


# ---- toys


def test_pairs_of_toys(monkeypatch):
    """Of each kind its singles, then groups of three backs; eight at a time share their cameras.
    Nothing is rendered here.
    """
    from dsd_lab import worlds

    made, rendered = [], []
    monkeypatch.setattr(sys.modules["dsd_lab.worlds.toybox.world"], "KINDS", ("chair", "mug"))
    monkeypatch.setattr(worlds, "make_toys", lambda *args: made.append(args) or Table(args))

    def render(toys, cameras):
        rendered.append((toys, cameras))
        number = torch.tensor(toys, dtype=torch.float32)[:, None, None, None, None]
        return SimpleNamespace(rgb=(number / 255).expand(-1, len(cameras), 3, 64, 64))

    monkeypatch.setattr(worlds, "render", render)
    data = ViewPairs.toys(singles=3, groups=2, views=2, seed=4)
    ((kinds, seeds, backs),) = made
    assert kinds == ["chair"] * 9 + ["mug"] * 9
    assert (
        seeds == [0, 1, 2, 10, 10, 10, 11, 11, 11] * 2
        and backs == [None] * 3 + [0, 1, 2] * 2 + [None] * 3 + [0, 1, 2] * 2
    )
    assert data.pixels.dtype == torch.uint8 and data.pixels.shape == (18, 3, 3, 64, 64)
    assert data.pixels[:, 1, 2, 5, 5].tolist() == list(range(18))
    generator = generator_of(4, "pairs")
    shared = [(Camera(0, 20), *sample_cameras(2, generator)) for _ in range(3)]
    assert data.cameras == (shared[0],) * 8 + (shared[1],) * 8 + (shared[2],) * 2
    assert [cameras for _, cameras in rendered] == shared and "Toys" in data.credit


class Table:
    """Stands for toys: as many as were asked for, of which a part is its positions."""

    def __init__(self, args):
        self.size = len(args[0])

    def __len__(self):
        return self.size

    def subset(self, part):
        return part.tolist()

"""Training a novel-view mini: what each step learns from, that it stops and goes on, and the folder
that comes out.
"""

import json
import re
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from device import MOCK

from dsd_lab import Camera, InputView, load_prior
from dsd_lab.cameras import sample_cameras
from dsd_lab.draws import generator_of
from dsd_lab.minis import NovelView, Recipe, TrainingSet, train, training
from dsd_lab.minis import data as sets
from dsd_lab.minis.parts import encode_all, make_autoencoder, make_unet, seeded
from dsd_lab.priors import NovelViewPrior
from dsd_lab.priors.network import quiet
from dsd_lab.priors.zero123 import relative_pose

TOYS, VIEWS = 3, 4
TINY = Recipe(steps=4, batch=2, widths=(16, 16, 16), text_width=16, autoencoder_widths=(8, 8, 8))


def pairs():
    """Noise for pictures of three toys, each from four cameras of its own."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (TOYS, VIEWS, 3, 16, 16), generator=generator, dtype=torch.uint8)
    cameras = [sample_cameras(VIEWS, generator, distance=(2.5, 3.5)) for _ in range(TOYS)]
    return TrainingSet("noise", pixels, [("noise",)] * TOYS, cameras, "Noise: made here.")


DATA = pairs()


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """One that takes the autoencoder of a pipeline's folder."""
    folder = tmp_path_factory.mktemp("other")
    with quiet(), seeded(7):
        make_autoencoder(16, TINY).save_pretrained(folder / "vae")
    return NovelView(DATA, replace(TINY, autoencoder=str(folder)))


@pytest.fixture(scope="module")
def trained(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("mini")
    return SimpleNamespace(out=out, prior=train(task, out, device="cpu"))


def changed(task, **recipe):
    return replace(task, recipe=replace(task.recipe, **recipe))


def assert_same_bits(one, other):
    for part in ("network", "vae"):
        a, b = (getattr(prior, part).state_dict() for prior in (one, other))
        assert a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


# ---- what a step learns from


def test_pairs_come_from_one_toy_and_the_pose_leads_from_given_to_wanted(task):
    """Each row is found again among the toys' views: by its picture what is given, half of the time
    its toy's first; by its latents the rest.
    """
    task, (vae, _) = changed(task, batch=400), task.networks()
    x0, (latents, pictures, pose, keep) = task.batch(task.encode(vae), generator_of(0))
    unscaled, scale = encode_all(vae, DATA.pictures), vae.config.scaling_factor
    assert float((unscaled * scale).std()) == pytest.approx(1.0, abs=1e-3)
    given = (DATA.pictures.float() / 255 - pictures[:, None]).abs().amax((2, 3, 4)).min(1)
    wanted = (unscaled * scale - x0[:, None]).abs().amax((2, 3, 4)).min(1)
    assert given.values.max() < 1e-6 and wanted.values.max() < 1e-5
    torch.testing.assert_close(latents, unscaled[given.indices])  # as the network sees it
    assert torch.equal(given.indices // VIEWS, wanted.indices // VIEWS)
    first, any_view = (set(half.tolist()) for half in given.indices.split(200))
    assert first == {0, VIEWS, 2 * VIEWS} and any_view == set(range(TOYS * VIEWS))
    found = list(zip(given.indices.tolist(), wanted.indices.tolist(), strict=True))
    assert len(set(found)) == TOYS * VIEWS**2
    cameras = [camera for row in DATA.cameras for camera in row]
    right = torch.cat([relative_pose(cameras[i], cameras[j]) for i, j in found])
    turned = torch.cat([relative_pose(cameras[j], cameras[i]) for i, j in found])
    torch.testing.assert_close(pose, right)
    assert (turned - pose).abs().max() > 0.5
    assert set(keep.tolist()) == {0.0, 1.0}


def test_the_condition_is_dropped_in_its_share(task):
    task, (vae, _) = changed(task, batch=400, drop=0.3), task.networks()
    *_, keep = task.batch(task.encode(vae), generator_of(0))[1]
    assert float(keep.mean()) == pytest.approx(0.7, abs=0.08)  # 3.5 standard errors


def test_what_is_dropped_is_zeros_for_both_the_latents_and_the_token(task):
    """The network's own call of its UNet: item 1 is dropped, item 0 is not."""
    network, seen = task.networks()[1].network, []
    handle = network.unet.register_forward_hook(
        lambda _, args, kwargs, output: seen.append((*args, kwargs)), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(1)
    x_t, latents = torch.randn(2, 2, 4, 4, 4, generator=generator)
    embedding, pose = torch.randn(2, 20, generator=generator).split((16, 4), 1)
    network(x_t, torch.tensor([5, 900]), latents, embedding, pose, torch.tensor([1.0, 0.0]))
    handle.remove()
    ((x, t, kwargs),) = seen
    token = network.projection(torch.cat([embedding, pose], 1))
    assert token[1].abs().max() > 0.1 and t.tolist() == [5, 900]  # the bias is dropped too
    token = torch.stack([token[0], torch.zeros(16)])[:, None]
    torch.testing.assert_close(kwargs["encoder_hidden_states"], token)
    given = torch.stack([latents[0], torch.zeros(4, 4, 4)])
    torch.testing.assert_close(x, torch.cat([x_t, given], 1))
    torch.testing.assert_close(kwargs["class_labels"], torch.stack([pose[0], torch.zeros(4)]))


def test_training_embeds_the_given_pictures(task):
    learner = task.networks()[1]
    generator = torch.Generator().manual_seed(2)
    x_t, latents = torch.randn(2, 2, 4, 4, 4, generator=generator)
    pictures, pose = torch.rand(2, 3, 16, 16, generator=generator), torch.ones(2, 4)
    t, keep, network = torch.tensor([5, 900]), torch.ones(2), learner.network
    want = network(x_t, t, latents, network.embed(pictures), pose, keep)
    torch.testing.assert_close(learner(x_t, t, latents, pictures, pose, keep), want)
    other = learner(x_t, t, latents, pictures.flip(0), pose, keep)
    assert (other - want).abs().max() > 1e-6


def test_it_starts_as_another_minis_unet(task, tmp_path):
    """Whatever picture is given and whatever the pose, before training it predicts what that UNet
    does, without a camera.
    """
    with quiet(), seeded(8):
        other = make_unet(16, task.recipe, camera=8)
        other.save_pretrained(tmp_path / "unet")
    network = changed(task, start=str(tmp_path)).networks()[1].network
    network.unet.class_embedding.requires_grad_(False).weight.zero_()
    network.unet.class_embedding.bias.copy_(other.class_embedding.bias)
    generator = torch.Generator().manual_seed(1)
    x_t, latents = torch.randn(2, 2, 4, 4, 4, generator=generator)
    embedding, pose = torch.randn(2, 20, generator=generator).split((16, 4), 1)
    with torch.no_grad():
        token = network.projection(torch.cat([embedding, pose], 1))[:, None]
        got = network(x_t, torch.tensor([5, 900]), latents, embedding, pose, torch.ones(2))
        want = other(x_t, torch.tensor([5, 900]), token, class_labels=torch.zeros(2, 8)).sample
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    "widths, message",
    [((16, 16, 32), "the unet of .* does not fit the recipe: "), (None, "no unet in")],
)
def test_a_start_that_does_not_fit(widths, message, task, tmp_path):
    if widths:
        with quiet():
            make_unet(16, task.recipe).save_pretrained(tmp_path / "unet")
        task = changed(task, widths=widths)
    with pytest.raises(ValueError, match=message):
        train(changed(task, start=str(tmp_path)), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_everything_but_the_autoencoder_learns(task, trained):
    """The image encoder, the projection and the UNet move; the averages are exported; the
    autoencoder stays as it was.
    """
    vae, network = task.networks()
    start, end = network.network.state_dict(), trained.prior.network.state_dict()
    moved = {name for name, value in end.items() if not torch.equal(value, start[name])}
    assert {name.split(".")[0] for name in moved} == {"unet", "image_encoder", "projection"}
    assert {"projection.weight", "projection.bias", "unet.conv_in.weight"} <= moved
    kept = trained.prior.vae.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in vae.state_dict().items())


def test_training_lowers_the_loss(task, monkeypatch, tmp_path):
    losses, real = [], training.denoising_loss

    def measured(*args):
        loss = real(*args)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(training, "denoising_loss", measured)
    train(changed(task, steps=16, lr=5e-2, batch=8), tmp_path, device="cpu", every=1000)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


@pytest.mark.slow
def test_it_trains_on_its_device(task, trained, tmp_path):
    there = train(task, tmp_path, device=MOCK)
    assert there.device.type == MOCK.type
    here = trained.prior.network.state_dict()
    away = [(v.cpu() - here[k]).abs().flatten() for k, v in there.network.state_dict().items()]
    assert float(torch.cat(away).mean()) < 5e-6  # of some 1e-4 that they move


# ---- stopping, and going on


class Stop(Exception):
    pass


def test_a_broken_training_goes_on_to_the_same_bits(task, trained, monkeypatch, tmp_path):
    real, calls = training.denoising_loss, []

    def loss(*args):
        calls.append(0)
        if len(calls) > 2:
            raise Stop
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "denoising_loss", loss)
        with pytest.raises(Stop):
            train(task, tmp_path, device="cpu")
    assert not (tmp_path / "model_index.json").exists()
    assert_same_bits(train(task, tmp_path, device="cpu"), trained.prior)


@pytest.mark.slow
def test_samples_change_nothing(task, trained, tmp_path):
    """They come from a copy, as a prior freezes, casts and moves what it is made of; a break there
    is no harm either.
    """
    shown = []

    def samples(prior, step):
        shown.append((step, prior.name, next(prior.unet.parameters()).requires_grad))
        assert len(task.preview(prior, "a step").axes) > 0
        prior.network.half()
        if step == 2:
            raise Stop

    with pytest.raises(Stop):
        train(task, tmp_path, device="cpu", every=1, samples=samples)
    assert shown == [(1, tmp_path.name, False), (2, tmp_path.name, False)]
    assert_same_bits(train(task, tmp_path, device="cpu"), trained.prior)


def test_another_training_in_the_same_folder_is_refused(task, trained):
    cameras = NovelView(replace(DATA, cameras=DATA.cameras[::-1]), task.recipe)
    for other, difference in ((changed(task, lr=0.5), "lr 0.001 there"), (cameras, "cameras")):
        with pytest.raises(ValueError, match=f"another run: {difference}"):
            train(other, trained.out, device="cpu")


def test_data_without_cameras_is_refused():
    with pytest.raises(ValueError, match="noise has none"):
        NovelView(replace(DATA, cameras=None))


def test_it_can_train_its_own_autoencoder(tmp_path):
    task = NovelView(DATA, replace(TINY, autoencoder_steps=2, steps=2))
    vae = task.networks()[0].state_dict()
    prior = train(task, tmp_path, device="cpu")
    assert not torch.equal(
        prior.vae.state_dict()["encoder.conv_in.weight"], vae["encoder.conv_in.weight"]
    )
    assert load_prior(tmp_path, device="cpu").shape == prior.shape


# ---- what comes out


def test_load_prior_reads_it(trained):
    """Every part is there, in half precision on the disk; so its predictions are those of the
    returned prior, nearly.
    """
    prior = load_prior(trained.out, device="cpu")
    assert isinstance(prior, NovelViewPrior) and prior.name == trained.out.name
    assert prior.shape == (4, 4, 4) and prior.image_shape == (3, 16, 16)
    assert prior.schedule.prediction_type == "v_prediction"
    view = InputView(DATA.pixels[0, 0].float() / 255, torch.ones(1, 16, 16), DATA.cameras[0][0])
    x, images = prior.noise([0, 1]), DATA.pixels[1, :2].float() / 255
    got, want = (
        p.predict(x, 500, p.condition(view, camera=[Camera(50), Camera(-50)]))
        for p in (prior, trained.prior)
    )
    for term in ("cond", "uncond"):
        torch.testing.assert_close(got[term].output, want[term].output, rtol=0.02, atol=0.02)
    encoded = trained.prior.encode(images)
    torch.testing.assert_close(prior.encode(images), encoded, rtol=0.02, atol=0.02)
    again = prior.network.state_dict()
    for name, value in trained.prior.network.state_dict().items():
        assert torch.equal(value.half(), again[name].half())


def test_the_folder_is_laid_out_as_the_conversion_of_zero_1_to_3(trained):
    from safetensors.torch import load_file

    index = json.loads((trained.out / "model_index.json").read_text())
    assert index["cc_projection"] == ["pipeline_zero1to3", "CCProjection"]
    assert index["_class_name"].startswith("Zero1to3")
    for part in ("unet", "vae", "image_encoder", "cc_projection"):
        (file,) = (trained.out / part).glob("*.safetensors")
        tensors = load_file(file)
        floats = [v for v in tensors.values() if v.is_floating_point()]
        assert part in index and all(v.dtype == torch.float16 for v in floats)
    assert set(tensors) == {"projection.weight", "projection.bias"}
    assert tensors["projection.weight"].shape == (16, 20)
    facts = json.loads((trained.out / "training.json").read_text())
    told = [facts[name] for name in ("data", "objects", "pictures", "credit")]
    assert told == ["noise", 3, 12, DATA.credit]
    assert facts["recipe"]["steps"] == 4 and facts["minutes"]["autoencoder"] == 0


def test_nothing_is_printed(task, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(changed(task, steps=2), tmp_path, device="cpu", every=1, samples=lambda *_: None)
    printed = capfd.readouterr()
    assert printed.out == "" and re.sub(r"^\s*$", "", printed.err) == ""


# ---- toys


class Table:
    """Stands for toys, each a number, which is also its picture's."""

    def __init__(self, numbers):
        self.numbers = list(numbers)
        self.kinds = tuple("mug" for _ in self.numbers)
        self.captions = tuple(f"a {number} mug" for number in self.numbers)

    def __len__(self):
        return len(self.numbers)

    def subset(self, part):
        return Table(self.numbers[i] for i in part.tolist())


def test_pairs_of_toys(monkeypatch):
    """Of each kind its singles, then groups of three backs; eight at a time share their cameras.
    Nothing is rendered here.
    """
    calls, rendered = [], []

    def render(toys, cameras):
        rendered.append((len(toys), cameras))
        number = torch.tensor(toys.numbers, dtype=torch.float32)[:, None, None, None, None]
        return SimpleNamespace(rgb=(number / 255).expand(-1, len(cameras), 3, 64, 64))

    monkeypatch.setattr(sets, "KINDS", ("chair", "mug"))
    monkeypatch.setattr(sets, "make_toys", lambda *a: calls.append(a) or Table(range(len(a[0]))))
    monkeypatch.setattr(sets, "render", render)
    data = TrainingSet.toy_pairs(singles=3, groups=2, views=2, seed=4)
    ((kinds, seeds, backs),) = calls
    assert kinds == ["chair"] * 9 + ["mug"] * 9
    assert seeds == [0, 1, 2, 10, 10, 10, 11, 11, 11] * 2
    assert backs == [None] * 3 + [0, 1, 2] * 2 + [None] * 3 + [0, 1, 2] * 2
    assert data.pixels.dtype == torch.uint8 and data.pixels.shape == (18, 3, 3, 64, 64)
    assert data.pixels[:, 1, 2, 5, 5].tolist() == list(range(18))
    assert data.captions[7] == ("a mug", "a 7 mug")
    generator = generator_of(4, "pairs")
    shared = [(Camera(0, 20), *sample_cameras(2, generator)) for _ in range(3)]
    assert data.cameras == [shared[0]] * 8 + [shared[1]] * 8 + [shared[2]] * 2
    assert rendered == list(zip((8, 8, 2), shared, strict=True)) and "Toys" in data.credit


@pytest.mark.slow
def test_toys_leave_out_the_held_out_pairs():
    from dsd_lab.worlds.toybox.world import KINDS, held_out_pairs

    data = TrainingSet.toys(per_kind=1, views=1)
    held_out = {f"{colour} {kind}" for colour, kind in held_out_pairs()}
    shown = [texts[1].split(" ", 1)[1] for texts in data.captions]
    assert not held_out & set(shown) and len(KINDS) // 2 < len(shown) <= len(KINDS)
    assert data.pixels.shape == (len(shown), 1, 3, 64, 64) and len(data.cameras) == len(shown)

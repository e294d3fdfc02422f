"""Training a mini: its losses worked out by hand, that it stops and goes on, and comes out as
anybody's pipeline.
"""

import json
import re
import warnings
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from device import MOCK
from torch import nn

from dsd_lab import DSD, NoiseSchedule, ddim, distill, load_prior, minis
from dsd_lab.cameras import Camera
from dsd_lab.draws import generator_of
from dsd_lab.minis import RECIPES, Recipe, TextToImage, TrainingSet, task_of, train, training
from dsd_lab.minis.data import BLURRY
from dsd_lab.minis.losses import autoencoder_loss, denoising_loss
from dsd_lab.minis.parts import encode_all, make_autoencoder, make_tokenizer
from dsd_lab.minis.text_to_image import blurred, with_blurry
from dsd_lab.minis.training import Training, rate
from dsd_lab.priors import PipelinePrior
from dsd_lab.priors.network import quiet

RECIPE = Recipe(
    autoencoder_steps=4,
    autoencoder_batch=2,
    autoencoder_widths=(8, 8, 8),
    steps=6,
    batch=4,
    widths=(16, 16, 16),
    text_width=16,
)
ALONE = SimpleNamespace(num_processes=1, process_index=0, is_main_process=True)


def pictures(side=16):
    """Six pictures: a square of three colours on white, at the left or at the right."""
    pixels = torch.full((6, 1, 3, side, side), 255, dtype=torch.uint8)
    for i in range(6):
        left = 1 if i % 2 else side // 2
        others = [c for c in range(3) if c != i % 3]
        pixels[i, 0, others, 4:12, left : left + side // 2 - 2] = 20
    return pixels


CAPTIONS = [("a square", "a red square")] * 3 + [("the box",)] * 3
DATA = TrainingSet("squares", pictures(), CAPTIONS, credit="Squares: made here.")
TASK = TextToImage(DATA, RECIPE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny training to its end: its folder and the pipeline that it returned."""
    out = tmp_path_factory.mktemp("mini")
    return SimpleNamespace(out=out, pipe=train(TASK, out, device="cpu"))


def weights(pipe):
    return {
        f"{name}.{k}": v.cpu()
        for name in ("vae", "unet", "text_encoder")
        for k, v in getattr(pipe, name).state_dict().items()
    }


def assert_same_bits(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(v, other[k]) for k, v in one.items())


# ---- the losses


class Answer(nn.Module):
    """A network that gives one answer, whatever the question, and keeps the question."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t, tokens, camera):
        self.question = x_t, t, tokens, camera
        return self.answer(x_t, t)


def drawn(seed, x0):
    """What the loss draws from a generator: t, then eps."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(1000, (len(x0),), generator=generator)
    return t, torch.randn(x0.shape, generator=generator)


def loss_of(prediction, guess, gamma, x0, seed=3):
    """The loss of a network whose clean picture is `guess` everywhere, in the native terms of
    `prediction`.
    """
    schedule = NoiseSchedule.stable_diffusion(prediction)

    def answer(x_t, t):
        a, s = schedule.at("alpha", t, x_t), schedule.at("sigma", t, x_t)
        eps = (x_t - a * guess) / s
        return {
            "epsilon": eps,
            "v_prediction": a * eps - s * guess,
            "sample": guess.expand_as(x_t),
        }[prediction]

    generator = torch.Generator().manual_seed(seed)
    return denoising_loss(Answer(answer), schedule, x0, (None, None), generator, gamma)


@pytest.mark.parametrize("gamma", [0.5, 5.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_the_error_of_x0_under_min_snr(prediction, gamma):
    x0 = torch.randn(32, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guess = torch.full((1, 4, 2, 2), 0.3, dtype=torch.float64)
    loss = loss_of(prediction, guess, gamma, x0)
    t, _ = drawn(3, x0)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    product = (1 - betas).cumprod(0)[t]
    weight = (product / (1 - product)).clamp(max=gamma)
    assert (weight == gamma).any() and (weight < gamma).any()  # both sides of the clamp count
    by_hand = (weight[:, None, None, None] * (guess - x0).square()).mean()
    torch.testing.assert_close(loss, by_hand, rtol=2e-5, atol=0)
    wrong = (weight[:, None, None, None] * (1 + 1e-3) * (guess - x0).square()).mean()
    assert abs(loss - wrong) > 2e-4 * wrong
    assert loss_of(prediction, x0[:1], gamma, x0[:1].expand_as(x0)) < 1e-9  # of a perfect one


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_without_min_snr_the_error_of_the_native_output_counts_alike_at_every_t(prediction):
    x0 = torch.randn(32, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guess = torch.full((1, 4, 2, 2), 0.3, dtype=torch.float64)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    product = (1 - betas).cumprod(0)[drawn(3, x0)[0]]
    snr = product / (1 - product)
    scale = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[prediction]
    by_hand = (scale[:, None, None, None] * (guess - x0).square()).mean()
    torch.testing.assert_close(loss_of(prediction, guess, None, x0), by_hand, rtol=1e-4, atol=0)


def test_the_networks_input_is_alpha_x0_plus_sigma_eps():
    x0 = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    camera, tokens = torch.ones(3, 8), torch.ones(3, 8, dtype=torch.long)
    schedule = NoiseSchedule.stable_diffusion("epsilon")
    network = Answer(lambda x_t, t: x_t)
    denoising_loss(network, schedule, x0, (tokens, camera), torch.Generator().manual_seed(5), 5.0)
    t, eps = drawn(5, x0)
    torch.testing.assert_close(network.question[0], schedule.add_noise(x0, t, eps.to(x0)))
    assert torch.equal(network.question[1], t)
    assert network.question[2] is tokens and network.question[3] is camera


def test_the_autoencoders_loss():
    decoded, mean = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.0])
    logvar, pictures = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])
    loss = autoencoder_loss(lambda x, noise: (decoded, mean, logvar), pictures, None)
    kl = 0.5 * ((4 + 1 - 1 - 0) + (0 + 2.718281828 - 1 - 1)) / 2
    assert loss.item() == pytest.approx((0.25 + 4) / 2 + 0.1 * (0.5 + 2) / 2 + 1e-4 * kl, rel=1e-6)


def test_the_autoencoder_learns_from_pictures_in_minus_1_to_1_half_of_them_mirrored():
    seen = []

    def network(pictures, noise):
        seen.append((pictures, noise))
        return pictures, noise, noise

    network.parameters = lambda: iter([torch.zeros(1)])
    training.reconstruct(DATA.pictures, 400, network, generator_of(0))
    ((got, noise),) = seen
    assert noise.shape == (400, 4, 4, 4) and float(noise.std()) == pytest.approx(1, abs=0.02)
    known = DATA.pictures.float() / 127.5 - 1
    both = torch.stack([known, known.flip(3)])  # (2, 6, 3, 16, 16)
    error = (got[:, None, None] - both).abs().amax((3, 4, 5))
    assert error.flatten(1).amin(1).max() < 1e-6
    mirrored = error.flatten(1).argmin(1) >= len(known)
    assert float(mirrored.double().mean()) == pytest.approx(0.5, abs=0.08)


# ---- captions and pictures


def test_captions_of_a_picture():
    tokens, choices, count = TASK.captions
    read = TASK.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    texts = ["", "a square", "a red square", "the box"]
    assert read == [form for text in texts for form in (text, with_blurry(text))]
    assert choices.tolist()[0] == [1, 2] and choices[3, 0] == 3
    assert count.tolist() == [2, 2, 2, 1, 1, 1]


def test_the_vocabulary_is_every_word_and_blurry():
    assert DATA.words == ["a", BLURRY, "box", "red", "square", "the"]


@pytest.mark.parametrize(
    ("sharp", "soft"),
    [
        ("a dragon", "a blurry dragon"),
        ("an apple", "a blurry apple"),
        ("", "blurry"),
        ("the sun", "blurry the sun"),
        ("fire", "blurry fire"),
    ],
)
def test_with_blurry(sharp, soft):
    assert with_blurry(sharp) == soft


def test_captions_are_drawn_in_their_shares():
    """Of 4000: 10 % empty, 20 % blurry on blurred pictures, the rest evenly among a picture's
    captions.
    """
    task = TextToImage(DATA, replace(RECIPE, batch=4000, blurry=0.2))
    vae, _ = task.networks()
    x0, (tokens, camera) = task.batch(task.encode(vae), generator_of(0, "shares"))
    texts = task.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    share = {text: texts.count(text) / len(texts) for text in set(texts)}
    captions = ("a square", "a red square", "the box")
    assert camera is None
    assert set(share) == {"", BLURRY, *captions, *map(with_blurry, captions)}
    assert share[""] + share[BLURRY] == pytest.approx(0.1, abs=0.02)
    assert sum(v for k, v in share.items() if BLURRY in k) == pytest.approx(0.2, abs=0.02)
    assert share["a square"] == pytest.approx(0.5 * 0.5 * 0.9 * 0.8, abs=0.02)
    assert share["a red square"] == pytest.approx(0.5 * 0.5 * 0.9 * 0.8, abs=0.02)
    assert share["the box"] == pytest.approx(0.5 * 0.9 * 0.8, abs=0.03)
    scale = vae.config.scaling_factor
    soft = encode_all(vae, blurred(DATA.pictures)) * scale
    sharp = encode_all(vae, DATA.pictures) * scale
    assert float(sharp.std()) == pytest.approx(1, abs=1e-3)
    for x, text in list(zip(x0, texts, strict=True))[:200]:
        among = soft if BLURRY in text else sharp
        among = among[:3] if "square" in text else among[3:] if "box" in text else among
        assert (among - x).abs().amax((1, 2, 3)).min() < 1e-4, text


def test_each_view_has_its_objects_captions_and_its_own_camera():
    cameras = [tuple(Camera(30.0 * i + 100 * j) for j in range(2)) for i in range(3)]
    captions = [("a",), ("b",), ("c",)]
    pixels = (torch.arange(6).reshape(3, 2, 1, 1, 1) * 40).expand(3, 2, 3, 16, 16).byte()
    task = TextToImage(TrainingSet("views", pixels, captions, cameras), replace(RECIPE, batch=100))
    latents = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 4, 4, 4)
    task = replace(task, recipe=replace(task.recipe, drop=0.0, blurry=0.0))
    x0, (tokens, camera) = task.batch((latents, latents), generator_of(0))
    texts = task.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    for x, text, vector in zip(x0[:, 0, 0, 0].int().tolist(), texts, camera, strict=True):
        azimuth = torch.deg2rad(torch.tensor(30.0 * (x // 2) + 100 * (x % 2)))
        assert text == "abc"[x // 2]
        torch.testing.assert_close(vector[3], azimuth.cos())


def test_blurring_keeps_flat_pictures_and_the_mean():
    flat = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8)
    assert torch.equal(blurred(flat), flat)
    dot = torch.zeros(1, 3, 41, 41, dtype=torch.uint8)
    dot[:, :, 20, 20] = 255
    spread = blurred(dot)[0, 0].float()
    assert spread.argmax() == 20 * 41 + 20
    assert torch.equal(spread, spread.T) and torch.equal(spread, spread.flip(0))
    sigma = 41 / 20
    assert spread.max() == pytest.approx(255 / (2 * torch.pi * sigma**2), abs=0.6)


# ---- the loop


def begin(network, folder, steps=10, lr=0.1, **recipe):
    return Training("a", network, steps, lr, replace(RECIPE, **recipe), folder, {"data": "none"})


def test_learning_rate_goes_up_stays_and_comes_down():
    assert rate(0, 3000) == pytest.approx(0.01)
    assert rate(49, 3000) == pytest.approx(0.5)
    assert rate(99, 3000) == rate(1999, 3000) == 1
    assert rate(2500, 3000) == pytest.approx(0.5)
    assert rate(2999, 3000) == pytest.approx(0.001)


def test_averaged_weights_follow_their_formula(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    going, expected = begin(network, tmp_path, steps=20, ema=0.5), network.weight.item()
    for step in range(1, 12):
        going.descend(lambda net, _: net.weight.sum() * 30, network, generator_of(0))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.item()
        assert going.averaged.weight.item() == pytest.approx(expected, rel=1e-6)
    assert (1 + 11) / (10 + 11) > 0.5  # the last ones had the full decay


def test_an_optimisation_step_is_adams(tmp_path):
    """One step from nothing: the weight moves by the learning rate, which is 1/100 of its full
    height.
    """
    network = nn.Linear(1, 1, bias=False)
    before = network.weight.item()
    going = begin(network, tmp_path, steps=1)
    going.run(lambda net, _: 3 * net(torch.ones(1, 1)).sum(), ALONE, every=5)
    # the last third begins at once in one step of training: min(1, 1/100, 3)
    assert network.weight.item() == pytest.approx(before * (1 - 0.001 * 0.01) - 0.001, abs=1e-6)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_training_stops_before_a_value_that_is_not_finite(where, tmp_path):
    network = nn.Linear(1, 1, bias=False)
    going = begin(network, tmp_path)
    seen = []

    def loss(net, _):
        seen.append(net.weight.item())
        bad = len(seen) == 4
        if where == "loss":
            return net.weight.sum() * (torch.nan if bad else 1.0)
        return (net.weight.sum() - (seen[-1] if bad else 0)).abs().sqrt()  # steep without end at 0

    with pytest.raises(ValueError, match="not finite at step 4 of the a; .* lower the learning"):
        going.run(loss, ALONE, every=100)
    assert going.step == 3 and network.weight.item() == seen[-1]
    again = begin(nn.Linear(1, 1, bias=False), tmp_path)  # the checkpoint is of the step before
    assert again.step == 3 and again.network.weight.item() == seen[-1]


class Stop(Exception):
    pass


def stopping(name, at, monkeypatch):
    """The training stops with an exception at a call, as Ctrl-C or a power cut would end it."""
    real, calls = getattr(training, name), []

    def call(*args):
        calls.append(0)
        if len(calls) > at:
            raise Stop
        return real(*args)

    monkeypatch.setattr(training, name, call)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("autoencoder_loss", 3),
        ("denoising_loss", 0),
        ("denoising_loss", 4),
        ("get_ema_multi_avg_fn", 7),  # in the middle of a step: Adam's is done, the averages' not
    ],
)
def test_a_broken_training_goes_on_to_the_same_bits(name, at, trained, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        stopping(name, at, patch)
        with pytest.raises(Stop):
            train(TASK, tmp_path, device="cpu", every=2)
    assert not (tmp_path / "model_index.json").exists()
    assert_same_bits(train(TASK, tmp_path, device="cpu"), trained.pipe)


@pytest.mark.slow
def test_a_break_while_samples_are_made_changes_nothing(trained, tmp_path):
    """Samples come from the averaged weights; the checkpoint must hold those under training. A
    prior freezes what it gets.
    """
    shown = []

    def samples(pipe, step):
        prior = PipelinePrior(pipe, device="cpu", dtype=torch.float16)
        shown.append((step, next(prior.unet.parameters()).requires_grad))
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        train(TASK, tmp_path, device="cpu", every=2, samples=samples)
    assert shown == [(2, False), (4, False)]
    assert_same_bits(train(TASK, tmp_path, device="cpu", every=2), trained.pipe)


def test_a_finished_training_is_not_written_again(trained):
    before = {f: f.stat().st_mtime_ns for f in (trained.out / "checkpoint").glob("*.safetensors")}
    minutes = json.loads((trained.out / "training.json").read_text())["minutes"]
    assert len(before) == 2
    assert_same_bits(train(TASK, trained.out, device="cpu"), trained.pipe)
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert json.loads((trained.out / "training.json").read_text())["minutes"] == minutes


@pytest.mark.parametrize("stage", ["autoencoder", "network"])
def test_a_damaged_checkpoint_is_one_sentence_with_the_remedy(stage, trained, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    for file in (trained.out / "checkpoint").iterdir():
        content = file.read_bytes()
        (tmp_path / "checkpoint" / file.name).write_bytes(
            content[:100] if file.stem == stage else content
        )
    with pytest.raises(ValueError, match=f"{stage}.safetensors is no checkpoint: .*delete it"):
        train(TASK, tmp_path, device="cpu")
    (tmp_path / "checkpoint" / f"{stage}.safetensors").unlink()
    assert_same_bits(train(TASK, tmp_path, device="cpu"), trained.pipe)


def changed(**parts):
    return TextToImage(replace(DATA, **parts), RECIPE)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (TextToImage(DATA, replace(RECIPE, lr=0.5)), "lr 0.001 there, 0.5 here"),
        (changed(pixels=DATA.pixels.flip(0)), "pixels"),
        (changed(captions=CAPTIONS[::-1]), "captions"),
        (changed(cameras=[(Camera(),)] * 6), "cameras"),
    ],
)
def test_another_training_in_the_same_folder_is_refused(other, difference, trained):
    with pytest.raises(ValueError, match=f"checkpoint of another run: {difference}"):
        train(other, trained.out, device="cpu")


def test_other_cameras_are_another_training(tmp_path):
    cameras = [(Camera(azimuth=60.0 * k),) for k in range(6)]
    first = changed(cameras=cameras).data.identity()
    other = changed(cameras=cameras[::-1]).data.identity()
    assert {name for name in first if first[name] != other[name]} == {"cameras"}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.slow
def test_another_precision_in_one_kernel(precision, trained, tmp_path):
    """It learns about the same, and goes on to the same bits, the scale of its loss included."""
    task = TextToImage(DATA, replace(RECIPE, precision=precision))
    pipe = train(task, tmp_path / "whole", device="cpu")
    torch.testing.assert_close(weights(pipe), weights(trained.pipe), rtol=0, atol=2e-3)

    def samples(pipe, step):
        raise Stop

    with pytest.raises(Stop):
        train(task, tmp_path / "broken", device="cpu", every=2, samples=samples)
    assert_same_bits(train(task, tmp_path / "broken", device="cpu"), pipe)


@pytest.mark.slow
def test_it_trains_on_its_device(trained, tmp_path):
    cameras = [(Camera(azimuth=60.0 * k),) for k in range(6)]
    task = changed(cameras=cameras)
    there = train(task, tmp_path / "there", device=MOCK)
    assert there.device.type == MOCK.type
    here = weights(train(task, tmp_path / "here", device="cpu"))
    away = [(value - here[name]).abs().flatten() for name, value in weights(there).items()]
    assert float(torch.cat(away).mean()) < 5e-6  # of some 1e-4 that they move


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_every_is_checked_before_any_work(every, tmp_path):
    with pytest.raises(ValueError, match="every must be an int of at least 1"):
        train(TASK, tmp_path / "out", every=every)
    assert not (tmp_path / "out").exists()


def test_another_minis_autoencoder_is_taken_as_it_is(trained, tmp_path, monkeypatch):
    """From a pipeline's folder, in whole or by a shipped mini's name; it is not trained, and what
    it decodes is the same.
    """
    monkeypatch.setattr(training, "autoencoder_loss", None)  # it would be called
    recipe = replace(RECIPE, autoencoder=str(trained.out), steps=2, seed=5)
    pipe = train(TextToImage(DATA, recipe), tmp_path / "one", device="cpu")
    theirs = trained.pipe.vae.state_dict()
    for name, value in pipe.vae.state_dict().items():
        assert torch.equal(value, theirs[name].half().float())
    assert not (tmp_path / "one" / "checkpoint" / "autoencoder.safetensors").exists()
    latents = encode_all(pipe.vae, DATA.pictures)
    assert pipe.vae.config.scaling_factor == pytest.approx(1 / latents.std().item(), abs=1e-5)
    facts = json.loads((tmp_path / "one" / "training.json").read_text())
    assert facts["minutes"]["autoencoder"] == 0
    monkeypatch.setattr("dsd_lab.minis.parts.MODELS", trained.out.parent)
    named = make_autoencoder(16, Recipe(autoencoder=trained.out.name))
    assert named.dtype == torch.float32
    assert all(torch.equal(v, pipe.vae.state_dict()[k]) for k, v in named.state_dict().items())


@pytest.mark.parametrize("missing", ["icons-mimi", "folder"])
def test_an_autoencoder_that_is_not_there(missing, tmp_path):
    (tmp_path / "folder").mkdir()  # but no vae in it
    name = str(tmp_path / "folder") if missing == "folder" else missing
    match = f'no vae in "{name}"; allowed: .*icons-mini.*, or a folder with a pipeline'
    with pytest.raises(ValueError, match=match):
        train(TextToImage(DATA, replace(RECIPE, autoencoder=name)), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_recipes():
    """Drawings have an autoencoder trained on them; what else is trained here takes that one."""
    assert RECIPES["icons"] == Recipe() and RECIPES["icons"].autoencoder is None
    assert RECIPES["toybox"].autoencoder == RECIPES["toybox-novel-view"].autoencoder == "icons-mini"


def test_the_task_of_a_world():
    task = task_of("icons", steps=7, seed=3)
    assert task.recipe == replace(RECIPES["icons"], steps=7, seed=3)
    assert len(task.data.pixels) == len(task.data.captions) == 1174 and task.data.cameras is None
    with pytest.raises(ValueError, match="steps must be"):  # before anything is rendered
        task_of("toybox", steps=0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"steps": 0}, "steps must be"),
        ({"batch": 1.5}, "batch must be"),
        ({"drop": 1.5}, "drop is a fraction"),
        ({"blurry": -0.1}, "blurry is"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"ema": float("nan")}, "ema is a fraction"),
        ({"prediction": "v"}, 'unknown prediction "v"'),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_impossible_recipes(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Recipe(**change)


def test_impossible_pictures():
    with pytest.raises(ValueError, match="multiple of 16"):
        TrainingSet("a", torch.zeros(2, 1, 3, 20, 20, dtype=torch.uint8), [("a",)] * 2)
    with pytest.raises(ValueError, match="uint8"):
        TrainingSet("a", torch.zeros(2, 1, 3, 16, 16), [("a",)] * 2)
    with pytest.raises(ValueError, match="at least one caption"):
        TrainingSet("a", torch.zeros(2, 1, 3, 16, 16, dtype=torch.uint8), [("a",), ()])
    with pytest.raises(ValueError, match="a camera for each view"):
        TrainingSet("a", DATA.pixels, CAPTIONS, [(Camera(),)] * 5)


# ---- what comes out


def test_plain_diffusers_reads_it(trained):
    from diffusers import StableDiffusionPipeline

    with quiet():
        pipe = StableDiffusionPipeline.from_pretrained(trained.out, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    images = pipe("a square", height=16, width=16, num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 16, 16, 3)
    kinds = json.loads((trained.out / "model_index.json").read_text())
    # the name that transformers 4 and 5 both know
    assert kinds["tokenizer"] == ["transformers", "PreTrainedTokenizerFast"]
    settings = json.loads((trained.out / "tokenizer" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert pipe.tokenizer("a square").input_ids == trained.pipe.tokenizer("a square").input_ids


@pytest.mark.slow
def test_load_prior_reads_it_and_can_be_distilled(trained):
    prior = load_prior(trained.out)
    assert prior.shape == (4, 4, 4) and prior.image_shape == (3, 16, 16)
    assert prior.schedule.prediction_type == "v_prediction"
    run = distill(prior, "a red square", DSD(cfg=3.0), [0, 1], 2).finish()
    assert run.images.shape == (2, 3, 16, 16)
    returned = PipelinePrior(trained.pipe, device="cpu")
    noise = prior.noise([0, 1])
    one, other = (ddim(p, noise, p.condition("a square"), 3, 2.0).final for p in (prior, returned))
    torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)  # half precision on the disk


def test_weights_are_in_half_precision(trained):
    from safetensors.torch import load_file

    for part in ("unet", "vae", "text_encoder"):
        (file,) = (trained.out / part).glob("*.safetensors")
        tensors = load_file(file)
        assert all(v.dtype == torch.float16 for v in tensors.values() if v.is_floating_point())
        count = sum(p.numel() for p in getattr(trained.pipe, part).parameters())
        assert 2 * count <= file.stat().st_size < 2 * count + 40_000


def test_what_is_written_about_it(trained):
    facts = json.loads((trained.out / "training.json").read_text())
    assert facts["data"] == "squares" and facts["pictures"] == 6 and facts["credit"] == DATA.credit
    assert facts["recipe"]["steps"] == 6 and set(facts["minutes"]) == {"autoencoder", "network"}


def test_unknown_words_become_unk(trained):
    tokenizer = trained.pipe.tokenizer
    read = tokenizer.convert_ids_to_tokens(tokenizer("A Red zebra", padding="max_length").input_ids)
    assert read == ["<start>", "a", "red", "<unk>", "<end>", "<pad>", "<pad>", "<pad>"]
    with pytest.raises(ValueError, match="never saw"):
        PipelinePrior(trained.pipe, device="cpu").condition("a zebra")


def test_capitals_in_a_caption_are_no_unknown_words():
    data = replace(DATA, captions=[("A Maine Coon",)] * 6)
    assert data.words == ["a", BLURRY, "coon", "maine"]
    tokenizer = make_tokenizer(data.words, 8)
    read = tokenizer.convert_ids_to_tokens(tokenizer("A Maine Coon").input_ids)
    assert read == ["<start>", "a", "maine", "coon", "<end>"]


def test_nothing_is_printed(tmp_path, capfd):
    task = TextToImage(DATA, replace(RECIPE, autoencoder_steps=1, steps=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(task, tmp_path, device="cpu", every=1, samples=lambda pipe, step: None)
    printed = capfd.readouterr()
    assert printed.out == "" and re.sub(r"^\s*$", "", printed.err) == ""


@pytest.mark.slow
def test_cameras_make_a_network_that_takes_the_view(tmp_path):
    cameras = [(Camera(azimuth=60.0 * k),) for k in range(6)]
    recipe = replace(RECIPE, autoencoder_steps=1, steps=2)
    task = TextToImage(replace(DATA, cameras=cameras), recipe)
    pipe = train(task, tmp_path, device="cpu")
    assert pipe.unet.config.class_embed_type == "simple_projection"
    prior = load_prior(tmp_path)
    assert prior.cameras == "any"
    x, seen = prior.noise([0, 1]), []
    for azimuth in (0.0, 90.0):
        cond = prior.condition("a square", camera=Camera(azimuth=azimuth))
        seen.append(prior.predict(x, 500, cond, ("cond",))["cond"].eps)
    assert (seen[0] - seen[1]).abs().max() > 1e-6
    assert len(task.preview(pipe, "step 1").axes) > 0


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path, monkeypatch):
    losses = {"autoencoder_loss": [], "denoising_loss": []}
    for name, kept in losses.items():

        def measured(*args, real=getattr(training, name), kept=kept):
            loss = real(*args)
            kept.append(loss.item())
            return loss

        monkeypatch.setattr(training, name, measured)
    faster = {"autoencoder_steps": 40, "autoencoder_lr": 2e-2, "steps": 50, "batch": 8, "lr": 2e-2}
    train(TextToImage(DATA, replace(RECIPE, **faster)), tmp_path, device="cpu", every=1000)
    for kept in losses.values():
        assert sum(kept[-10:]) < 0.7 * sum(kept[:10])


# ---- the command


@pytest.mark.slow
def test_the_commands_train_a_folder_and_measure_it(tmp_path, monkeypatch):
    """What the README and lesson 13 promise, of a folder with few labels and few pictures. The
    networks are small; `test_train_processes` trains those of the recipe.
    """
    from PIL import Image
    from typer.testing import CliRunner

    from dsd_lab.cli import app

    for label, colour in {"a red cat": (200, 30, 30), "a dog": (30, 30, 200)}.items():
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for shade in range(2):
            picture = Image.new("RGB", (64, 64), tuple(v + 20 * shade for v in colour))
            picture.save(tmp_path / "pictures" / label / f"{shade}.png")
    world, out = str(tmp_path / "pictures"), str(tmp_path / "mini")
    small = {name: getattr(RECIPE, name) for name in ("autoencoder_widths", "widths", "text_width")}
    monkeypatch.setattr(minis, "Recipe", partial(Recipe, **small))
    command = ["train", world, "--out", out, "--device", "cpu", "--steps", "2", "--every", "1"]
    command += ["--autoencoder-steps", "1", "--batch", "2"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0 and f'dsd_lab.load_prior("{out}") opens it' in done.output
    assert [file.name for file in (tmp_path / "mini" / "samples").iterdir()] == ["000001.png"]
    command = ["quality", out, "--world", world, "--steps", "1", "--card"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "accuracy" in done.output and "precision" not in done.output
    text = (tmp_path / "mini" / "README.md").read_text()
    assert "64 DDIM samples, 32 for each prompt" in text and "recall" not in text


def test_the_command_checks_its_settings_before_any_work(tmp_path):
    from dsd_lab.cli import train as command

    for settings, complaint in (
        ({"every": 0}, "every must be"),
        ({"device": "gpu"}, "device"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"steps": 0}, "steps must be"),
    ):
        default = {"out": tmp_path, "precision": "no", "device": "cpu", "every": 5, "seed": 0}
        default |= {"steps": None, "autoencoder_steps": None, "batch": None}
        with pytest.raises(ValueError, match=complaint):
            command("toybox", **default | settings)


def test_it_goes_on_from_another_mini(trained, tmp_path):
    """Text encoder and UNet start as the other's, and the record says how that was trained."""
    recipe = replace(RECIPE, start=str(trained.out), autoencoder=str(trained.out), steps=1)
    task = replace(TASK, recipe=recipe)
    _, network = task.networks()
    for part in ("unet", "text_encoder"):
        got, wanted = getattr(network, part).state_dict(), getattr(trained.pipe, part).state_dict()
        assert all(torch.equal(value, wanted[name].half().float()) for name, value in got.items())
    train(task, tmp_path, device="cpu")
    assert not any("_name_or_path" in f.read_text() for f in tmp_path.glob("*/config.json"))
    start = json.loads((tmp_path / "training.json").read_text())["start"]
    assert start.pop("minutes") >= 0
    assert start == {"name": str(trained.out), "steps": 6, "lr": 1e-3}


def test_a_start_of_other_words_is_refused(trained):
    other = TrainingSet("circles", pictures(), [("a circle",)] * 6)
    task = TextToImage(other, replace(RECIPE, start=str(trained.out)))
    with pytest.raises(ValueError, match="the text_encoder of .* does not fit the recipe: .* is "):
        task.networks()

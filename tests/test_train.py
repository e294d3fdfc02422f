"""Training a mini: its losses worked out by hand, and that it stops, goes on, and comes out as
anybody's pipeline.
"""

import json
import re
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dsd_lab import NoiseSchedule, ddim, distill, load_prior
from dsd_lab.cameras import Camera
from dsd_lab.minis import text_to_image as trains
from dsd_lab.minis.text_to_image import (
    BLURRY,
    Recipe,
    Stage,
    TrainingSet,
    blurred,
    denoising_loss,
    run_stage,
    train,
    with_blurry,
)
from dsd_lab.priors import PipelinePrior
from dsd_lab.priors.pipeline import camera_vector, quiet

TINY = dict(
    autoencoder_steps=4,
    autoencoder_batch=2,
    autoencoder_widths=(8, 8, 8),
    steps=6,
    batch=4,
    widths=(16, 16, 16),
    text_width=16,
)
RECIPE = Recipe(**TINY)


def pictures(side=16):
    """Six pictures: a square of three colours on white, at the left or at the right."""
    pixels = torch.full((6, 3, side, side), 255, dtype=torch.uint8)
    for i in range(6):
        left = 1 if i % 2 else side // 2
        pixels[i, [c for c in range(3) if c != i % 3], 4:12, left : left + side // 2 - 2] = 20
    return pixels


DATA = TrainingSet(
    "squares",
    pictures(),
    [("a square", "a red square")] * 3 + [("the box",)] * 3,
    credit="Squares: made here.",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny training to its end: its folder and the pipeline that it returned."""
    out = tmp_path_factory.mktemp("mini")
    return SimpleNamespace(out=out, pipe=train(DATA, out, RECIPE, device="cpu"))


def weights(pipe):
    return {
        f"{name}.{k}": v
        for name in ("vae", "unet", "text_encoder")
        for k, v in getattr(pipe, name).state_dict().items()
    }


def assert_same_bits(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(v, other[k]) for k, v in one.items())


# ---- the losses


class Answer(nn.Module):
    """A network that says what it is given, whatever it is asked, and keeps the question."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t, tokens, camera):
        self.asked = x_t, t, tokens, camera
        return self.answer(x_t, t)


def drawn(seed, x0):
    """What the loss draws from a generator: t, then eps."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1000, (len(x0),), generator=generator), torch.randn(
        x0.shape, generator=generator
    )


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

    network = Answer(answer)
    return denoising_loss(
        network, schedule, x0, (None, None), torch.Generator().manual_seed(seed), gamma
    ), network


@pytest.mark.parametrize("gamma", [0.5, 5.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_the_error_of_x0_under_min_snr(prediction, gamma):
    x0 = torch.randn(32, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guess = torch.full((1, 4, 2, 2), 0.3, dtype=torch.float64)
    loss, _ = loss_of(prediction, guess, gamma, x0)
    t, _ = drawn(3, x0)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    product = (1 - betas).cumprod(0)[t]
    weight = (product / (1 - product)).clamp(max=gamma)
    assert (weight == gamma).any() and (weight < gamma).any()  # both sides of the clamp count
    by_hand = (weight[:, None, None, None] * (guess - x0).square()).mean()
    torch.testing.assert_close(loss, by_hand, rtol=2e-5, atol=0)
    wrong = (weight[:, None, None, None] * (1 + 1e-3) * (guess - x0).square()).mean()
    assert abs(loss - wrong) > 2e-4 * wrong


def test_the_network_is_asked_at_alpha_x0_plus_sigma_eps():
    x0, camera, tokens = (
        torch.randn(3, 4, 2, 2, dtype=torch.float64),
        torch.ones(3, 8),
        torch.ones(3, 8, dtype=torch.long),
    )
    schedule = NoiseSchedule.stable_diffusion("epsilon")
    network = Answer(lambda x_t, t: x_t)
    denoising_loss(network, schedule, x0, (tokens, camera), torch.Generator().manual_seed(5), 5.0)
    t, eps = drawn(5, x0)
    torch.testing.assert_close(network.asked[0], schedule.add_noise(x0, t, eps.to(x0)))
    assert (
        torch.equal(network.asked[1], t)
        and network.asked[2] is tokens
        and network.asked[3] is camera
    )


def test_a_perfect_network_has_no_loss():
    x0 = torch.full((8, 4, 2, 2), 0.3, dtype=torch.float64)
    for prediction in ("epsilon", "v_prediction", "sample"):
        assert loss_of(prediction, x0[:1], 5.0, x0)[0] < 1e-9


def test_the_autoencoders_loss():
    made, mean, logvar = (
        torch.tensor([0.5, -1.0]),
        torch.tensor([2.0, 0.0]),
        torch.tensor([0.0, 1.0]),
    )
    loss = trains.autoencoder_loss(
        lambda x, noise: (made, mean, logvar), torch.tensor([0.0, 1.0]), None
    )
    kl = 0.5 * ((4 + 1 - 1 - 0) + (0 + 2.718281828 - 1 - 1)) / 2
    assert loss.item() == pytest.approx((0.25 + 4) / 2 + 0.1 * (0.5 + 2) / 2 + 1e-4 * kl, rel=1e-6)


# ---- captions and pictures


def test_captions_of_a_picture():
    texts, of_text, count = trains.caption_table(DATA)
    assert texts == ["a square", "a red square", "the box"]
    assert count.tolist() == [2, 2, 2, 1, 1, 1]
    assert [texts[k] for k in of_text[0]] == ["a square", "a red square"]
    assert set(of_text[3].tolist()) == {2}


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


def test_captions_are_drawn_in_their_shares(monkeypatch, tmp_path):
    """Over 20 steps of 200: 10 % empty, 20 % blurry on blurred pictures, the rest evenly among a
    picture's captions.
    """
    seen = []

    def loss(network, schedule, x0, conditions, generator, gamma):
        seen.append((x0.clone(), conditions[0].clone()))
        return next(network.parameters()).sum() * 0

    monkeypatch.setattr(trains, "denoising_loss", loss)
    pipe = train(
        DATA,
        tmp_path,
        Recipe(**TINY | dict(autoencoder_steps=1, steps=20, batch=200, blurry=0.2)),
        device="cpu",
    )
    tokens, x0 = torch.cat([t for _, t in seen]), torch.cat([x for x, _ in seen])
    texts = [
        " ".join(pipe.tokenizer.convert_ids_to_tokens(row, skip_special_tokens=True))
        for row in tokens
    ]
    share = {text: texts.count(text) / len(texts) for text in set(texts)}
    assert set(share) == {
        "",
        BLURRY,
        *(c for text in ("a square", "a red square", "the box") for c in (text, with_blurry(text))),
    }
    assert share[""] + share[BLURRY] == pytest.approx(0.1, abs=0.02)
    assert sum(v for k, v in share.items() if BLURRY in k) == pytest.approx(0.2, abs=0.02)
    assert share["a square"] == pytest.approx(0.5 * 0.5 * 0.9 * 0.8, abs=0.02)
    assert share["a red square"] == pytest.approx(0.5 * 0.5 * 0.9 * 0.8, abs=0.02)
    assert share["the box"] == pytest.approx(0.5 * 0.9 * 0.8, abs=0.03)
    scale = pipe.vae.config.scaling_factor
    soft = trains.encode_all(pipe.vae, blurred(DATA.pixels), "cpu") * scale
    sharp = trains.encode_all(pipe.vae, DATA.pixels, "cpu") * scale
    assert float(sharp.std()) == pytest.approx(1, abs=1e-3)
    for x, text in list(zip(x0, texts, strict=True))[:200]:
        among = soft if BLURRY in text else sharp
        own = among[:3] if "square" in text else among[3:] if "box" in text else among
        assert (own - x).abs().amax((1, 2, 3)).min() < 1e-4, text


def test_blurring_keeps_flat_pictures_and_the_mean():
    flat = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8)
    assert torch.equal(blurred(flat), flat)
    dot = torch.zeros(1, 3, 41, 41, dtype=torch.uint8)
    dot[:, :, 20, 20] = 255
    spread = blurred(dot)[0, 0].float()
    assert (
        spread.argmax() == 20 * 41 + 20
        and torch.equal(spread, spread.T)
        and torch.equal(spread, spread.flip(0))
    )
    sigma = 41 / 20
    assert spread.max() == pytest.approx(255 / (2 * torch.pi * sigma**2), abs=0.6)


# ---- the loop


def test_learning_rate_goes_up_stays_and_comes_down():
    assert trains.rate(0, 3000) == pytest.approx(0.01)
    assert trains.rate(49, 3000) == pytest.approx(0.5)
    assert trains.rate(99, 3000) == trains.rate(1999, 3000) == 1
    assert trains.rate(2500, 3000) == pytest.approx(0.5)
    assert trains.rate(2999, 3000) == pytest.approx(0.001)


def test_averaged_weights_follow_their_formula(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    stage = Stage("a", network, 10, 0.1, 0.5, tmp_path / "a.safetensors")
    expected = network.weight.item()
    for step in range(1, 12):
        with torch.no_grad():
            network.weight.fill_(float(step))
        stage.step = step
        stage.average()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert stage.averaged["weight"].item() == pytest.approx(expected, rel=1e-5)
    assert (1 + 11) / (10 + 11) > 0.5  # the last ones had the full decay
    stage.load_averaged()
    assert network.weight.item() == pytest.approx(expected, rel=1e-5)


def test_an_optimisation_step_is_adams(tmp_path):
    """One step from nothing: the weight moves by the learning rate, which is 1/100 of its full
    height.
    """
    from accelerate import Accelerator

    network = nn.Linear(1, 1, bias=False)
    before = network.weight.item()
    stage = Stage("a", network, 1, 0.1, 0.9, tmp_path / "a.safetensors")
    run_stage(stage, lambda net, step: 3 * net(torch.ones(1, 1)).sum(), Accelerator(cpu=True))
    # the last third begins at once in one step of training: min(1, 1/100, 3)
    assert network.weight.item() == pytest.approx(before * (1 - 0.001 * 0.01) - 0.001, abs=1e-6)


class Stop(Exception):
    pass


def stopping(name, at, monkeypatch):
    """The training stops with an exception at a step of a stage, as Ctrl-C or a power cut would end
    it.
    """
    real = getattr(trains, name)
    calls = []

    def loss(*args):
        calls.append(0)
        if len(calls) > at:
            raise Stop
        return real(*args)

    monkeypatch.setattr(trains, name, loss)


@pytest.mark.parametrize(
    ("loss", "at"), [("autoencoder_loss", 3), ("denoising_loss", 0), ("denoising_loss", 4)]
)
def test_a_broken_training_goes_on_to_the_same_bits(loss, at, trained, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        stopping(loss, at, patch)
        with pytest.raises(Stop):
            train(DATA, tmp_path, RECIPE, device="cpu")
    assert not (tmp_path / "model_index.json").exists()
    assert_same_bits(train(DATA, tmp_path, RECIPE, device="cpu"), trained.pipe)


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
        train(DATA, tmp_path, RECIPE, device="cpu", every=2, samples=samples)
    assert shown == [(2, False), (4, False)]
    assert_same_bits(train(DATA, tmp_path, RECIPE, device="cpu", every=2), trained.pipe)


def test_a_finished_training_is_not_written_again(trained):
    before = {f: f.stat().st_mtime_ns for f in (trained.out / "checkpoint").glob("*.safetensors")}
    minutes = json.loads((trained.out / "training.json").read_text())["minutes"]
    assert len(before) == 2
    assert_same_bits(train(DATA, trained.out, RECIPE, device="cpu"), trained.pipe)
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert json.loads((trained.out / "training.json").read_text())["minutes"] == minutes


def test_an_old_checkpoint_survives_a_failing_write(tmp_path, monkeypatch):
    import safetensors.torch

    stage = Stage("a", nn.Linear(2, 2), 10, 0.1, 0.9, tmp_path / "a.safetensors")
    stage.step = 7
    stage.save()
    kept = stage.file.read_bytes()

    def full(tensors, file):
        file.write_bytes(b"half of")
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    stage.step = 8
    with pytest.raises(OSError, match="no space"):
        stage.save()
    assert stage.file.read_bytes() == kept
    again = Stage("a", nn.Linear(2, 2), 10, 0.1, 0.9, stage.file)
    assert again.resume() and again.step == 7
    assert torch.equal(again.network.weight, stage.network.weight)


def test_another_training_in_the_same_folder_is_refused(trained):
    with pytest.raises(ValueError, match="another training"):
        train(DATA, trained.out, Recipe(**TINY | {"lr": 0.5}), device="cpu")
    other = TrainingSet("squares", DATA.pixels.flip(0), DATA.captions)
    with pytest.raises(ValueError, match="another training"):
        train(other, trained.out, RECIPE, device="cpu")


def test_another_minis_autoencoder_is_taken_as_it_is(trained, tmp_path, monkeypatch):
    """From a pipeline's folder, in whole or by a shipped mini's name; it is not trained, and what
    it makes is the same.
    """
    monkeypatch.setattr(trains, "autoencoder_loss", None)  # it would be called
    recipe = Recipe(**TINY | dict(autoencoder=str(trained.out), steps=2, seed=5))
    pipe = train(DATA, tmp_path / "one", recipe, device="cpu")
    theirs = trained.pipe.vae.state_dict()
    assert all(
        torch.equal(value, theirs[name].half().float())
        for name, value in pipe.vae.state_dict().items()
    )
    assert not (tmp_path / "one" / "checkpoint" / "autoencoder.safetensors").exists()
    latents = trains.encode_all(pipe.vae, DATA.pixels, "cpu")
    assert pipe.vae.config.scaling_factor == pytest.approx(1 / latents.std().item(), abs=1e-5)
    assert (
        json.loads((tmp_path / "one" / "training.json").read_text())["minutes"]["autoencoder"] == 0
    )
    monkeypatch.setattr("dsd_lab.priors.MODELS", trained.out.parent)
    named = trains.make_autoencoder(16, Recipe(autoencoder=trained.out.name))
    assert named.dtype == torch.float32 and all(
        torch.equal(v, pipe.vae.state_dict()[k]) for k, v in named.state_dict().items()
    )


@pytest.mark.parametrize("missing", ["icons-mimi", "folder"])
def test_an_autoencoder_that_is_not_there(missing, tmp_path):
    (tmp_path / "folder").mkdir()  # but no vae in it
    name = str(tmp_path / "folder") if missing == "folder" else missing
    with pytest.raises(
        ValueError,
        match=f'no vae in "{name}"; allowed: .*icons-mini.*, or a folder with a pipeline',
    ):
        train(DATA, tmp_path / "out", Recipe(**TINY | {"autoencoder": name}), device="cpu")
    assert not (
        tmp_path / "out"
    ).exists()  # so that the same call with a recipe that can be is not another training


def test_recipes():
    """Drawings have an autoencoder trained on them; what else is trained here takes that one."""
    assert set(trains.RECIPES) == {"icons", "toybox"} and trains.RECIPES["icons"] == Recipe()
    assert (
        trains.RECIPES["icons"].autoencoder is None
        and trains.RECIPES["toybox"].autoencoder == "icons-mini"
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"steps": 0}, "steps must be"),
        ({"batch": 1.5}, "batch must be"),
        ({"drop": 1.0}, "drop is a share"),
        ({"blurry": -0.1}, "blurry is"),
        ({"precision": "fp8"}, "unknown precision"),
    ],
)
def test_impossible_recipes(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Recipe(**change)


def test_impossible_pictures():
    with pytest.raises(ValueError, match="multiple of 16"):
        TrainingSet("a", torch.zeros(2, 3, 20, 20, dtype=torch.uint8), [("a",)] * 2)
    with pytest.raises(ValueError, match="at least one caption"):
        TrainingSet("a", torch.zeros(2, 3, 16, 16, dtype=torch.uint8), [("a",), ()])


# ---- what comes out


def test_plain_diffusers_reads_it(trained):
    from diffusers import StableDiffusionPipeline

    with quiet():
        pipe = StableDiffusionPipeline.from_pretrained(trained.out, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    images = pipe("a square", height=16, width=16, num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 16, 16, 3)
    kinds = json.loads((trained.out / "model_index.json").read_text())
    assert kinds["tokenizer"] == [
        "transformers",
        "PreTrainedTokenizerFast",
    ]  # the name that transformers 4 and 5 both know
    settings = json.loads((trained.out / "tokenizer" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert pipe.tokenizer("a square").input_ids == trained.pipe.tokenizer("a square").input_ids


def test_load_prior_reads_it_and_can_be_distilled(trained):
    prior = load_prior(trained.out)
    assert prior.shape == (4, 4, 4) and prior.image_shape == (3, 16, 16)
    assert prior.schedule.prediction_type == "v_prediction"
    from dsd_lab import DSD

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
    ids = tokenizer("A Red zebra", padding="max_length").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "<start>",
        "a",
        "red",
        "<unk>",
        "<end>",
        "<pad>",
        "<pad>",
        "<pad>",
    ]
    with pytest.raises(ValueError, match="never saw"):
        PipelinePrior(trained.pipe, device="cpu").condition("a zebra")


def test_capitals_in_a_caption_are_no_unknown_words():
    data = TrainingSet("a", DATA.pixels, [("A Maine Coon",)] * 6)
    assert data.words == ["a", BLURRY, "coon", "maine"]
    tokenizer = trains.make_tokenizer(data.words, 8)
    assert tokenizer.convert_ids_to_tokens(tokenizer("A Maine Coon").input_ids) == [
        "<start>",
        "a",
        "maine",
        "coon",
        "<end>",
    ]


def test_nothing_is_printed(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = Recipe(**TINY | dict(autoencoder_steps=1, steps=2))
        train(DATA, tmp_path, recipe, device="cpu", every=1, samples=lambda pipe, step: None)
    printed = capfd.readouterr()
    assert printed.out == "" and re.sub(r"^\s*$", "", printed.err) == ""


def test_cameras_make_a_network_that_is_told_the_view(tmp_path):
    cameras = camera_vector([Camera(azimuth=60.0 * k) for k in range(6)])
    data = TrainingSet("views", DATA.pixels, DATA.captions, cameras=cameras)
    pipe = train(data, tmp_path, Recipe(**TINY | dict(autoencoder_steps=1, steps=2)), device="cpu")
    assert pipe.unet.config.class_embed_type == "simple_projection"
    prior = load_prior(tmp_path)
    assert prior.cameras == "any"
    x, seen = prior.noise([0, 1]), []
    for azimuth in (0.0, 90.0):
        seen.append(
            prior.predict(
                x, 500, prior.condition("a square", camera=Camera(azimuth=azimuth)), ("cond",)
            )["cond"].eps
        )
    assert (seen[0] - seen[1]).abs().max() > 1e-6


def test_training_lowers_the_loss(tmp_path, monkeypatch):
    losses = {"autoencoder_loss": [], "denoising_loss": []}
    for name, kept in losses.items():

        def measured(*args, real=getattr(trains, name), kept=kept):
            loss = real(*args)
            kept.append(loss.item())
            return loss

        monkeypatch.setattr(trains, name, measured)
    recipe = Recipe(
        **TINY | dict(autoencoder_steps=40, autoencoder_lr=2e-2, steps=50, batch=8, lr=2e-2)
    )
    train(DATA, tmp_path, recipe, device="cpu", every=1000)
    for kept in losses.values():
        assert sum(kept[-10:]) < 0.7 * sum(kept[:10])

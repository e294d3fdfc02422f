"""The measure of a mini, on a stand-in whose samples are known, and the card that is written about it."""

import dataclasses
import hashlib
import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dsd_lab import quality as measures
from dsd_lab.quality import Quality, quality, sample, seconds_a_prediction, write_card
from dsd_lab.worlds.pictures import PictureWorld, Source

SIDE = 4


def world():
    """66 flat grey pictures: 33 at 0.00, 0.01, ... under "dark", 33 at 1.00, 0.99, ... under "bright"."""
    grey = torch.cat([torch.arange(33), 100 - torch.arange(33)]) / 100
    pixels = (grey * 255).round().byte()[:, None, None, None].expand(-1, 3, SIDE, SIDE).contiguous()
    label, sources = torch.tensor([0] * 33 + [1] * 33), (Source("here", "grey", "none"),) * 66
    return PictureWorld("greys", ("dark", "bright"), pixels, label, sources, credit="Greys: made here.")


class Flat:
    """A prior whose sample is flat, of a grey that prompt and seed give, and whose autoencoder loses 0.1 of everything."""

    name, lossy = "flat", 0.1

    def __init__(self, greys):
        self.greys, self.world = greys, world()
        self.prompts = self.world.prompts
        self.unet, self.vae = nn.Linear(2, 1, bias=False), nn.Linear(3, 1, bias=False)
        self.pipe = SimpleNamespace(text_encoder=nn.Linear(5, 1, bias=False))

    def noise(self, seeds):
        return torch.tensor(list(seeds))

    def condition(self, prompt):
        return prompt

    def encode(self, images):
        return images - self.lossy

    def decode(self, x):
        return x

    def predict(self, x, t, cond, terms):
        assert terms == ("cond",) and cond == "dark"
        return {"cond": None}


@pytest.fixture
def flat(monkeypatch):
    """DDIM from seed k of a prompt gives the k-th of its greys."""
    prior = Flat({"dark": [0.0, 0.1, 0.9], "bright": [1.0, 0.8, 0.6]})

    def fake(own, noise, cond, steps, cfg):
        prior.asked = steps, cfg
        grey = torch.tensor([own.greys[cond][k] for k in noise.tolist()])
        return SimpleNamespace(images=grey[:, None, None, None].expand(-1, 3, SIDE, SIDE).contiguous())
    monkeypatch.setattr(measures, "ddim", fake)
    return prior


@pytest.fixture
def shares(monkeypatch):
    """Precision and recall need 64 samples; what they are is tested where they live."""
    asked = []

    def fake(images, data):
        asked.append((len(images), len(data)))
        return SimpleNamespace(precision=SimpleNamespace(value=0.75), recall=SimpleNamespace(value=0.25))
    monkeypatch.setattr(measures, "precision_recall", fake)
    return asked


def test_samples_come_from_the_same_seeds_for_every_prompt(flat):
    done = []
    made = sample(flat, ["dark", "bright"], [0, 2], 7, 3.5, done.append)
    assert made.shape == (2, 2, 3, SIDE, SIDE)
    torch.testing.assert_close(made[:, :, 0, 0, 0], torch.tensor([[0.0, 0.9], [1.0, 0.6]]))
    assert flat.asked == (7, 3.5) and done == [1, 2]


def test_numbers_worked_out_by_hand(flat, shares):
    measured, made = quality(flat, range(3), steps=9, cfg=2.0)
    assert made.shape == (2, 3, 3, SIDE, SIDE) and shares == [(6, 66)]
    assert (measured.prompts, measured.samples, measured.steps, measured.cfg) == (2, 6, 9, 2.0)
    near = 0.003  # greys are kept in 256 steps
    # "dark" at 0.9 is nearest to a bright picture; 0.6 is nearest to bright's 0.68
    assert measured.accuracy == pytest.approx(5 / 6)
    assert measured.data_accuracy == 1
    # own pictures: 0, 0.1 on; 0.9 to 0.32: 0.58; 1, 0.8 on; 0.6 to 0.68: 0.08
    assert measured.distance == pytest.approx((0.58 + 0.08) / 6, abs=near)
    # within 0.05 of any picture: all but 0.6
    assert measured.near_copies == pytest.approx(5 / 6)
    # 0, 0.1, 0.9 are 0.6 apart on average; 1, 0.8, 0.6 are 4/15
    assert measured.pairwise == pytest.approx((0.6 + 0.8 / 3) / 2, abs=1e-6)
    # 33 points 0.01 apart: mean distance (33 + 1) / 3 of a step
    assert measured.data_pairwise == pytest.approx(0.34 / 3, abs=near)
    assert measured.reconstruction == pytest.approx(20, abs=1e-4)  # -10 log10(0.1^2)
    assert (measured.precision, measured.recall) == (0.75, 0.25)


def test_data_accuracy_leaves_each_picture_out(flat, shares, monkeypatch):
    """A picture under the wrong label: its own nearest other has another one, and so has one of its neighbours at most."""
    label = flat.world.label.clone()
    label[10] = 1
    monkeypatch.setattr(flat, "world", dataclasses.replace(flat.world, label=label))
    measured, _ = quality(flat, range(3))
    assert 1 - 3 / 66 - 1e-9 <= measured.data_accuracy <= 1 - 1 / 66 + 1e-9


def test_near_copies_count_at_the_threshold(flat, shares):
    flat.greys = {"dark": [0.32 + measures.NEAR_COPY + 0.01] * 3, "bright": [0.68 - measures.NEAR_COPY + 0.01] * 3}
    assert quality(flat, range(3))[0].near_copies == pytest.approx(0.5)


def test_a_prior_without_its_pictures_is_refused(flat):
    flat.world = None
    with pytest.raises(ValueError, match="nothing to compare"):
        quality(flat)


def test_seconds_are_of_one_picture(monkeypatch):
    prior, clock = Flat({}), iter([0.1 * k * (k + 1) / 2 for k in range(100)])
    monkeypatch.setattr(measures.time, "perf_counter", lambda: next(clock))
    prior.noise = lambda seeds: torch.zeros(len(list(seeds)))
    # the k-th call takes 0.1 (2 k + 1) seconds; of the calls 3, 4, 5, 6, 7 the middle one is 5
    assert seconds_a_prediction(prior, batch=4, repeats=5) == pytest.approx(0.1 * 11 / 4)


@pytest.fixture
def card(tmp_path, monkeypatch):
    """A folder with weights, and the card written into it."""
    for part in ("unet", "vae", "checkpoint"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(part.encode() * 100_000)
    (tmp_path / "model_index.json").write_text("{}")
    recipe = {"autoencoder_steps": 11, "autoencoder_batch": 8, "autoencoder_lr": 2e-3, "steps": 22, "batch": 32, "lr": 1e-3,
              "prediction": "v_prediction", "min_snr": 5.0, "ema": 0.999, "blurry": 0.05, "drop": 0.1, "seed": 0}
    (tmp_path / "training.json").write_text(json.dumps({
        "data": "greys", "pictures": 66, "credit": "Greys: made here.", "recipe": recipe, "hardware": "one abacus",
        "minutes": {"autoencoder": 3.0, "network": 4.0}}))
    measured = Quality(prompts=2, samples=16, steps=25, cfg=4.0, accuracy=0.5, data_accuracy=0.625, distance=0.123,
                       near_copies=0.25, precision=0.75, recall=0.5, pairwise=0.345, data_pairwise=0.456, reconstruction=27.89)
    write_card(Flat({}), measured, torch.rand(2, 3, 3, SIDE, SIDE), tmp_path)
    return tmp_path, measured


def test_the_card_holds_the_figures(card):
    folder, measured = card
    text = " ".join((folder / "README.md").read_text().split())
    for part in ("# flat ", "v prediction", "Greys: made here.", "66 pictures", "11 steps of 8", "22 steps of 32", "3 minutes",
                 "one abacus", "| 50.0% | 62.5% (", "closer than 0.05", "| 25.0% |", "| 0.123 |", "| 0.345 | 0.456 |",
                 "| 0.75, 0.50 |", "| 27.9 dB |", 'load_prior("flat")', "guidance_scale=4", "16 DDIM samples"):
        assert part in text, part
    assert "{" not in text
    assert json.loads((folder / "quality.json").read_text()) == dataclasses.asdict(measured)


def test_the_cards_sizes_are_of_what_is_shipped(card):
    text = (card[0] / "README.md").read_text().replace("\n", " ")
    assert "0.7 MB" in text  # "unet" and "vae" times 100,000, without the checkpoint
    assert "0.0 million parameters" in text
    assert math.isclose(sum(f.stat().st_size for p in ("unet", "vae") for f in (card[0] / p).iterdir()), 700_000)


def test_the_samples_are_a_picture(card):
    from PIL import Image

    with Image.open(card[0] / "samples.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 100


def test_checksums_are_of_the_weights_and_the_index(card):
    folder, _ = card
    lines = dict(reversed(line.split("  ")) for line in (folder / "checksums.sha256").read_text().splitlines())
    assert set(lines) == {"unet/model.safetensors", "vae/model.safetensors", "model_index.json"}
    for name, digest in lines.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest

"""The measure of a mini of new views, on a stand-in whose views are known, and its card."""

import hashlib
import json
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dsd_lab.metrics import distances
from dsd_lab.minis import exam_novel_view as measures
from dsd_lab.worlds import make_toys, render
from dsd_lab.worlds.toybox.world import KINDS

SIZE = 16


class Known:
    """A prior whose views are the true ones, turned by so many of the four cameras, and whose
    autoencoder loses 0.1.
    """

    name, picture_size, asked_by = "known", SIZE, "picture"
    unet = vae = nn.Linear(2, 1, bias=False)
    network = SimpleNamespace(image_encoder=nn.Linear(3, 1, bias=False), projection=nn.Linear(1, 1))

    def __init__(self, turned=0, apart=0.0):
        self.turned, self.apart, self.asked = turned, apart, 0

    def noise(self, seeds):
        return torch.tensor(list(seeds))

    def condition(self, view, camera):
        return view, camera

    def encode(self, images):
        return images - 0.1

    def decode(self, x):
        return x


@pytest.fixture
def answers(monkeypatch):
    """DDIM gives the asked cameras' true views; of the second seed, those behind are moved by
    `apart`.
    """
    monkeypatch.setattr(measures, "KINDS", KINDS[:3])
    monkeypatch.setattr(
        measures,
        "toy_shop",
        lambda: SimpleNamespace(toys=make_toys(list(KINDS[:3]) * 2, [0] * 3 + [1] * 3)),
    )
    toys = make_toys([k for k in KINDS[:3] for _ in range(2)], [200, 201] * 3)
    pictures = render(toys, (measures.GIVEN, *measures.ASKED), SIZE).rgb

    def fake(prior, noise, cond, steps, cfg):
        view, cameras = cond
        i, prior.asked = prior.asked, prior.asked + 1
        assert torch.equal(view.image, pictures[i, 0]) and cameras[:4] == measures.ASKED
        views = pictures[i, 1:].roll(prior.turned, 0)
        other = views.clone()
        other[1:3] -= prior.apart
        prior.told = steps, cfg, noise.tolist()
        return SimpleNamespace(images=torch.cat([views, other]))

    monkeypatch.setattr(measures, "ddim", fake)


def test_true_views_are_perfect(answers):
    prior = Known(apart=0.2)
    measured, shown = measures.measure(prior, 7, 3.0)
    assert prior.told == (7, 3.0, [0] * 4 + [1] * 4)
    assert (measured.toys, measured.samples, measured.steps, measured.cfg) == (6, 48, 7, 3.0)
    assert (
        measured.view > 0.9 and measured.near == 0
    )  # what is moved by 0.2 may come near another view
    assert measured.behind == pytest.approx(0.2, abs=1e-6)
    assert measured.reconstruction == pytest.approx(20, abs=1e-4)  # 0.1 everywhere
    assert shown["made"].shape == (6, 2, 4, 3, SIZE, SIZE) and shown["true"].shape == (
        6,
        4,
        3,
        SIZE,
        SIZE,
    )
    far = distances(shown["given"], shown["given"])
    assert far[0, 1] > 0.01


def test_views_of_other_cameras_are_told(answers):
    measured, shown = measures.measure(Known(turned=2), 5, 2.0)
    assert measured.view == 0
    by_hand = (
        -10 * (shown["true"].roll(2, 1) - shown["true"]).square().mean((-3, -2, -1)).log10().mean()
    )
    assert measured.psnr == pytest.approx(float(by_hand), rel=1e-5)
    same = (
        -10 * (shown["given"][:, None] - shown["true"]).square().mean((-3, -2, -1)).log10().mean()
    )
    assert measured.same_psnr == pytest.approx(float(same), rel=1e-5)


def test_the_known_toy_is_the_most_alike_of_its_kind(answers):
    measured, shown = measures.measure(Known(turned=1), 5, 2.0)
    total = 0.0
    for i in range(6):
        own = render(
            make_toys([KINDS[i // 2]] * 2, [0, 1]), (measures.GIVEN, *measures.ASKED), SIZE
        ).rgb
        best = distances(shown["given"][i : i + 1], own[:, 0]).argmin()
        total += (
            float(
                -10 * (own[best, 1:] - shown["true"][i]).square().mean((-3, -2, -1)).log10().mean()
            )
            / 6
        )
    assert measured.known_psnr == pytest.approx(total, rel=1e-2)


def test_the_card(answers, tmp_path):
    prior = Known(turned=2)
    measured, shown = measures.measure(prior, 5, 2.0)
    recipe = {
        "prediction": "v_prediction",
        "autoencoder": "icons-mini",
        "start": "toybox-mini",
        "steps": 30,
        "batch": 4,
        "lr": 1e-3,
        "min_snr": 5.0,
        "ema": 0.9,
        "drop": 0.1,
    }
    facts = {
        "data": "toybox-novel-view",
        "pictures": 96,
        "toys": 12,
        "credit": "Toys: made here.",
        "recipe": recipe,
        "minutes": {"autoencoder": 0.0, "network": 3.2},
        "hardware": "1 CPU thread",
        "processes": 1,
    }
    (tmp_path / "training.json").write_text(json.dumps(facts))
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights.safetensors").write_bytes(b"x" * 200_000)
    measures.write_card(prior, measured, shown, tmp_path)
    card = " ".join((tmp_path / "README.md").read_text().split())
    assert (
        "30 steps of 4 pairs of views, 3 minutes on 1 CPU thread. The UNet starts as `toybox-mini`'s"
        in card
    )
    assert "0.2 MB" in card and "Toys: made here." in card
    assert f"{measured.psnr:.1f} dB" in card and not re.search(r"\{\w+\}", card)
    assert json.loads((tmp_path / "quality.json").read_text())["view"] == measured.view
    digest, name = (tmp_path / "checksums.sha256").read_text().splitlines()[0].split("  ")
    assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest

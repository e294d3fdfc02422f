"""The mini of new views: whole and small, it turns a toy that it never saw, and only the relative
pose counts.
"""

import json

import pytest
import torch

from dsd_lab import Camera, ddim, image_to_3d, input_view, load_prior
from dsd_lab.distill.scenes import Stage
from dsd_lab.metrics import distances
from dsd_lab.minis.exam_novel_view import ASKED, FIRST, GIVEN
from dsd_lab.priors import MODELS
from dsd_lab.worlds import make_toys, render

FOLDER = MODELS / "toybox-novel-view-mini"


@pytest.fixture(scope="module")
def prior():
    return load_prior("toybox-novel-view-mini", device="cpu")


@pytest.fixture(scope="module")
def toys():
    """Four that no training saw: (4, 1 + 4, 3, 64, 64), the given view first."""
    return render(make_toys(["car", "chair", "duck", "mug"], [FIRST] * 4), (GIVEN, *ASKED)).rgb


def test_the_card_says_what_was_measured():
    measured, card = (
        json.loads((FOLDER / "quality.json").read_text()),
        (FOLDER / "README.md").read_text(),
    )
    assert measured["toys"] == 32 and measured["samples"] == 256
    assert (
        f"{measured['view']:.1%}" in card
        and f"{measured['psnr']:.1f} dB" in card
        and "cc-by-4.0" in card
    )
    assert measured["view"] > 0.6 and measured["psnr"] > measured["same_psnr"]  # it turns toys
    assert (
        measured["behind"] > measured["near"]
    )  # and seeds differ more where the picture shows nothing


def test_it_turns_toys_that_it_never_saw(prior, toys):
    right = []
    for own in toys:
        cond = prior.condition(input_view(own[0], GIVEN), camera=ASKED)
        made = ddim(prior, prior.noise([0]).expand(4, *prior.shape), cond, 10, 2.0).images
        right.append(distances(made, own[1:]).argmin(1) == torch.arange(4))
    assert torch.stack(right).double().mean() >= 0.6  # 0.25 by chance


def test_only_the_relative_pose_counts(prior, toys):
    x, view = prior.noise([0]), toys[0, 0]

    def predicted(given, asked):
        return prior.predict(
            x, 500, prior.condition(input_view(view, given), camera=asked), ("cond",)
        )["cond"].output

    want = predicted(GIVEN, Camera(120, 10))
    torch.testing.assert_close(predicted(Camera(60, 20), Camera(180, 10)), want)
    assert (predicted(GIVEN, Camera(60, 10)) - want).abs().max() > 0.05


def test_a_scene_asks_it(prior, toys):
    stages = [Stage(16, 8, 1.0, 1, ring=4)]
    scene = image_to_3d(
        prior, input_view(toys[1, 0], GIVEN), seed=0, steps=2, stages=stages, refresh=2
    )
    assert torch.isfinite(scene.field.grid).all()

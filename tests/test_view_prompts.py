"""Cameras told in words, and Perp-Neg, against the formula written out for one item at a time."""

import math

import pytest
import torch
from pipelines import make_view_pipe

from dsd_lab import Camera, GaussianMixture, text_to_3d
from dsd_lab.distill.scenes import Stage
from dsd_lab.methods import DSD, SDS
from dsd_lab.priors import PipelinePrior, ViewPrompts
from dsd_lab.priors.network import quiet
from dsd_lab.priors.view_prompts import perp_neg_parts, perpendicular, view_text

CAMERAS = [
    Camera(0, 20),
    Camera(30, 0),
    Camera(-80, 0),
    Camera(100, 10),
    Camera(180, 20),
    Camera(20, 70),
]


@pytest.fixture(scope="module", params=["sd15", "sd21"])
def inner(request):
    with quiet():
        return PipelinePrior(make_view_pipe(request.param), device="cpu")


@pytest.fixture
def x(inner):
    return torch.randn((6, *inner.shape), generator=torch.Generator().manual_seed(3))


def test_words_for_a_camera():
    words = [
        view_text(Camera(az, el))
        for az, el in [(44, 0), (-44, 0), (45, 0), (135, 0), (136, 0), (180, 60), (0, 61), (0, -70)]
    ]
    assert words == [
        f", {w} view"
        for w in ("front", "front", "side", "side", "back", "back", "overhead", "front")
    ]


def test_weights_by_hand():
    shares, ((first, w1), (second, w2)) = perp_neg_parts(Camera(-45, 0))
    assert shares == {", front view": 0.5, ", side view": 0.5} and (first, second) == (
        ", front view",
        ", side view",
    )
    assert w1 == w2 == pytest.approx(-(4 * math.exp(-0.25) - 2.426))
    shares, ((first, w1), (second, w2)) = perp_neg_parts(Camera(135, 0))
    assert shares == {", side view": 0.5, ", back view": 0.5} and (first, second) == (
        ", side view",
        ", front view",
    )
    assert w1 == pytest.approx(-(math.exp(-0.25) - 0.606)) and w2 == pytest.approx(
        -(math.exp(-0.25) + 0.967)
    )
    _, ((_, front), (_, side)) = perp_neg_parts(Camera(30, 0))  # two thirds front
    assert front == pytest.approx(-(4 * math.exp(-1 / 3) - 2.426))
    assert side == pytest.approx(-(4 * math.exp(-1 / 6) - 2.426))
    assert perp_neg_parts(Camera(30, -80)) == perp_neg_parts(Camera(30, 0))  # from below
    shares, negatives = perp_neg_parts(Camera(0, 80))
    assert shares == {", overhead view": 1} and [w for _, w in negatives] == [0, 0]


def test_perpendicular_is_per_item():
    e, along = torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert torch.equal(perpendicular(e, along), torch.tensor([[0.0, 1.0], [2.0, 0.0]]))


def test_words_reach_the_network(inner, x):
    prior = ViewPrompts(inner)
    cond = prior.condition("a cat", camera=CAMERAS)
    made = prior.predict_guided(x, 500, cond, 7.5).eps
    for i, camera in enumerate(CAMERAS):
        alone = inner.predict_guided(
            x[i : i + 1], 500, inner.condition("a cat" + view_text(camera)), 7.5
        ).eps
        assert torch.allclose(made[i : i + 1], alone, atol=1e-4)


@pytest.mark.parametrize("cfg", [1.0, 7.5])
@pytest.mark.parametrize("negative", [None, "blurry"])
def test_perp_neg_is_its_formula_for_every_item_of_a_mixed_batch(inner, x, cfg, negative):
    prior, prompts = ViewPrompts(inner, perp_neg=True), ["a cat", "a dragon"] * 3
    made = prior.predict_guided(x, 500, prior.condition(prompts, negative, CAMERAS), cfg).eps
    for i, (prompt, camera) in enumerate(zip(prompts, CAMERAS, strict=True)):
        shares, negatives = perp_neg_parts(camera)

        def eps(text, i=i):
            return inner.predict_noise(x[i : i + 1], 500, inner.condition(text))

        keys = [(prompt + words, False) for words in shares]
        told = [told["embedded"] for told in inner.embeddings.of(keys)]
        mixed = sum(share * e for share, e in zip(shares.values(), told, strict=True))[None]
        t = torch.tensor([500])
        e_pos_full = inner.schedule.to_eps(
            inner.unet(x[i : i + 1], t, encoder_hidden_states=mixed).sample, x[i : i + 1], t
        )
        base = (
            eps(negative)
            if negative
            else inner.predict(x[i : i + 1], 500, inner.condition("a cat"))["uncond"].eps
        )
        e_pos = e_pos_full - base
        wanted = e_pos.clone()
        for words, weight in negatives:
            e_i = eps(prompt + words) - base
            wanted += weight * (e_i - (e_i * e_pos).sum() / (e_pos**2).sum() * e_pos)
        assert torch.allclose(made[i : i + 1], base + cfg * wanted, atol=2e-4), (i, camera)


def test_what_it_costs(inner, x):
    for perp_neg, evaluations in ((False, 2), (True, 4)):
        prior, before = ViewPrompts(inner, perp_neg), inner.evaluations
        prior.predict_guided(x, 500, prior.condition("a cat", camera=CAMERAS), 7.5)
        assert inner.evaluations - before == prior.evaluations - before == evaluations * len(x)


def test_text_to_3d_runs_on_a_pipeline(inner):
    stages, cameras = (Stage(8, 8, 1.0, 2),), CAMERAS[:4]
    for prior, method in (
        (ViewPrompts(inner, perp_neg=True), SDS()),
        (ViewPrompts(inner), DSD(form="x0")),
    ):
        scene = text_to_3d(prior, "a cat", method, steps=3, stages=stages, cameras=cameras)
        assert bool(torch.isfinite(scene.render(CAMERAS[0], 8).rgb).all())


def test_refusals(inner):
    with pytest.raises(TypeError, match="reads text and knows no cameras, got gaussian-mixture"):
        ViewPrompts(GaussianMixture({"a": [[0.0, 0.0]]}))
    with pytest.raises(ValueError, match="needs a camera"):
        ViewPrompts(inner).condition("a cat")
    with pytest.raises(ValueError, match='never saw: "rocket"'):
        ViewPrompts(inner).condition("a rocket", camera=CAMERAS[0])

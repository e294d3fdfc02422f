"""SDS, ASD and DSD on views of a text-to-image pipeline: a step's gradient, written out here once
more from the papers, one item at a time and with the network called by hand; and what it costs.
"""

import math
from functools import cache

import pytest
import torch
from helpers import FixedDraws, f64
from pipelines import make_view_pipe

from dsd_lab import ASD, DSD, SDS, Camera, distill_scene
from dsd_lab.distill import Stage
from dsd_lab.priors import PipelinePrior, ViewPrompts
from dsd_lab.priors.network import quiet

CAMERAS = (Camera(20, 10), Camera(-70, 0), Camera(130, -10), Camera(10, 75))
CFG, STEPS, STEP, U, T = 7.5, 100, 30, 0.6, 520
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=f64) ** 2
ALPHA, SIGMA = (1 - BETAS).cumprod(0).sqrt(), (1 - (1 - BETAS).cumprod(0)).sqrt()
METHODS = {
    "SDS": SDS(CFG),
    "ASD": ASD(CFG),
    "DSD, path kept": DSD(CFG, form="reference"),
    "DSD, simulated anew": DSD(CFG, form="reference", keep_path=False),
    "DSD, equal guidance": DSD(CFG, form="reference", reference_cfg=CFG),
}


@pytest.fixture(scope="module")
def pipe():
    """A tiny Stable Diffusion 2.1, which predicts v, in double precision."""
    with quiet():
        prior = PipelinePrior(make_view_pipe("sd21"), device="cpu")
    prior.network_dtype = prior.dtype = f64
    for module in prior.modules:
        module.double()
    return prior


@cache
def embedding(pipe, text):
    return pipe.pipe.encode_prompt(text, pipe.device, 1, False)[0]


def noise_prediction(pipe, x_t, t, shares):
    """e of one item for a mean of texts, by the pipeline's own modules."""
    with torch.no_grad():
        embedded = sum(share * embedding(pipe, text) for text, share in shares.items())
        v = pipe.unet(x_t[None], torch.tensor([t]), encoder_hidden_states=embedded).sample[0]
    return ALPHA[t] * v + SIGMA[t] * x_t


def perp_neg_texts(camera):
    """The text to follow, as shares, and the two to keep away from, with weights."""
    front, side, back = (f"a cat, {word} view" for word in ("front", "side", "back"))
    if camera.elevation > 60:
        return {"a cat, overhead view": 1.0}, []
    turned = abs(camera.azimuth)
    if turned < 90:
        q = 1 - turned / 90
        away = 4 * math.exp(-q / 2) - 2.426, 4 * math.exp(-(1 - q) / 2) - 2.426
        return {front: q, side: 1 - q}, [(front, -away[0]), (side, -away[1])]
    q = 2 - turned / 90
    away = math.exp(-q / 2) - 0.606, math.exp(-q / 2) + 0.967
    return {side: q, back: 1 - q}, [(side, -away[0]), (front, -away[1])]


def guided(pipe, perp_neg, x_t, t, camera, cfg):
    """e of one view: by classifier-free guidance, or by Perp-Neg."""
    none = noise_prediction(pipe, x_t, t, {"": 1.0})
    if not perp_neg:
        word = "overhead" if camera.elevation > 60 else "side"
        if word == "side" and abs(camera.azimuth) < 45:
            word = "front"
        return none + cfg * (noise_prediction(pipe, x_t, t, {f"a cat, {word} view": 1.0}) - none)
    shares, negatives = perp_neg_texts(camera)
    positive = noise_prediction(pipe, x_t, t, shares) - none
    total = positive
    for text, weight in negatives:
        e = noise_prediction(pipe, x_t, t, {text: 1.0}) - none
        total = total + weight * (e - (e * positive).sum() / positive.square().sum() * positive)
    return none + cfg * total


def by_hand(name, pipe, perp_neg, x, e_star, n, camera):
    """The gradient of one item at `STEP`."""

    def e(at, t, cfg):
        return guided(pipe, perp_neg, at, t, camera, cfg)

    def noisy(t, noise):
        return ALPHA[t] * x + SIGMA[t] * noise

    if name == "SDS":
        return SIGMA[T] ** 2 * (e(noisy(T, n), T, CFG) - n)
    if name == "ASD":
        t, lowest = T, math.floor(1000 * (0.5 + (0.02 - 0.5) * STEP / STEPS))
    else:
        progress = 1 - math.sqrt(STEP / STEPS)
        t, lowest = math.floor(1000 * ((0.98 - 0.32) * progress + 0.32)), 320
    later = t + math.floor(U * min(0.1 * (t - lowest), 999 - t))
    if name != "ASD":  # the noise is what the network says at the end of this view's own path
        point, levels = e_star, [*range(999, later, -100), later]
        for high, low in zip(levels, levels[1:], strict=False):
            at_high = e(point, high, CFG)
            clean = (point - SIGMA[high] * at_high) / ALPHA[high]
            point = ALPHA[low] * clean + SIGMA[low] * at_high
        n = e(point, later, CFG)
    second = CFG if name == "DSD, equal guidance" else 1.0
    return SIGMA[t] ** 2 * (e(noisy(t, n), t, CFG) - e(noisy(later, n), later, second))


@pytest.mark.parametrize("perp_neg", [False, True], ids=["CFG", "Perp-Neg"])
@pytest.mark.parametrize("cameras", [CAMERAS[2:3], CAMERAS], ids=["batch 1", "batch 4"])
@pytest.mark.parametrize("name", METHODS)
def test_a_steps_gradient_is_the_papers(name, cameras, perp_neg, pipe):
    prior, views = ViewPrompts(pipe, perp_neg), len(cameras)
    generator = torch.Generator().manual_seed(5)
    x, n = torch.randn(2, views, *prior.shape, generator=generator, dtype=f64)
    e_star = torch.randn(prior.shape, generator=generator, dtype=f64)
    draws = FixedDraws(torch.full((views,), U, dtype=f64), n, torch.full((views,), T))
    cond = prior.condition("a cat", camera=cameras)
    with torch.no_grad():
        state = METHODS[name].begin(prior, cond, e_star.expand(views, *prior.shape), STEPS)
        g, _, _ = METHODS[name].gradient(state, x, STEP, draws)
    for i, camera in enumerate(cameras):
        wanted = by_hand(name, pipe, perp_neg, x[i], e_star, n[i], camera)
        torch.testing.assert_close(g[i], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("perp_neg", [False, True], ids=["CFG", "Perp-Neg"])
@pytest.mark.parametrize(
    ("settings", "guided", "with_perp_neg", "calls"),
    [
        ({"form": "reference"}, 5, 12, 2),
        ({"form": "reference", "snap": True}, 3, 8, 1),
        ({"form": "unit"}, 6, 12, 2),
        ({"form": "unit", "snap": True}, 4, 8, 1),
    ],
    ids=["second term at cfg 1", "and snap", "equal guidance", "equal guidance and snap"],
)
def test_what_a_step_of_dsd_with_kept_paths_costs(
    settings, guided, with_perp_neg, calls, perp_neg, pipe
):
    prior, asked = ViewPrompts(pipe, perp_neg), []
    method = DSD(spacing=300, **settings)
    run = distill_scene(
        prior, "a cat", method, 0, 4, refresh=1, stages=(Stage(8, 8, 1.0, 2),), cameras=CAMERAS
    )
    assert run.stage.state.path is not None  # begun, and its evaluations not counted
    before, hook = pipe.evaluations, pipe.unet.register_forward_hook(lambda *_: asked.append(1))
    next(run)
    hook.remove()
    each = with_perp_neg if perp_neg else guided
    assert pipe.evaluations - before == 2 * each == 2 * method.evaluations(prior).step
    assert len(asked) == calls  # all views and terms at once; only n comes before

import math

import pytest
import torch

from dsd_lab import GaussianMixture, ImageSet, NoiseSchedule
from dsd_lab.priors import Prediction, Query, guide

f64 = torch.float64


@pytest.fixture
def mixture():
    return GaussianMixture(
        {"left": [[-1.0, 0.2], [-0.6, -0.8]], "right": [[1.0, 0.5]]},
        width={"left": [0.1, 0.3], "right": [0.2]},
        weights={"left": [1, 2], "right": [1]},
    )


def component_log_probs(x, t, means, widths, weights, schedule):
    """log w_i + log N(x; a y_i, (s^2 + a^2 h_i^2) I), written out."""
    a, s = schedule.alpha[t], schedule.sigma[t]
    v = s**2 + (a * widths) ** 2
    square = (x[:, None] - a * means).square().sum(-1)
    return weights.log() - square / (2 * v) - x.shape[1] / 2 * torch.log(2 * math.pi * v)


def check_score(prior, x, t, cond, means, widths, weights):
    x = x.clone().requires_grad_()
    log_p = component_log_probs(
        x.flatten(1), t, means, widths, weights / weights.sum(), prior.schedule
    ).logsumexp(1)
    score = torch.autograd.grad(log_p.sum(), x)[0]
    got = prior.predict(x.detach(), t, cond, ("cond",))["cond"].eps / -prior.schedule.sigma[t]
    assert (got - score).norm() <= 1e-8 * score.norm()
    torch.testing.assert_close(
        prior.log_density(x.detach(), t, cond), log_p.detach(), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("t", [0, 1, 50, 320, 700, 999])
def test_mixture_score_is_the_gradient_of_its_log_density(mixture, t):
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(t), dtype=f64)
    means = torch.tensor([[-1.0, 0.2], [-0.6, -0.8]], dtype=f64)
    widths, weights = torch.tensor([0.1, 0.3], dtype=f64), torch.tensor([1.0, 2.0], dtype=f64)
    check_score(mixture, x, t, mixture.condition("left"), means, widths, weights)


@pytest.mark.parametrize("t", [0, 1, 50, 320, 700, 999])
def test_picture_score_is_the_gradient_of_its_log_density(small_world, t):
    prior = ImageSet(small_world, scale=0.7)
    pixels = small_world.pixels.double() / 127.5 - 1
    means = 0.7 * (pixels - pixels.mean(0)).flatten(1)[:12]
    g = torch.Generator().manual_seed(t)
    near = prior.schedule.alpha[t] * means[torch.randint(12, (16,), generator=g)]
    x = (near + prior.schedule.sigma[t] * torch.randn(16, 192, generator=g, dtype=f64)).reshape(
        16, 3, 8, 8
    )
    check_score(
        prior,
        x,
        t,
        prior.condition("warm"),
        means,
        torch.zeros(12, dtype=f64),
        torch.ones(12, dtype=f64),
    )


def test_unconditional_is_everything(mixture):
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=f64).requires_grad_()
    means = torch.tensor([[-1.0, 0.2], [-0.6, -0.8], [1.0, 0.5]], dtype=f64)
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=f64)
    log_p = component_log_probs(
        x, 400, means, torch.tensor([0.1, 0.3, 0.2], dtype=f64), weights, mixture.schedule
    ).logsumexp(1)
    score = torch.autograd.grad(log_p.sum(), x)[0]
    eps = mixture.predict(x.detach(), 400, mixture.condition("left"))["uncond"].eps
    torch.testing.assert_close(-eps / mixture.schedule.sigma[400], score, rtol=1e-9, atol=1e-9)


def test_one_gaussian_by_hand():
    """E[x0 | x] = (s^2 y + a h^2 x) / (s^2 + a^2 h^2)."""
    prior = GaussianMixture({"a": [[2.0]]}, width=0.5)
    t = 600
    a, s = prior.schedule.alpha[t].item(), prior.schedule.sigma[t].item()
    x = torch.tensor([[0.3]], dtype=f64)
    want = (s * s * 2.0 + a * 0.25 * 0.3) / (s * s + a * a * 0.25)
    assert prior.predict(x, t, prior.condition("a"), ("cond",))["cond"].x0.item() == pytest.approx(
        want, rel=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, f64])
@pytest.mark.parametrize("t", [0, 1, 500, 998, 999])
def test_finite_at_every_level(small_world, t, dtype):
    prior = ImageSet(small_world)
    for x in (
        torch.zeros(2, 3, 8, 8, dtype=dtype),
        1e3 * torch.ones(2, 3, 8, 8, dtype=dtype),
        prior.noise([0, 1], dtype),
    ):
        for prediction in prior.predict(x, t, prior.condition("cold")).values():
            assert prediction.eps.dtype == dtype
            assert torch.isfinite(prediction.eps).all()
            assert torch.isfinite(prediction.x0).all()


def test_at_t0_the_nearest_picture_answers(small_world):
    prior = ImageSet(small_world)
    x = prior.encode(small_world.images("cold")[[3]].double())
    a, s = prior.schedule.alpha[0], prior.schedule.sigma[0]
    noisy = a * x + s * prior.noise([5], f64)
    torch.testing.assert_close(
        prior.predict(noisy, 0, prior.condition("cold"))["uncond"].x0, x, rtol=0, atol=1e-4
    )


def test_predictions_agree_across_batch_sizes_and_queries(small_world):
    prior = ImageSet(small_world)
    x = prior.noise(range(6))
    t = torch.tensor([10, 100, 300, 500, 700, 900])
    cond = prior.condition(["cold", "warm"] * 3)
    whole = prior.predict(x, t, cond)
    for i in range(6):
        alone = prior.predict(x[i : i + 1], t[i].item(), prior.condition(cond.prompt[i]))
        for term in alone:
            torch.testing.assert_close(alone[term].eps[0], whole[term].eps[i], rtol=1e-5, atol=1e-5)
    many = prior.predict_many(
        [
            Query(x[:2], t[:2], prior.condition("warm"), ("cond",)),
            Query(x[2:], 40, prior.condition("cold")),
        ]
    )
    torch.testing.assert_close(
        many[0]["cond"].x0, prior.predict(x[:2], t[:2], prior.condition("warm"))["cond"].x0
    )
    torch.testing.assert_close(
        many[1]["cond"].x0, prior.predict(x[2:], 40, prior.condition("cold"))["cond"].x0
    )
    assert set(many[0]) == {"cond"}


def test_guidance_and_its_cost(mixture):
    x, cond = (
        torch.randn(4, 2, generator=torch.Generator().manual_seed(0)),
        mixture.condition("left"),
    )
    terms = mixture.predict(x, 300, cond)
    before = mixture.evaluations
    eps = mixture.predict_noise(x, 300, cond, cfg=3.0)
    assert mixture.evaluations - before == 8
    torch.testing.assert_close(
        eps, terms["uncond"].eps + 3 * (terms["cond"].eps - terms["uncond"].eps)
    )
    before = mixture.evaluations
    torch.testing.assert_close(mixture.predict_noise(x, 300, cond, cfg=1.0), terms["cond"].eps)
    assert mixture.evaluations - before == 4


def test_a_negative_prompt_takes_the_unconditional_place(mixture):
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    left, right = (
        mixture.predict(x, 300, mixture.condition(p), ("cond",))["cond"].eps
        for p in ("left", "right")
    )
    eps = mixture.predict_noise(x, 300, mixture.condition("left", negative="right"), cfg=3.0)
    torch.testing.assert_close(eps, right + 3 * (left - right))


def test_encode_and_decode_are_inverse_and_differentiable(small_world):
    prior = ImageSet(small_world, scale=0.25)
    images = small_world.images("warm").clone().requires_grad_()
    x = prior.encode(images)
    torch.testing.assert_close(prior.decode(x), images, rtol=0, atol=1e-6)
    x.sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, 0.5))  # dx / dimage = 2 scale
    assert prior.encode(small_world.images()).mean(0).abs().max() < 1e-6  # centred


def test_bad_input(mixture, small_world):
    x = torch.zeros(2, 2)
    cond = mixture.condition("left")
    with pytest.raises(ValueError, match='did you mean "left"'):
        mixture.condition("lefty")
    with pytest.raises(ValueError, match=r"\(B, 2\)"):
        mixture.predict(torch.zeros(2, 3), 5, cond)
    with pytest.raises(ValueError, match=r"0\.\.999"):
        mixture.predict(x, 1000, cond)
    with pytest.raises(ValueError, match="batch of 2"):
        mixture.predict(x, torch.tensor([1, 2, 3]), cond)
    with pytest.raises(ValueError, match="batch of 2"):
        mixture.predict(x, 5, mixture.condition(["left"] * 3))
    with pytest.raises(ValueError, match="finite"):
        mixture.predict_noise(x, 5, cond, cfg=float("nan"))
    with pytest.raises(ValueError, match="finite"):
        mixture.predict_noise(x, 5, cond, cfg=float("inf"))
    with pytest.raises(TypeError, match="number"):
        mixture.predict_noise(x, 5, cond, cfg="7.5")
    with pytest.raises(TypeError, match="points"):
        mixture.decode(x)
    with pytest.raises(ValueError, match=r"\(B, 3, 8, 8\)"):
        ImageSet(small_world).encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="positive"):
        ImageSet(small_world, scale=0)
    with pytest.raises(ValueError, match="one D"):
        GaussianMixture({"a": [[0.0, 1.0]], "b": [[0.0]]})
    with pytest.raises(ValueError, match="widths"):
        GaussianMixture({"a": [[0.0, 1.0]]}, width=-1.0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_guiding_native_outputs_guides_eps_and_x0(kind):
    schedule = NoiseSchedule.stable_diffusion(kind)
    g = torch.Generator().manual_seed(0)
    x, u, c = (torch.randn(3, 2, generator=g, dtype=f64) for _ in range(3))
    t = torch.tensor([3, 500, 990])
    terms = {"uncond": Prediction(u, x, t, schedule), "cond": Prediction(c, x, t, schedule)}
    for cfg in (0.0, 1.0, 7.5, -7.5):
        for name in ("eps", "x0"):
            e_u, e_c = getattr(terms["uncond"], name), getattr(terms["cond"], name)
            torch.testing.assert_close(
                getattr(guide(terms, cfg), name), e_u + cfg * (e_c - e_u), rtol=1e-10, atol=1e-10
            )

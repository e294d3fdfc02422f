"""Lesson 01: how far a denoiser goes to the mean, that of Gaussians, and where the ODE starts."""

from functools import cache

import torch
from torch import Tensor

from ...priors import GaussianMixture
from ...schedule import NoiseSchedule
from .questions import DTYPE, Plane
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma = SCHEDULE.alpha, SCHEDULE.sigma
SPREAD = 0.5


def prediction_at_equal_noise() -> float:
    """The x0-prediction at x_t / alpha_t = 1 for N(0, 0.5^2), where alpha = sigma."""
    prior = GaussianMixture({"bell": [[0.0, 0.0]]}, width=SPREAD)
    t = int((SCHEDULE.ratio - 1).abs().argmin())
    x_t = alpha[t] * torch.ones(1, 2, dtype=DTYPE)
    return float(prior.predict_guided(x_t, t, prior.condition("bell"), 1.0).x0[0, 0])


PREDICT = Predict(
    "01.1",
    "0.25 / (0.25 + 1): the variances share out how far the prediction trusts the point.",
    prediction_at_equal_noise,
    {
        "that is the point itself, as if there were no noise in it.": lambda: 1.0,
        "that is the mean, the best answer only where nothing is left of the point.": lambda: 0.0,
        "that is the noise's share; the data's is asked for.": lambda: 1 / (1 + SPREAD**2),
        "variances share it out, not spreads: square them.": lambda: SPREAD / (1 + SPREAD),
        "that is the data's variance; it still has to be divided by the sum of both.": lambda: (
            SPREAD**2
        ),
    },
)


@cache
def ask(seed: int) -> Question:
    plane, g = Plane.of(seed), torch.Generator().manual_seed(seed)
    y, width = 1.5 * torch.randn(5, 2, generator=g, dtype=DTYPE), 0.3 + 0.1 * (seed % 3)
    prior = GaussianMixture({"all": y.tolist()}, width=width)
    x_t = SCHEDULE.add_noise(plane.x, plane.t, plane.n)
    right = prior.predict_guided(x_t, plane.t, prior.condition("all"), 1.0).x0
    return Question({"x_t": x_t, "t": plane.t, "y": prior.means, "width": width}, right)


def denoiser(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    pull=lambda a, s, w: a * w**2 / (a**2 * w**2 + s**2),
    variance=lambda a, s, w: a**2 * w**2 + s**2,
    sign=-0.5,
    power=2,
    dim=1,
):
    """The denoiser of Gaussians N(y_i, width^2) with some of its parts replaced."""

    def denoise(x_t: Tensor, t: int, y: Tensor, width: float) -> Tensor:
        a_t, s_t = a(t), s(t)
        away = x_t[:, None] - a_t * y  # (B, N, 2)
        distance = away.norm(dim=2) ** power
        weights = (sign * distance / variance(a_t, s_t, width)).softmax(dim=dim)
        each = y + pull(a_t, s_t, width) * away
        return (weights[..., None] * each).sum(1)

    return denoise


IMPLEMENT = Implement(
    "01.2",
    "this is the library's exact prior, to rounding.",
    ask,
    {
        "the sign in the softmax is wrong: far Gaussians have to weigh less.": denoiser(sign=0.5),
        "alpha and sigma are interchanged: x_t = alpha_t x_0 + sigma_t eps.": denoiser(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "this is the denoiser of points: a Gaussian's width widens it at level t, and within it "
        "the prediction leans towards x_t.": denoiser(
            pull=lambda a, s, w: 0.0, variance=lambda a, s, w: s**2
        ),
        "the weights are right, but each Gaussian's prediction is not its centre: it leans towards "
        "x_t, as in 01.1.": denoiser(pull=lambda a, s, w: 0.0),
        "each Gaussian's prediction is right, but the weights are those of points: at level t its "
        "variance is alpha_t^2 width^2 + sigma_t^2.": denoiser(variance=lambda a, s, w: s**2),
        "the softmax runs over the points x_t; it has to run over the Gaussians.": denoiser(dim=0),
        "the distance in the softmax is not squared.": denoiser(power=1),
        "the 2 in the softmax is missing: -|x_t - alpha_t y|^2 / (2 variance).": denoiser(sign=-1),
    },
    fresh="A denoiser answers the same point always in the same way.",
)

EXPLAIN = Explain(
    "01.3",
    "where x_t hardly tells the clean points apart, the best answer is their mean.",
    "b",
    {
        "a": "the seeds' noises differ there as much as anywhere; look at where the paths start.",
        "c": "the number of steps plays no part: it is one prediction, made before any step.",
        "d": "at cfg 1 there is no guidance, and it is so there too.",
        "e": "the schedule ends at alpha = 0.07, not at 0; x_t holds a little of x_0 still.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

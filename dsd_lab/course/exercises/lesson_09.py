"""Lesson 09: how a picture weighs toys, views denoised jointly, and what keeps the seen side."""

import math
from functools import cache

import torch

from ...draws import generator_of
from ...priors import GaussianMixture
from ...priors.novel_view import TOLERANCE
from ...schedule import NoiseSchedule
from .questions import DTYPE
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma = SCHEDULE.alpha, SCHEDULE.sigma
NEAR, FAR = 0.02, 0.04  # RMSE of two toys' views to the picture


def how_many_times_likelier() -> float:
    """The posterior of one toy over that of another, which is farther from the picture."""
    error = torch.tensor([NEAR, FAR], dtype=DTYPE)
    p = (-error.square() / (2 * TOLERANCE**2)).softmax(0)
    return float(p[0] / p[1])


PREDICT = Predict(
    "09.1",
    "exp((0.04^2 - 0.02^2) / (2 * 0.02^2)) = exp(1.5). Twice as far is not half as likely.",
    how_many_times_likelier,
    {
        "that is the ratio of the distances; they stand squared in an exponential.": lambda: 2.0,
        "that is the ratio of the squares; they stand in an exponential.": lambda: 4.0,
        "the 2 in 2 tau^2 is missing.": lambda: math.exp(3),
        "that is the farther toy over the nearer one.": lambda: math.exp(-1.5),
        "the distances are not squared: exp((0.04 - 0.02) / (2 tau)).": lambda: math.exp(0.5),
        "that is the logarithm of the ratio.": lambda: 1.5,
    },
    within=0.1,
)


@cache
def ask(seed: int) -> Question:
    g = generator_of("exercise", seed)
    y, n, own = (torch.randn(k, 3, 4, generator=g, dtype=DTYPE) for k in (5, 1, 5))
    p = own[:, 0, 0].softmax(0)
    t = int(torch.randint(550, 700, (), generator=g))
    x_t = SCHEDULE.add_noise(y[:1], t, n)[0]
    # all views together are one long point, and a toy is one in which all of them are right
    prior = GaussianMixture(
        {"toys": y.flatten(1).tolist()}, width=0.0, weights={"toys": p.tolist()}
    )
    cond = prior.condition("toys")
    right = prior.predict_guided(x_t.flatten()[None], t, cond, 1.0).x0.reshape(x_t.shape)
    return Question({"x_t": x_t, "t": t, "y": y, "p": p}, right)


def joint_of(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    sign=-0.5,
    prior=1.0,
    log=torch.log,
    over=lambda square: square.sum((1, 2)),
    dim=0,
):
    """The joint denoiser with some of its parts replaced."""

    def denoise(x_t, t, y, p):
        square = (x_t - a(t) * y).square()  # (toys, views, pixels)
        weight = (sign * over(square) / s(t) ** 2 + prior * log(p)).softmax(dim)
        return torch.einsum("i,ivd->vd", weight, y)

    return denoise


def single(x_t, t, y, p):
    square = (x_t - alpha[t] * y).square().sum(2)  # (toys, views)
    weight = (-0.5 * square / sigma[t] ** 2 + p.log()[:, None]).softmax(0)
    return torch.einsum("iv,ivd->vd", weight, y)


def first_view(square):
    return square[:, 0].sum(1)


def likeliest(x_t, t, y, p):
    square = (x_t - alpha[t] * y).square().sum((1, 2))
    return y[(-0.5 * square / sigma[t] ** 2 + p.log()).argmax()]


IMPLEMENT = Implement(
    "09.2",
    "all views decide on the toy together, as in the library.",
    ask,
    {
        "each view weighs the toys by itself: that is the single form. Sum the squares over the "
        "views before the softmax.": single,
        "p, what the picture says of each toy, is left out.": joint_of(prior=0.0),
        "the sign in the softmax is wrong: far toys have to weigh less.": joint_of(sign=0.5),
        "the 2 in 2 sigma^2 is missing.": joint_of(sign=-1.0),
        "it is a mean over the views; a product of densities is a sum in the exponent.": joint_of(
            over=lambda square: square.sum(2).mean(1)
        ),
        "it is a mean over views and pixels; a product of densities is a sum in the exponent.": (
            joint_of(over=lambda square: square.mean((1, 2)))
        ),
        "only the first view decides; all have to.": joint_of(over=first_view),
        "alpha and sigma are interchanged: x_t = alpha_t x_0 + sigma_t eps.": joint_of(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "p is a factor of the density; in the exponent it is log p.": joint_of(log=lambda p: p),
        "that is the likeliest toy; the prediction is the mean of all, weighted.": likeliest,
    },
    fresh="A denoiser answers the same point always in the same way.",
)

EXPLAIN = Explain(
    "09.3",
    "the loss on the picture holds what the picture shows, whatever the prior makes of the rest.",
    "d",
    {
        "a": "it is not in its set; the likeliest toy there looks different from in front too.",
        "b": "guidance strengthens what the prior makes of the picture, and it knows other toys.",
        "c": "the seeds differ behind; in front the noise has no say.",
        "e": "the mask says where the object is, not which colour it has.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

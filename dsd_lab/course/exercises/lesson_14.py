"""Lesson 14: from which noise on two spots are one, a step of DDIM on what is drawn, and what
guidance leaves out.
"""

from functools import cache

import torch
from torch import Tensor

from ...draws import generator_of
from ...priors import GaussianMixture
from ...sampling import ddim
from ...schedule import NoiseSchedule
from .questions import DTYPE
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
HALF, WIDTH = 0.8, 0.08  # half the distance of the two spots, and what is drawn around each


def ratio_of_one_peak() -> float:
    """The least r_t at which the density of two spots is highest in their middle."""
    spots = GaussianMixture({"spots": [[-HALF, 0.0], [HALF, 0.0]]}, WIDTH)
    for t in range(len(SCHEDULE)):
        y = torch.tensor([[0.0, 0.0], [0.02, 0.0]], dtype=DTYPE)
        middle, beside = spots.log_density(SCHEDULE.alpha[t] * y, t)
        if middle >= beside:
            return float(SCHEDULE.ratio[t])
    raise AssertionError("the spots never become one")


PREDICT = Predict(
    "14.1",
    "sqrt(0.8^2 - 0.08^2): two bells have one peak while each is wider than half their distance.",
    ratio_of_one_peak,
    {
        "that is their whole distance; half of it is what counts, from the middle to each.": (
            lambda: 2 * HALF
        ),
        "that is a variance; its root is the width of a bell.": lambda: HALF**2,
        "that is a quarter of the distance: a bell's width has to reach the middle.": (
            lambda: HALF / 2
        ),
        "widths add by their squares, and noise has to bring what the drawn width lacks: less than "
        "half the distance, not more.": lambda: HALF + WIDTH,
        "widths add by their squares: r^2 + 0.08^2 has to be 0.8^2.": lambda: HALF - WIDTH,
        "that is the width of what is drawn; the noise is far larger.": lambda: WIDTH,
    },
    within=0.015,
)


@cache
def ask(seed: int) -> Question:
    g = generator_of("exercise", seed)
    points = 1.2 * torch.randn(6, 2, generator=g, dtype=DTYPE)
    t = int(torch.randint(200, 500, (), generator=g))
    to, width = t - 100, 0.3 + 0.1 * (seed % 3)
    y = 1.5 * torch.randn(4, 2, generator=g, dtype=DTYPE)
    drawn = GaussianMixture({"A": points.tolist()}, width)
    x_t = SCHEDULE.alpha[t] * y
    path = ddim(drawn, x_t, drawn.condition("A"), cfg=1.0, levels=[t, to])
    r, r_to = (float(SCHEDULE.ratio[level]) for level in (t, to))
    arguments = {"y": y, "points": points, "width": width, "r": r, "r_to": r_to}
    return Question(arguments, path.x_t[1] / SCHEDULE.alpha[to])


def step_of(
    variance=lambda width, r: width**2 + r**2,
    weights=lambda away, v: (-away.square().sum(2) / (2 * v)).softmax(1),
    noise=lambda pull, r, v: r * pull / v,
    move=lambda y, e, r, r_to: y + (r_to - r) * e,
):
    """A step of DDIM in y = x_t / alpha_t on drawn points, with some of its parts replaced."""

    def step(y: Tensor, points: Tensor, width: float, r: float, r_to: float) -> Tensor:
        v = variance(width, r)
        away = y[:, None] - points  # (B, N, 2)
        pull = (weights(away, v)[..., None] * away).sum(1)
        return move(y, noise(pull, r, v), r, r_to)

    return step


IMPLEMENT = Implement(
    "14.2",
    "this is a step of the library's DDIM on the drawn points, to rounding.",
    ask,
    {
        "the sign in the softmax is wrong: far points have to weigh less.": step_of(
            weights=lambda away, v: (away.square().sum(2) / (2 * v)).softmax(1)
        ),
        "the 2 in the softmax is missing: -|y - p|^2 / (2 variance).": step_of(
            weights=lambda away, v: (-away.square().sum(2) / v).softmax(1)
        ),
        "the distance in the softmax is not squared.": step_of(
            weights=lambda away, v: (-away.norm(dim=2) / (2 * v)).softmax(1)
        ),
        "the softmax runs over the noisy y; it has to run over the drawn points.": step_of(
            weights=lambda away, v: (-away.square().sum(2) / (2 * v)).softmax(0)
        ),
        "all points weigh the same; near ones are likelier.": step_of(
            weights=lambda away, v: torch.full_like(away[..., 0], 1 / away.shape[1])
        ),
        "only the nearest point counts; all do, by the softmax.": step_of(
            weights=lambda away, v: (-1e9 * away.square().sum(2)).softmax(1)
        ),
        "the width of what is drawn is missing: a point's variance at this noise is width^2 + "
        "r^2.": step_of(variance=lambda width, r: r**2),
        "the variance is width^2 + r^2; here a width stands for it.": step_of(
            variance=lambda width, r: (width**2 + r**2) ** 0.5
        ),
        "this goes up: r falls, so y moves by (r_to - r) eps, which is negative.": step_of(
            move=lambda y, e, r, r_to: y - (r_to - r) * e
        ),
        "this is the x0-prediction, the step down to r = 0; the step ends at r_to.": step_of(
            move=lambda y, e, r, r_to: y - r * e
        ),
        "this is the noise prediction itself; y moves by (r_to - r) of it.": step_of(
            move=lambda y, e, r, r_to: e
        ),
        "that is the score; the noise is -r times it.": step_of(noise=lambda pull, r, v: -pull / v),
        "the noise is r (y - p) / variance: here the r is missing.": step_of(
            noise=lambda pull, r, v: pull / v
        ),
    },
    fresh="DDIM adds no noise of its own.",
)

EXPLAIN = Explain(
    "14.3",
    "guidance leads away from the other pen, so what lies near it is left out.",
    "d",
    {
        "a": "with ten times as many steps it reaches no more of them.",
        "b": "the same 48 noises reach every point at CFG 1.",
        "c": "they do end at drawn points; look at which.",
        "e": "DDIM's ends are as many as DSD's, and DDIM is the sampling itself.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

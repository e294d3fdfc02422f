"""Lesson 07: where views that disagree leave a scene, and the target of a view at unit gain."""

from functools import cache
from statistics import median

import torch

from ...methods import DSD
from ...schedule import NoiseSchedule
from .questions import DTYPE, Plane, conditional, one_too_many
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma, r = SCHEDULE.alpha, SCHEDULE.sigma, SCHEDULE.ratio
WISHES = (0.2, 0.4, 0.9, 0.9)


def where_the_scene_settles() -> float:
    """A value that all views share, fitted to one target a view by gradient steps."""
    shared, targets = torch.zeros((), dtype=DTYPE), torch.tensor(WISHES, dtype=DTYPE)
    for _ in range(50):
        shared = shared - 0.5 * (shared - targets).mean()
    return float(shared)


PREDICT = Predict(
    "07.1",
    "the mean of the four. A squared loss over views averages them: if they never come to agree, "
    "that is a blur.",
    where_the_scene_settles,
    {
        "that is the wish that two views share; a squared loss counts no votes.": lambda: 0.9,
        "that is the median, where the sum of absolute errors would be least.": lambda: median(
            WISHES
        ),
        "that is the middle between the least and the largest.": lambda: 0.55,
        "that is the mean of the three different values; each view counts.": lambda: 0.5,
        "that is the sum; the loss is least where the differences to the targets cancel.": lambda: (
            sum(WISHES)
        ),
    },
)


@cache
def ask(seed: int) -> Question:
    plane, steps, step = Plane.of(seed), 20, 6 + seed % 8
    method = DSD(form="unit", cfg=plane.cfg)
    state = method.begin(plane.prior, plane.cond, plane.e_star, steps)
    t_prime, n, _ = method.noise_at(state, step, None)
    g, t, _ = method.gradient(state, plane.x, step, None)
    levels = {"t": int(t[0]), "t_prime": int(t_prime[0]), "cfg": plane.cfg}
    return Question({"predict": plane.predict, "x": plane.x, "n": n} | levels, plane.x - g)


def target_of(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    guided=lambda e_u, e_c, cfg: e_u + cfg * (e_c - e_u),
    second=lambda e_u, e_c, cfg: e_u + cfg * (e_c - e_u),
    gain=lambda t, t_prime: r[t] / (1 - r[t] / r[t_prime]),
    end=lambda x, g: x - g,
):
    """A view's target at unit gain with some of its parts replaced."""

    def target(predict, x, n, t, t_prime, cfg):
        e_t = guided(*predict(a(t) * x + s(t) * n, t), cfg)
        e_t_prime = second(*predict(a(t_prime) * x + s(t_prime) * n, t_prime), cfg)
        return end(x, gain(t, t_prime) * (e_t - e_t_prime))

    return target


def one_prediction(predict, x, n, t, t_prime, cfg):
    e_u, e_c = predict(alpha[t] * x + sigma[t] * n, t)
    return x - r[t] * (e_u + cfg * (e_c - e_u) - n)


IMPLEMENT = Implement(
    "07.2",
    "this is the library's target at unit gain, to rounding.",
    ask,
    {
        "that is the gradient g; asked for is the target x - g.": target_of(end=lambda x, g: g),
        "the sign is wrong: the target is x - g, and in g the prediction at t comes first.": (
            target_of(end=lambda x, g: x + g)
        ),
        "the gain is missing: this moves only 1 - rho of the way. Divide by 1 - rho.": target_of(
            gain=lambda t, t_prime: r[t]
        ),
        "it is multiplied by 1 - rho; unit gain divides by it.": target_of(
            gain=lambda t, t_prime: r[t] * (1 - r[t] / r[t_prime])
        ),
        "rho is upside down: it is r_t / r_t', below 1.": target_of(
            gain=lambda t, t_prime: r[t] / (1 - r[t_prime] / r[t])
        ),
        "the weight r_t is missing.": target_of(
            gain=lambda t, t_prime: 1 / (1 - r[t] / r[t_prime])
        ),
        "alpha and sigma are interchanged: x_t = alpha_t x + sigma_t n.": target_of(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "guidance is off by one: e_g = e_u + cfg (e_c - e_u) starts from e_u, not from e_c.": (
            target_of(guided=one_too_many, second=one_too_many)
        ),
        "the second prediction has no guidance; that is the published form, here both have it.": (
            target_of(second=conditional)
        ),
        "that is the one-step prediction, our x0 form; the difference of two levels is asked "
        "for.": one_prediction,
    },
    fresh="The noise n of the path is given.",
)

EXPLAIN = Explain(
    "07.3",
    "a pixel of noise falls on another part of the object from each side, so one noise for all "
    "views does not tie their paths together.",
    "b",
    {
        "a": "at cfg 1 they disagree too; guidance has no part in which chair a view shows.",
        "c": "DDIM's paths are nearly exact with 25 steps; more of them end at the same chairs.",
        "d": "more cameras would give more views that disagree.",
        "e": "it is the same for all views of a seed; that is what makes the result surprising.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

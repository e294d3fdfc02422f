"""Lesson 03: what a step of DSD leaves of an error, its gradient, and the path's few nodes."""

from functools import cache

import torch

from ...methods import DSD
from ...methods.base import same_t
from ...priors import GaussianMixture
from ...schedule import NoiseSchedule
from .questions import DTYPE, Plane, conditional, one_too_many
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma, r = SCHEDULE.alpha, SCHEDULE.sigma, SCHEDULE.ratio
F, RHO = 0.3, 0.5  # the part of a step that is taken; r_t / r_t'


def left_of_an_error() -> float:
    """What one step of the ode form leaves of an error, taken in part, where the data is a point:
    asked of the prior.
    """
    prior = GaussianMixture({"point": [[0.0, 0.0]]}, width=0.0)
    cond, t = prior.condition("point"), 400
    t_prime = int((prior.schedule.ratio - r[t] / RHO).abs().argmin())
    x = n = torch.ones(1, 2, dtype=DTYPE)
    e_t, e_t_prime = (
        prior.predict_noise(prior.schedule.add_noise(x, k, n), k, cond, 1.0) for k in (t, t_prime)
    )
    return float((x - F * r[t] * (e_t - e_t_prime))[0, 0])


PREDICT = Predict(
    "03.1",
    "a step leaves 1 - f (1 - rho) = 1 - 0.3 * 0.5. That is why a scene needs unit gain, which "
    "leaves 0.7.",
    left_of_an_error,
    {
        "that is rho, what is left when the whole step is taken; here only 0.3 of it is.": lambda: (
            RHO
        ),
        "that is what unit gain leaves, 1 - f; the ode form's whole step corrects only 1 - rho.": (
            lambda: 1 - F
        ),
        "that is what the step corrects; asked for is what it leaves.": lambda: F * (1 - RHO),
        "that is f, the part of the step that is taken.": lambda: F,
        "rho to the power f is the law of many small steps; this is one.": lambda: RHO**F,
    },
    within=0.01,
)


@cache
def ask(seed: int) -> Question:
    plane, steps, step = Plane.of(seed), 20, 4 + seed % 8
    method = DSD(cfg=plane.cfg, spacing=100)
    state = method.begin(plane.prior, plane.cond, plane.e_star, steps)
    t, t_prime = (method.t_at(k, steps, state.schedule) for k in (step, step - 1))
    state = state.keep(last=same_t(t_prime, plane.x))
    _, n, _ = method.noise_at(state, step, None)
    right, _, _ = method.gradient(state, plane.x, step, None)
    arguments = {"predict": plane.predict, "x": plane.x, "n": n, "t": t, "t_prime": t_prime}
    return Question(arguments | {"cfg": plane.cfg}, right)


def form(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    weight=lambda t, t_prime: r[t],
    guided=lambda e_u, e_c, cfg: e_u + cfg * (e_c - e_u),
    second=lambda e_u, e_c, cfg: e_u + cfg * (e_c - e_u),
    level=lambda t, t_prime: t_prime,
):
    """DSD's gradient with some of its parts replaced: `level` is that of the second point."""

    def gradient(predict, x, n, t, t_prime, cfg):
        e_t = guided(*predict(a(t) * x + s(t) * n, t), cfg)
        at = level(t, t_prime)
        e_t_prime = second(*predict(a(at) * x + s(at) * n, t_prime), cfg)
        return weight(t, t_prime) * (e_t - e_t_prime)

    return gradient


def compared_with_n(predict, x, n, t, t_prime, cfg):
    e_u, e_c = predict(alpha[t] * x + sigma[t] * n, t)
    return r[t] * (e_u + cfg * (e_c - e_u) - n)


IMPLEMENT = Implement(
    "03.2",
    "this is the library's DSD, to rounding.",
    ask,
    {
        "the sign is wrong: x - g has to move as DDIM does, so the prediction at t comes first.": (
            form(weight=lambda t, t_prime: -r[t])
        ),
        "alpha and sigma are interchanged: x_t = alpha_t x + sigma_t n.": form(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "the weight r_t is missing.": form(weight=lambda t, t_prime: 1.0),
        "the weight is r_t, of the level that x is moved to, not r_t'.": form(
            weight=lambda t, t_prime: r[t_prime]
        ),
        "sigma_t^2 is the weight of the published code's form; the ode form has r_t.": form(
            weight=lambda t, t_prime: sigma[t] ** 2
        ),
        "guidance is off by one: e_g = e_u + cfg (e_c - e_u) starts from e_u, not from e_c.": form(
            guided=one_too_many, second=one_too_many
        ),
        "guidance is missing: both predictions are the plain conditional ones.": form(
            guided=conditional, second=conditional
        ),
        "the second prediction has no guidance, as in the published code; the ode form gives both "
        "the same.": form(second=conditional),
        "the second point was noised to t; it is asked at t', so it needs alpha_t' and "
        "sigma_t'.": form(level=lambda t, t_prime: t),
        "it subtracts n itself. That is the x0 form; the ode form asks again, at t'.": (
            compared_with_n
        ),
    },
    fresh="DSD's noise is the path's: use the n that is given.",
)

EXPLAIN = Explain(
    "03.3",
    "while the noise is large a path is almost straight, and low down a seed has already chosen.",
    "c",
    {
        "a": "the loop corrects nothing of the path: it is simulated without x.",
        "b": "it does depend on the prompt, through every guided prediction along it.",
        "d": "DDIM is Euler's method: on a curved path large steps do err, by first order.",
        "e": "n is used at every step, down to the lowest t.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

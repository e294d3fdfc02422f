"""Lesson 05: how far Adam carries a small push, a DDIM step from a velocity, and what a small
distance is worth.
"""

from functools import cache

import torch

from ...sampling import ddim
from ...schedule import NoiseSchedule
from .questions import Plane
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma = SCHEDULE.alpha, SCHEDULE.sigma
STEPS, RATE, PUSH = 60, 0.05, 0.01


def way_of_adam() -> float:
    """How far Adam moves a number in STEPS steps of a gradient that is always PUSH."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=RATE, betas=(0.9, 0.99))
    for _ in range(STEPS):
        x.grad = torch.full_like(x, PUSH)
        optimiser.step()
    return abs(x.item())


PREDICT = Predict(
    "05.1",
    "60 * 0.05: Adam divides by the gradient's own size, however small the push is.",
    way_of_adam,
    {
        "that is plain gradient descent, steps * rate * gradient; Adam divides by the gradient's "
        "size.": lambda: STEPS * RATE * PUSH,
        "that is one step of Adam; there are 60, all in one direction.": lambda: RATE,
        "the rate has no part in this; a step of Adam is as long as its rate.": lambda: (
            STEPS * PUSH
        ),
        "the rate is missing: a step of Adam is as long as its rate, not 1.": lambda: STEPS,
        "Adam's steps add up in one direction; only random ones would grow as the root.": lambda: (
            STEPS**0.5 * RATE
        ),
    },
    within=0.008,
)


@cache
def ask(seed: int) -> Question:
    plane = Plane.of(seed)
    to = plane.t - 100
    x_t = SCHEDULE.add_noise(plane.x, plane.t, plane.n)
    right = ddim(plane.prior, x_t, plane.cond, cfg=plane.cfg, levels=[plane.t, to]).x_t[1]

    def velocity(x_t, t):
        terms = plane.prior.predict(x_t, t, plane.cond)
        v = {name: alpha[t] * term.eps - sigma[t] * term.x0 for name, term in terms.items()}
        return v["uncond"], v["cond"]

    arguments = {"velocity": velocity, "x_t": x_t, "t": plane.t, "to": to, "cfg": plane.cfg}
    return Question(arguments, right)


def step_of(
    guided=lambda v_u, v_c, cfg: v_u + cfg * (v_c - v_u),
    noise=lambda x, v, a, s: a * v + s * x,
    clean=lambda x, v, a, s: a * x - s * v,
    at=lambda t, to: to,
    join=lambda a, x0, s, eps: a * x0 + s * eps,
):
    """A DDIM step from a velocity with some of its parts replaced."""

    def step(velocity, x_t, t, to, cfg):
        v = guided(*velocity(x_t, t), cfg)
        x0, eps = (part(x_t, v, alpha[t], sigma[t]) for part in (clean, noise))
        level = at(t, to)
        return join(alpha[level], x0, sigma[level], eps)

    return step


IMPLEMENT = Implement(
    "05.2",
    "this is a step of the library's DDIM, to rounding.",
    ask,
    {
        "the sign in the x0-prediction is wrong: alpha_t x_t - sigma_t v.": step_of(
            clean=lambda x, v, a, s: a * x + s * v
        ),
        "the sign in the noise is wrong: alpha_t v + sigma_t x_t.": step_of(
            noise=lambda x, v, a, s: a * v - s * x
        ),
        "v is taken for the noise: it is a velocity, alpha_t eps - sigma_t x_0.": step_of(
            noise=lambda x, v, a, s: v, clean=lambda x, v, a, s: (x - s * v) / a
        ),
        "alpha and sigma are interchanged where the new point is put together.": step_of(
            join=lambda a, x0, s, eps: s * x0 + a * eps
        ),
        "this leads back to x_t: the new point has the alpha and sigma of `to`.": step_of(
            at=lambda t, to: t
        ),
        "guidance is off by one: it starts from v_u, not from v_c.": step_of(
            guided=lambda v_u, v_c, cfg: v_c + cfg * (v_c - v_u)
        ),
        "guidance is missing: this is the step of the plain conditional prediction.": step_of(
            guided=lambda v_u, v_c, cfg: v_c
        ),
        "this is the x0-prediction; DDIM puts the noise of the next level back on it.": step_of(
            join=lambda a, x0, s, eps: x0
        ),
        "the noise is missing: x_to = alpha_to x0hat + sigma_to eps.": step_of(
            join=lambda a, x0, s, eps: a * x0
        ),
    },
    fresh="DDIM adds no noise of its own: it puts back the one that it has predicted.",
)

EXPLAIN = Explain(
    "05.3",
    "an average, or a typical drawing, is near to many; DDIM's row is the yardstick, not 0.",
    "b",
    {
        "a": "then DDIM, which is the network's own sampling, would be worse than SDS is.",
        "c": "both are decoded by the same autoencoder.",
        "d": "at cfg 1 the seeds of SDS are together as well; guidance is not the cause.",
        "e": "the same drawings and the same measure serve both.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

"""Lesson 11: where a shift puts a level, DSD's gradient from velocities, and why the schedules
agree.
"""

from functools import cache

from ...methods import DSD
from ...methods.base import same_t
from ...schedule import NoiseSchedule
from .questions import Plane
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.flow(shift=3.0)
HALF = 0.5  # the time of a level before the shift


def shifted() -> float:
    """A flow's time at the level whose time is a half without a shift."""
    usual = NoiseSchedule.flow(shift=1.0)
    return float(SCHEDULE.time[(usual.time - HALF).abs().argmin()])


PREDICT = Predict(
    "11.1",
    "r is 1 there, times 3; and s = r / (1 + r). A shift moves levels towards the noise.",
    shifted,
    {
        "that is where it was; the shift multiplies r by 3.": lambda: 0.5,
        "s itself is not multiplied, r is: s / (1 - s), and then back.": lambda: 1.5,
        "that is the way down, r divided by 3: the shift adds noise.": lambda: 0.25,
        "that is r, the ratio; its time is r / (1 + r).": lambda: 3.0,
        "that is sigma, r / sqrt(1 + r^2); a flow's time is r / (1 + r).": lambda: 3 / 10**0.5,
    },
    within=0.01,
)


@cache
def ask(seed: int) -> Question:
    plane, steps, step = Plane.of(seed, SCHEDULE), 20, 4 + seed % 8
    method = DSD(cfg=1.0, spacing=100)
    state = method.begin(plane.prior, plane.cond, plane.e_star, steps)
    t, t_prime = (method.t_at(k, steps, state.schedule) for k in (step, step - 1))
    state = state.keep(last=same_t(t_prime, plane.x))
    _, n, _ = method.noise_at(state, step, None)
    right, _, _ = method.gradient(state, plane.x, step, None)
    times = {float(SCHEDULE.time[k]): k for k in (t, t_prime)}

    def velocity(x_s, s):
        k = times[s]
        whole = SCHEDULE.alpha[k] + SCHEDULE.sigma[k]
        e = plane.prior.predict_guided(x_s * whole, k, plane.cond, 1.0)
        return e.eps - e.x0

    s, s_prime = times
    arguments = {"velocity": velocity, "x": plane.x, "n": n, "s": s, "s_prime": s_prime}
    return Question(arguments, right)


def form(
    mix=lambda x, n, s: (1 - s) * x + s * n,
    read=lambda x_s, v, s: x_s + (1 - s) * v,
    weight=lambda s: s / (1 - s),
    less=lambda e, e_prime, n: e - e_prime,
):
    """DSD's gradient from velocities with some of its parts replaced."""

    def gradient(velocity, x, n, s, s_prime):
        e = []
        for level in (s, s_prime):
            x_s = mix(x, n, level)
            e.append(read(x_s, velocity(x_s, level), level))
        return weight(s) * less(*e, n)

    return gradient


IMPLEMENT = Implement(
    "11.2",
    "this is the library's DSD on a flow, to rounding.",
    ask,
    {
        "the sign is wrong: the prediction at s comes first.": form(
            less=lambda e, e_prime, n: e_prime - e
        ),
        "picture and noise are interchanged: x_s = (1 - s) x + s n.": form(
            mix=lambda x, n, s: s * x + (1 - s) * n
        ),
        "that is the clean picture, x_s - s v; the noise is x_s + (1 - s) v.": form(
            read=lambda x_s, v, s: x_s - s * v
        ),
        "the velocity is eps - x0, not the noise: eps = x_s + (1 - s) v.": form(
            read=lambda x_s, v, s: v
        ),
        "the sign in the noise is wrong: x_s + (1 - s) v.": form(
            read=lambda x_s, v, s: x_s - (1 - s) * v
        ),
        "the weight is s; it is r = s / (1 - s).": form(weight=lambda s: s),
        "the weight r = s / (1 - s) is missing.": form(weight=lambda s: 1.0),
        "1 / (1 - s) is RFDS's weight, 1 + r; DSD's is r.": form(weight=lambda s: 1 / (1 - s)),
        "it is compared with n itself; DSD compares two levels.": form(
            less=lambda e, e_prime, n: e - n
        ),
    },
    fresh="DSD's noise n is the path's, and given.",
)

EXPLAIN = Explain(
    "11.3",
    "x_flow is x_t rescaled, so both follow one ODE; the levels are only where it is looked at.",
    "c",
    {
        "a": "that holds between one picture and one noise; the ODE's path bends all the same.",
        "b": "the number of steps plays no part; more of them would bring both nearer together.",
        "d": "the prior is exact on both, and an exact prior still answers each noise differently.",
        "e": "the shift decides which levels are asked, not where the ODE leads.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

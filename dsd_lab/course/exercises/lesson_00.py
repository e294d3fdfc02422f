"""Lesson 00: what an evaluation is, the guided x0-prediction, and what jitter looks like."""

from functools import cache

from ...sampling import ddim
from ...schedule import NoiseSchedule
from .questions import Plane
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma = SCHEDULE.alpha, SCHEDULE.sigma
STEPS, SEEDS = 25, 4


def evaluations_of_ddim() -> float:
    """What DDIM asks of a prior, for four points: counted by the prior itself."""
    plane = Plane.of(0)
    ddim(plane.prior, plane.e_star, plane.cond, steps=STEPS, cfg=7.5)
    return float(plane.prior.evaluations)


PREDICT = Predict(
    "00.1",
    "26 levels, 2 predictions at each, 4 seeds. Costs are counted so in all lessons.",
    evaluations_of_ddim,
    {
        "a guided prediction costs two: one with the prompt and one without.": lambda: 26 * 4,
        "that is one seed's; each of the four costs as much.": lambda: 26 * 2,
        "those are the levels; a guided prediction at one of them costs two, for each seed.": (
            lambda: 26
        ),
        "25 steps have 26 ends, and DDIM asks at each of them.": lambda: 25 * 2 * 4,
        "a guided prediction is made of two predictions, not three.": lambda: 26 * 3 * 4,
    },
    within=0.5,
)


@cache
def ask(seed: int) -> Question:
    plane = Plane.of(seed)
    x_t = SCHEDULE.add_noise(plane.x, plane.t, plane.n)
    right = plane.prior.predict_guided(x_t, plane.t, plane.cond, plane.cfg).x0
    return Question({"predict": plane.predict, "x_t": x_t, "t": plane.t, "cfg": plane.cfg}, right)


def look_behind(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    guided=lambda e_u, e_c, cfg: e_u + cfg * (e_c - e_u),
    clean=lambda x_t, e, a, s: (x_t - s * e) / a,
):
    """The guided x0-prediction with some of its parts replaced."""

    def x0_prediction(predict, x_t, t, cfg):
        return clean(x_t, guided(*predict(x_t, t), cfg), a(t), s(t))

    return x0_prediction


IMPLEMENT = Implement(
    "00.2",
    "this is the library's guided x0-prediction, to rounding.",
    ask,
    {
        "guidance is off by one: e_g = e_u + cfg (e_c - e_u) starts from e_u, not from e_c.": (
            look_behind(guided=lambda e_u, e_c, cfg: e_c + cfg * (e_c - e_u))
        ),
        "guidance is missing: this is what lies behind the plain conditional prediction.": (
            look_behind(guided=lambda e_u, e_c, cfg: e_c)
        ),
        "this is the unconditional prediction: cfg has to multiply e_c - e_u.": look_behind(
            guided=lambda e_u, e_c, cfg: e_u
        ),
        "e_u and e_c are interchanged: `predict` returns the one without the prompt first.": (
            look_behind(guided=lambda e_u, e_c, cfg: e_c + cfg * (e_u - e_c))
        ),
        "alpha and sigma are interchanged: x_t = alpha_t x_0 + sigma_t eps.": look_behind(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "it is not divided by alpha_t: x_t holds only that share of x_0.": look_behind(
            clean=lambda x_t, e, a, s: x_t - s * e
        ),
        "the sign is wrong: the noise has to be taken off.": look_behind(
            clean=lambda x_t, e, a, s: (x_t + s * e) / a
        ),
        "the noise has to be scaled before it is taken off: x_t holds sigma_t of it.": look_behind(
            clean=lambda x_t, e, a, s: (x_t - e) / a
        ),
        "this is the guided noise prediction itself; what lies behind x_t is asked for.": (
            look_behind(clean=lambda x_t, e, a, s: e)
        ),
    },
    fresh="A prediction needs no noise of its own: x_t holds it.",
)

EXPLAIN = Explain(
    "00.3",
    "pictures can differ without being anything: look at *outside* and the gap beside *pairwise*.",
    "c",
    {
        "a": "DDIM's cats are drawings; many of these are within 0.1 of none.",
        "b": "the noise is fresh at each step and the rate large, so they do not settle at all.",
        "d": "the prior is the same one; only the rate has changed.",
        "e": "it is measured by *agreement*, seed by seed, and the gap is as large as DDIM's own "
        "distance between seeds.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

"""Lesson 04: ASD without its shift, CFD's gradient, and VSD of one particle."""

from functools import cache

from ...methods import ASD, CFD, CSD
from ...schedule import NoiseSchedule
from .questions import Given, Plane
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma, r = SCHEDULE.alpha, SCHEDULE.sigma, SCHEDULE.ratio
CFG = 7.5


def asd_over_csd() -> float:
    """ASD's gradient with no shift over CSD's, at the same point, level and noise."""
    plane = Plane.of(0)
    found = []
    for method in (ASD(cfg=CFG, shift=0.0), CSD(cfg=CFG)):
        state = method.begin(plane.prior, plane.cond, plane.e_star, 10)
        found.append(method.gradient(state, plane.x, 0, Given(plane.t, plane.n))[0])
    asd, csd = found
    return float(asd.norm() / csd.norm())


PREDICT = Predict(
    "04.1",
    "(cfg - 1) / cfg: e_g - e_c = (cfg - 1) (e_c - e_u), and CSD has cfg (e_c - e_u).",
    asd_over_csd,
    {
        "they are not equal: ASD subtracts e_c, CSD e_u.": lambda: 1.0,
        "that is CSD over ASD; the other way round is asked for.": lambda: CFG / (CFG - 1),
        "that is ASD over e_c - e_u; the library's CSD holds the factor cfg too.": lambda: CFG - 1,
        "that is CSD over e_c - e_u.": lambda: CFG,
        "that is 1 / cfg, what is missing to 1.": lambda: 1 / CFG,
        "that is (cfg + 1) / cfg, where guidance is off by one.": lambda: (CFG + 1) / CFG,
    },
    within=0.01,
)


@cache
def ask(seed: int) -> Question:
    plane, steps, step = Plane.of(seed), 20, 3 + seed % 8
    method = CFD(cfg=plane.cfg)
    state = method.begin(plane.prior, plane.cond, plane.e_star, steps)
    right, t, _ = method.gradient(state, plane.x, step, None)
    arguments = {"predict": plane.predict, "x": plane.x, "e_star": plane.e_star, "t": int(t[0])}
    return Question(arguments | {"cfg": plane.cfg}, right)


def form(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    weight=lambda t: r[t],
    guided=lambda e_u, e_c, cfg: e_u + cfg * (e_c - e_u),
    reference=lambda n, e_u, e_c: n,
):
    """CFD's gradient with some of its parts replaced."""

    def gradient(predict, x, e_star, t, cfg):
        e_u, e_c = predict(a(t) * x + s(t) * e_star, t)
        return weight(t) * (guided(e_u, e_c, cfg) - reference(e_star, e_u, e_c))

    return gradient


IMPLEMENT = Implement(
    "04.2",
    "this is the library's CFD, to rounding.",
    ask,
    {
        "the sign is wrong: the prediction comes first, then what it is compared with.": form(
            weight=lambda t: -r[t]
        ),
        "alpha and sigma are interchanged: x_t = alpha_t x + sigma_t n.": form(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "the weight r_t is missing.": form(weight=lambda t: 1.0),
        "sigma_t^2 is SDS's weight; CFD's is r_t.": form(weight=lambda t: sigma[t] ** 2),
        "the weight is upside down: r_t = sigma_t / alpha_t.": form(weight=lambda t: 1 / r[t]),
        "guidance is off by one: e_g = e_u + cfg (e_c - e_u) starts from e_u, not from e_c.": form(
            guided=lambda e_u, e_c, cfg: e_c + cfg * (e_c - e_u)
        ),
        "guidance is missing: this is the plain conditional prediction.": form(
            guided=lambda e_u, e_c, cfg: e_c
        ),
        "it subtracts e_u, as CSD does; CFD subtracts its noise.": form(
            reference=lambda n, e_u, e_c: e_u
        ),
    },
    fresh="CFD keeps one noise for the whole run: use the e_star that is given.",
)

EXPLAIN = Explain(
    "04.3",
    "the score of one point is the noise that it was given, so nothing is left to tell VSD by.",
    "a",
    {
        "b": "e_phi is the score of what is being made, not of the data: they differ.",
        "c": "that is CSD, which subtracts e_u; nothing turns e_phi into e_u.",
        "d": "its noise is fresh at each step whatever the batch; DSD's is a path's.",
        "e": "repulsion is RSD's; and one particle has nobody to be pushed from.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

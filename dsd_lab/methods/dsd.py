"""DSD: Diverse Score Distillation (arXiv 2412.06780): the two published forms, and two of ours."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..checks import at_least, choice, fraction, positive
from ..priors import check_cfg
from .base import ASSIGNED, Defaults, Evaluations, cost, guided_noises, same_t
from .dsd_path import PathMethod
from .timesteps import at_ratio, check_range, check_rho, noisier, unit_gain


class Form(NamedTuple):
    """What a form of DSD does unless told otherwise; reference_cfg None is that of the first term.
    has_gain: whether its step can be scaled.
    """

    t_min: float
    shift: float | None = None
    reference_cfg: float | None = None
    has_gain: bool = False


FORMS = {
    "ode": Form(0.02),
    "reference": Form(0.32, shift=0.1, reference_cfg=1.0),
    "unit": Form(0.02, has_gain=True),
    "x0": Form(0.32, shift=0.1, has_gain=True),
}


@dataclass(frozen=True)
class DSD(PathMethod):
    """Give every seed its own ODE path from e*, take n from it, and compare two levels of the line
    through x and n.

        x_t = alpha_t x + sigma_t n,    n = e_g(path(t'), t'),    t' > t,  t falls as 1 - sqrt(i/N)
        form="ode"        g = r_t        ( e_g(x_t, t) - e_r(x_t', t') )    t' = the last t
        form="reference"  g = sigma_t^2  ( e_g(x_t, t) - e_r(x_t', t') )    t' = t + U[0,1) reach
        form="unit"       g = r_t / (1 - rho) ( e_g(x_t, t) - e_r(x_t', t') )    r_t' = r_t / rho
        form="x0"         g = r_t        ( e_g(x_t, t) - n )                t' = t + reach
        reach = min(shift (t - t_min), T - 1 - t)

    On the path "ode" is DDIM; "reference" is the published code's. The difference is worth
    r_t (e_t - e_t') = (x - x0hat_t) - (r_t / r_t') (x - x0hat_t'): where both predict the same, it
    moves x by 1 - r_t / r_t' of the way. Between neighbouring levels that is little: enough for a
    picture, which is put in place, not for a scene, which follows slowly. "unit" (ours) divides it
    out, with the ratio of the levels fixed; on the path that is not DDIM. "x0" (ours) is its limit
    for rho -> 0 with n held; x - g is a one-step prediction.
    cfg: guidance; reference_cfg: of e_r, 1 in "reference" (the published code without Perp-Neg: 2,
    cfg 8.5), in the others cfg, which in "unit" is ours. t_min, t_max: the range of t as fractions
    of the schedule; t_min is 0.32 for "reference" and "x0", else 0.02. rho: of "unit", in (0, 1);
    where r_t / rho lies beyond the schedule, t' is its noisiest level and the gain stays that of
    rho. gain: a factor of g in "unit" and "x0". shift: 0.1 in "reference" and "x0"; with "unit", n
    is then from t + reach. spacing: timesteps between the path's kept nodes, 100 of 1000, in the
    ode form on networks, whose paths bend more, 20. snap=True (ours) keeps them 20 apart, rounds t'
    up to a node and takes its prediction: n costs nothing. On a network it leaves the path (lesson
    05). Kept are 3 x levels x views x C x H x W x 4 bytes: 10 of 24 cameras 9 MB at 32 pixels, 35
    at 64. keep_path=False simulates it anew at each step, down to t', as the published code does:
    the same n at more cost. For ablations: anneal="linear" lets t fall evenly; noise="random" draws
    n afresh, which makes the reference form ASD with a fixed t. In 3-D "the last t" is that at
    which the view's own target was made. Source: arXiv 2412.06780, section 4.2 and algorithm 1.
    """

    form: str = "ode"
    reference_cfg: float | None = None
    t_min: float | None = None
    t_max: float = 0.98
    rho: float = 0.5
    gain: float = 1.0
    shift: float | None = None
    spacing: int | None = None
    snap: bool = False
    anneal: str = "sqrt"
    noise: str = "ode"
    keep_path: bool = True

    name = "DSD"

    def __post_init__(self):
        super().__post_init__()
        choice("form", self.form, FORMS)
        choice("anneal", self.anneal, ("sqrt", "linear"))
        choice("noise", self.noise, ("ode", "random"))
        check_cfg(self.second_cfg)
        check_range(self.lowest, self.t_max)
        check_rho(self.rho)
        if positive("gain", self.gain) != 1 and not FORMS[self.form].has_gain:
            raise ValueError(
                f'gain goes with form="unit" or "x0"; "{self.form}" has none, got {self.gain}'
            )
        if self.shift is not None:
            fraction("shift", self.shift)
        if self.spacing is not None:
            at_least("spacing", self.spacing)

    def setting(self, name: str) -> float | None:
        """A setting, or the form's own where it is None."""
        value = getattr(self, name)
        return getattr(FORMS[self.form], name) if value is None else value

    @property
    def lowest(self) -> float:
        return self.setting("t_min")

    @property
    def near_nodes(self) -> bool:
        return self.form == "ode"

    @property
    def second_cfg(self) -> float:
        """Guidance of the second term."""
        guidance = self.setting("reference_cfg")
        return self.cfg if guidance is None else guidance

    @property
    def defaults(self):
        return ASSIGNED if self.form == "ode" else Defaults()

    def t_prime_at(self, t, last, schedule, draws):
        shift = self.setting("shift")
        if self.form == "ode":
            return last
        if shift is None:
            return at_ratio(t, self.rho, schedule)
        u = draws.uniform() if self.form == "reference" else torch.ones(len(t))
        return noisier(t, schedule.level(self.lowest), shift, u, schedule)

    def gradient(self, state, x, step, draws):
        schedule = state.schedule
        t = same_t(self.t_at(step, state.steps, schedule), x)
        t_prime, n, state = self.noise_at(state, step, draws)
        if self.form == "unit":  # with a shift, n comes from another level
            t_prime = t_prime if self.shift is None else at_ratio(t, self.rho, schedule)
        x_t, x_t_prime = schedule.add_noise(x, t, n), schedule.add_noise(x, t_prime, n)
        if self.form == "x0":
            (e_t,), reference = guided_noises(state, (x_t, t, self.cfg)), n
        else:
            points = (x_t, t, self.cfg), (x_t_prime, t_prime, self.second_cfg)
            e_t, reference = guided_noises(state, *points)
        weight = {
            "ode": schedule.at("ratio", t, x),
            "reference": schedule.at("sigma", t, x) ** 2,
            "unit": self.gain * unit_gain(t, t_prime, self.rho, schedule, x),
            "x0": self.gain * schedule.at("ratio", t, x),
        }[self.form]
        return weight * (e_t - reference), t, state.keep(last=t)

    def evaluations(self, prior):
        begin, noise = self.noise_evaluations(prior)
        reference = 0 if self.form == "x0" else cost(self.second_cfg, prior)
        return Evaluations(begin, noise + cost(self.cfg, prior) + reference)

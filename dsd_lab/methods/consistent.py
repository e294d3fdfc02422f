"""Consistent3D: Consistency Distillation Sampling along one ODE (arXiv 2401.09050)."""

import math
from dataclasses import dataclass

from ..checks import choice, fraction
from .base import Evaluations, Method, cost, same_t
from .timesteps import between, check_range

SIGNS = ("code", "abstract")


@dataclass(frozen=True)
class ConsistentODE(Method):
    """Noise x with the one e* of its seed, take one DDIM step down, compare the predictions at its
    two ends.

        x_t = alpha_t x + sigma_t e*,    x_s = alpha_s x0hat(x_t, t) + sigma_s e_g(x_t, t)
        sign="code"       g = e_g(x_t, t) - e_g(x_s, s)      what the published code descends
        sign="abstract"   g = e_g(x_s, s) - e_g(x_t, t)      the less noisy guides the noisier
        s falls from t_max to t_min with the square root of progress
        t = s + U{gap_min..gap_max - 1}

    cfg: guidance, constant (the published code lets it fall from 101 to 51). t_min, t_max,
    gap_min, gap_max: fractions of the schedule, with t_max + gap_max <= 1.
    Source: arXiv 2401.09050, eq. 10, with w(t) = 1; the schedule of s and t follows the published
    implementation.
    """

    sign: str = "code"
    t_min: float = 0.1
    t_max: float = 0.7
    gap_min: float = 0.1
    gap_max: float = 0.3

    name = "ConsistentODE"

    def __post_init__(self):
        super().__post_init__()
        choice("sign", self.sign, SIGNS)
        check_range(self.t_min, self.t_max)
        fraction("gap_min", self.gap_min)
        if not self.gap_min < self.gap_max <= 1 - self.t_max + 1e-9:
            raise ValueError(
                f"gap_max must lie above gap_min={self.gap_min} and t_max + gap_max must not "
                f"exceed 1, got gap_max={self.gap_max} with t_max={self.t_max}"
            )

    def gradient(self, state, x, step, draws):
        schedule, prior, cond = state.schedule, state.prior, state.cond
        s = same_t(between(self.t_max, self.t_min, math.sqrt(step / state.steps), schedule), x)
        least, most = schedule.reach(self.gap_min), schedule.reach(self.gap_max) - 1
        t = (s + draws.timesteps(least, max(least, most))).clamp(max=len(schedule) - 1)
        x_t = schedule.add_noise(x, t, state.e_star)
        at_t = prior.predict_guided(x_t, t, cond, self.cfg)
        x_s = schedule.add_noise(at_t.x0, s, at_t.eps)
        e_t, e_s = at_t.eps, prior.predict_noise(x_s, s, cond, self.cfg)
        return e_t - e_s if self.sign == "code" else e_s - e_t, t, state

    def evaluations(self, prior):
        return Evaluations(begin=0, step=2 * cost(self.cfg))

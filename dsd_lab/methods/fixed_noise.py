"""FSD and CFD: the noise is fixed, and t falls (arXiv 2405.10988, 2501.05445)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .base import (
    Defaults,
    Evaluations,
    Method,
    State,
    annealed,
    check_choice,
    check_fraction,
    check_range,
    cost,
    same_t,
)

WEIGHTS = ("ratio", "ddim")


@dataclass(frozen=True)
class FSD(Method):
    """Flow Score Distillation: SDS whose noise is the seed's e* at every step.

        g = sigma_t^2 ( e_g(alpha_t x + sigma_t e*, t) - e* ),    t falls linearly from t_max to t_min

    cfg: guidance. t_min, t_max: the range of t as fractions of the schedule. In 3-D each view crops
    its noise from one noise map of the world. Source: arXiv 2405.10988, with w(t) = sigma_t^2.
    """

    t_min: float = 0.02
    t_max: float = 0.98

    name = "FSD"

    def __post_init__(self):
        super().__post_init__()
        check_range(self.t_min, self.t_max)

    def t_at(self, step: int, steps: int, schedule) -> int:
        """t of a step, falling linearly."""
        return annealed((self.t_max, self.t_min), step, steps, schedule)

    def gradient(self, state, x, step, draws):
        schedule, n = state.schedule, state.e_star
        t = same_t(self.t_at(step, state.steps, schedule), x)
        e_g = state.prior.predict_noise(schedule.add_noise(x, t, n), t, state.cond, self.cfg)
        return schedule.at("sigma", t, x) ** 2 * (e_g - n), t

    def evaluations(self, prior):
        return Evaluations(begin=0, step=cost(self.cfg))


@dataclass(frozen=True)
class CFD(FSD):
    """Consistent Flow Distillation: DDIM seen from noise that stays, x = (x_t - sigma_t n) /
    alpha_t.

        weight="ratio"   g = r_t         ( e_g(alpha_t x + sigma_t n, t) - n )     the method
        weight="ddim"    g = (r_t - r_s) ( e_g(alpha_t x + sigma_t n, t) - n )     s = the next t; r_s = 0 after the last
        n = e* at first, then n <- sqrt(1 - gamma) n + sqrt(gamma) N(0, I) after each step;  t falls linearly

    With weight "ddim", gamma 0, plain steps of size 1 and the start x = (e* - sigma_T n) / alpha_T
    at the first level T (its defaults), it is DDIM on the levels of t; with its own weight it is
    not. cfg: guidance. t_min, t_max: the range of t as fractions of the schedule. gamma: the share
    of the noise renewed at each step. In 3-D the surface carries n.
    Source: arXiv 2501.05445; weight "ddim" is ours.
    """

    weight: str = "ratio"
    gamma: float = 0.0

    name = "CFD"

    def __post_init__(self):
        super().__post_init__()
        check_choice("weight", self.weight, WEIGHTS)
        check_fraction("gamma", self.gamma)

    @property
    def defaults(self):
        return (
            Defaults(start="x0hat", optimizer="plain", lr=1.0)
            if self.weight == "ddim"
            else Defaults()
        )

    def begin(self, prior, cond, e_star, steps):
        return State(prior, cond, e_star, steps, n=e_star)

    def start(self, state):
        if self.weight == "ratio":
            return super().start(state)
        first = self.t_at(0, state.steps, state.schedule)
        a, s = (state.schedule.at(name, first, state.e_star) for name in ("alpha", "sigma"))
        return (1 - s) / a * state.e_star  # (e* - sigma_T n) / alpha_T with n = e*

    def gradient(self, state, x, step, draws):
        schedule, n = state.schedule, state.kept["n"]
        t = same_t(self.t_at(step, state.steps, schedule), x)
        weight = schedule.at("ratio", t, x)
        if self.weight == "ddim" and step + 1 < state.steps:
            weight = weight - schedule.at("ratio", self.t_at(step + 1, state.steps, schedule), x)
        e_g = state.prior.predict_noise(schedule.add_noise(x, t, n), t, state.cond, self.cfg)
        if self.gamma:
            state.kept["n"] = math.sqrt(1 - self.gamma) * n + math.sqrt(self.gamma) * draws.normal()
        return weight * (e_g - n), t

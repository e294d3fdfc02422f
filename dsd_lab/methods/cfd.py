"""CFD: Consistent Flow Distillation (arXiv 2501.05445)."""

import math
from dataclasses import dataclass

from ..checks import choice, fraction
from .base import ASSIGNED, Defaults, same_t
from .state import State
from .timesteps import FallingMethod

WEIGHTS = ("ratio", "ddim")


@dataclass(frozen=True)
class CFD(FallingMethod):
    """DDIM seen from noise that stays, x = (x_t - sigma_t n) / alpha_t.

        weight="ratio"   g = r_t         ( e_g(alpha_t x + sigma_t n, t) - n )     the method
        weight="ddim"    g = (r_t - r_s) ( e_g(alpha_t x + sigma_t n, t) - n )     s = the next t
        n = e* at first, then n <- sqrt(1 - gamma) n + sqrt(gamma) N(0, I) after each step
        t falls linearly from t_max to t_min;  r_s = 0 after the last

    With weight "ddim", gamma 0, plain steps of size 1 and the start x = (e* - sigma_T n) / alpha_T
    at the first level T (its defaults), it is DDIM on the levels of t; with its own weight it is
    not. cfg: guidance. t_min, t_max: the range of t as fractions of the schedule. gamma: the share
    of the noise renewed at each step. In 3-D each view keeps its own n, all from the same e*; the
    paper's surface carries n from view to view, which is not built.
    Source: arXiv 2501.05445; weight "ddim" is ours.
    """

    weight: str = "ratio"
    gamma: float = 0.0

    name = "CFD"

    def __post_init__(self):
        super().__post_init__()
        choice("weight", self.weight, WEIGHTS)
        fraction("gamma", self.gamma)

    @property
    def defaults(self):
        return ASSIGNED if self.weight == "ddim" else Defaults()

    def begin(self, prior, cond, e_star, steps):
        return State(prior, cond, e_star, steps, {"n": e_star})

    def start(self, state):
        if self.weight == "ratio":
            return super().start(state)
        first = self.t_at(0, state.steps, state.schedule)
        alpha, sigma = (state.schedule.at(name, first, state.e_star) for name in ("alpha", "sigma"))
        return (1 - sigma) / alpha * state.e_star  # (e* - sigma_T n) / alpha_T with n = e*

    def gradient(self, state, x, step, draws):
        schedule, n = state.schedule, state.kept["n"]
        t = same_t(self.t_at(step, state.steps, schedule), x)
        weight = schedule.at("ratio", t, x)
        if self.weight == "ddim" and step + 1 < state.steps:
            weight = weight - schedule.at("ratio", self.t_at(step + 1, state.steps, schedule), x)
        e_g = state.prior.predict_noise(schedule.add_noise(x, t, n), t, state.cond, self.cfg)
        if self.gamma:
            renewed = math.sqrt(1 - self.gamma) * n + math.sqrt(self.gamma) * draws.normal()
            state = state.keep(n=renewed)
        return weight * (e_g - n), t, state

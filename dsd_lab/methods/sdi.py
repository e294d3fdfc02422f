"""SDI: Score Distillation via Inversion (arXiv 2405.15891)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import at_least, choice, fraction, not_negative
from ..draws import Draws
from ..priors import check_cfg
from .base import ASSIGNED, Defaults, Evaluations, cost, first_prediction, invert, same_t
from .state import State
from .timesteps import FallingMethod

INVERSIONS = ("invert", "cached")


@dataclass(frozen=True)
class SDI(FallingMethod):
    """SDS whose noise k is the one that DDIM would have reached x with, instead of fresh noise.

        g = r_t ( e_g(alpha_t x + sigma_t k, t) - k ),    t falls linearly from t_max to t_min
        inversion="invert"   k = (x_inv - alpha x) / sigma at t + tau, where DDIM inversion of x by
                             e_i arrives
        inversion="cached"   k = the last step's e_g, at first e_g(e*, T - 1)

    The inversion starts from x as the point at t_first and takes ceil(inversion_steps t / T) steps;
    e_i is guided by inversion_cfg, negative in the paper; tau ~ U[0, tau_max). t_first: near 0 an
    exact prior of pictures is certain of the one nearest picture, so x between two is thrown from
    one to the other and stays a blend; 0.1 lets it settle.
    extra_noise: adds extra_noise sigma N(0, I) to x_inv (0.3 in the paper, for 3-D). cfg: guidance.
    t_min, t_max, tau_max, t_first: fractions of the schedule. e* enters through the start x0hat
    alone: from one common start all seeds end nearly alike. "cached" with plain steps of size 1
    (its default) assigns x rather than optimises it, and is DDIM on the levels of t.
    Source: arXiv 2405.15891, algorithm 1; "cached" follows a published 2-D variant.
    """

    t_min: float = 0.2
    t_max: float = 1.0
    inversion: str = "invert"
    tau_max: float = 1 / 30
    t_first: float = 0.0
    inversion_steps: int = 10
    inversion_cfg: float = -7.5
    extra_noise: float = 0.0

    name = "SDI"

    def __post_init__(self):
        super().__post_init__()
        choice("inversion", self.inversion, INVERSIONS)
        fraction("tau_max", self.tau_max)
        if fraction("t_first", self.t_first) > self.t_min:
            raise ValueError(f"t_first is a fraction in 0..t_min={self.t_min}, got {self.t_first}")
        check_cfg(self.inversion_cfg)
        at_least("inversion_steps", self.inversion_steps)
        not_negative("extra_noise", self.extra_noise, "0.3 (the paper's in 3-D)")

    @property
    def defaults(self):
        return ASSIGNED if self.inversion == "cached" else Defaults(start="x0hat")

    def begin(self, prior, cond, e_star, steps):
        first = first_prediction(prior, cond, e_star, self.cfg)
        return State(prior, cond, e_star, steps, {"k": first.eps, "x0": first.x0})

    def start(self, state):
        return state.kept["x0"]

    def gradient(self, state, x, step, draws):
        schedule = state.schedule
        t = same_t(self.t_at(step, state.steps, schedule), x)
        cached = self.inversion == "cached"
        k = state.kept["k"] if cached else self.inverted(state, x, step, draws)
        e_g = state.prior.predict_noise(schedule.add_noise(x, t, k), t, state.cond, self.cfg)
        g = schedule.at("ratio", t, x) * (e_g - k)
        return g, t, state.keep(k=e_g) if cached else state

    def inverted(self, state: State, x: Tensor, step: int, draws: Draws) -> Tensor:
        """k of the inversion of x: (B, *shape)."""
        schedule = state.schedule
        t = self.t_at(step, state.steps, schedule)
        tau = (draws.uniform() * self.tau_max * len(schedule)).floor().long()
        top, first = (t + tau).clamp(max=len(schedule) - 1), schedule.level(self.t_first)
        share = torch.linspace(0, 1, self.inversions(t, schedule) + 1, dtype=torch.float64)
        levels = first + (share[:, None] * (top - first)).long()

        def predict(x_t, t):
            return state.prior.predict_guided(x_t, t, state.cond, self.inversion_cfg)

        x_inv = invert(x, levels, schedule, predict)
        k = (x_inv - schedule.at("alpha", top, x) * x) / schedule.at("sigma", top, x)
        return k + self.extra_noise * draws.normal() if self.extra_noise else k

    def inversions(self, t: int, schedule) -> int:
        """How many steps the inversion takes at t."""
        if self.inversion == "cached":
            return 0
        return max(1, math.ceil(self.inversion_steps * t / len(schedule)))

    def evaluations(self, prior):
        inversions = self.inversions(self.t_at(0, 1, prior.schedule), prior.schedule)
        guided = cost(self.cfg)
        return Evaluations(begin=guided, step=guided + inversions * cost(self.inversion_cfg))

    def total_evaluations(self, prior, steps):
        inversions = sum(
            self.inversions(self.t_at(step, steps, prior.schedule), prior.schedule)
            for step in range(steps)
        )
        return (1 + steps) * cost(self.cfg) + inversions * cost(self.inversion_cfg)

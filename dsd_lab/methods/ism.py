"""ISM: Interval Score Matching (LucidDreamer, arXiv 2311.11284)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .base import AnnealedMethod, Evaluations, check_fraction, cost, invert, level


@dataclass(frozen=True)
class ISM(AnnealedMethod):
    """Invert x without a prompt to s, go one step on to t, compare the predictions at the two ends
    of that step.

        x_s = inversion of x by e_u, in jumps of `jump`;    x_t = alpha_t x0hat_u(x_s, s) + sigma_t e_u(x_s, s)
        g = 0.1 r_t ( e_g(x_t, t) - e_u(x_s, s) ),    t ~ U{t_min..t_max},    s = t - interval

    cfg: guidance of the first term. t_min, t_max: the range of t as fractions of the schedule, each
    (at the beginning, at the end) and linear between. interval, jump: fractions of the schedule; s
    is 0 at the least. x is taken as the point at t = 0, and a batch jumps as often as its highest
    possible t needs.
    Source: arXiv 2311.11284, eq. 14 to 17; the factor 0.1 r_t follows the published implementation.
    """

    interval: float = 0.05
    jump: float = 0.2

    name = "ISM"

    def __post_init__(self):
        super().__post_init__()
        check_fraction("interval", self.interval)
        check_fraction("jump", self.jump)
        if self.jump < 0.001:
            raise ValueError(f"jump must be at least 0.001, one timestep of 1000, got {self.jump}")

    def jumps(self, step: int, steps: int, schedule) -> int:
        """How many jumps the highest t of a step needs."""
        highest = self.range_at(step, steps, schedule)[1] - level(self.interval, schedule)
        return math.ceil(max(highest, 0) / level(self.jump, schedule))

    def gradient(self, state, x, step, draws):
        schedule, prior, cond = state.schedule, state.prior, state.cond

        def empty(x_t, t):
            return prior.predict(x_t, t, cond, ("uncond",))["uncond"]

        t = draws.timesteps(*self.range_at(step, state.steps, schedule))
        s = (t - level(self.interval, schedule)).clamp(min=0)
        jumps = torch.arange(self.jumps(step, state.steps, schedule) + 1)
        x_s = invert(x, (jumps[:, None] * level(self.jump, schedule)).minimum(s), schedule, empty)
        at_s = empty(x_s, s)
        e_g = prior.predict_noise(schedule.add_noise(at_s.x0, t, at_s.eps), t, cond, self.cfg)
        return 0.1 * schedule.at("ratio", t, x) * (e_g - at_s.eps), t

    def evaluations(self, prior):
        return Evaluations(begin=0, step=self.jumps(0, 1, prior.schedule) + 1 + cost(self.cfg))

    def total_evaluations(self, prior, steps):
        return sum(
            self.jumps(step, steps, prior.schedule) + 1 + cost(self.cfg) for step in range(steps)
        )

"""ISM: Interval Score Matching (LucidDreamer, arXiv 2311.11284)."""

import math
from dataclasses import dataclass

import torch

from ..checks import fraction
from .base import Evaluations, cost, invert
from .timesteps import AnnealedMethod


@dataclass(frozen=True)
class ISM(AnnealedMethod):
    """Invert x without a prompt to s, go one step on to t, compare the predictions at the two ends
    of that step.

        x_s = inversion of x by e_u, in jumps of `jump`
        x_t = alpha_t x0hat_u(x_s, s) + sigma_t e_u(x_s, s)
        g = 0.1 r_t ( e_g(x_t, t) - e_u(x_s, s) ),    t ~ U{t_min..t_max},    s = t - interval

    cfg: guidance of the first term. t_min, t_max: the range of t as fractions of the schedule, each
    (at the beginning, at the end) and linear between. interval, jump: fractions of the schedule; s
    is 0 at the least, a jump one timestep. x is taken as the point at t = 0, and a batch jumps as
    often as its highest possible t needs.
    Source: arXiv 2311.11284, eq. 14 to 17; the factor 0.1 r_t follows the published implementation.
    """

    interval: float = 0.05
    jump: float = 0.2

    name = "ISM"

    def __post_init__(self):
        super().__post_init__()
        fraction("interval", self.interval)
        if fraction("jump", self.jump) == 0:
            raise ValueError("jump must be above 0 (0.2 is the default)")

    def jump_length(self, schedule) -> int:
        """Timesteps of a jump."""
        return max(1, schedule.reach(self.jump))

    def jumps(self, step: int, steps: int, schedule) -> int:
        """How many jumps the highest t of a step needs."""
        highest = self.range_at(step, steps, schedule)[1] - schedule.reach(self.interval)
        return math.ceil(max(highest, 0) / self.jump_length(schedule))

    def gradient(self, state, x, step, draws):
        schedule, prior, cond = state.schedule, state.prior, state.cond

        def predict_empty(x_t, t):
            return prior.predict(x_t, t, cond, ("uncond",))["uncond"]

        t = self.draw_t(state, step, draws)
        s = (t - schedule.reach(self.interval)).clamp(min=0)
        jumps = torch.arange(self.jumps(step, state.steps, schedule) + 1)
        levels = (jumps[:, None] * self.jump_length(schedule)).minimum(s)
        x_s = invert(x, levels, schedule, predict_empty)
        at_s = predict_empty(x_s, s)
        x_t = schedule.add_noise(at_s.x0, t, at_s.eps)
        e_g, e_u = prior.predict_noise(x_t, t, cond, self.cfg), at_s.eps
        return 0.1 * schedule.at("ratio", t, x) * (e_g - e_u), t, state

    def evaluations(self, prior):
        return Evaluations(begin=0, step=self.jumps(0, 1, prior.schedule) + 1 + cost(self.cfg))

    def total_evaluations(self, prior, steps):
        jumps = sum(self.jumps(step, steps, prior.schedule) for step in range(steps))
        return jumps + steps * (1 + cost(self.cfg))

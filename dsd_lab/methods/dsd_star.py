"""DSD*: Diverse Score Distillation when x can follow the path exactly (arXiv 2412.06780)."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Defaults, Evaluations, Method, State, cost, same_t


@dataclass(frozen=True)
class DSDStar(Method):
    """DDIM rewritten as descent on x: its change of variables is x = x0hat(x_t, t).

        x <- x - r_s [ e_g(alpha_s x + sigma_s n, s) - n ],   n <- that prediction,   s = the next level after t

    begun at x = x0hat(e*, T - 1) and n = e_g(e*, T - 1). Since alpha_s x + sigma_s n is DDIM's own
    x_s, `steps` steps give DDIM's result with the same number of steps, to rounding. For pictures,
    not for scenes.
    Source: arXiv 2412.06780, section 4.1.
    """

    name = "DSD*"

    @property
    def defaults(self):
        return Defaults(start="x0hat", optimizer="plain", lr=1.0)

    def begin(self, prior, cond, e_star, steps):
        prior.schedule.timesteps(
            steps
        )  # as many levels as DDIM would take: refuses too many steps here
        first = prior.predict_guided(e_star, len(prior.schedule) - 1, cond, self.cfg)
        return State(prior, cond, e_star, steps, n=first.eps, x0=first.x0)

    def start(self, state):
        return state.kept["x0"]

    def gradient(self, state, x, step, draws):
        schedule, n = state.schedule, state.kept["n"]
        s = same_t(schedule.timesteps(state.steps)[step + 1].item(), x)
        e_g = state.prior.predict_noise(schedule.add_noise(x, s, n), s, state.cond, self.cfg)
        state.kept["n"] = e_g
        return schedule.at("ratio", s, x) * (e_g - n), s

    def evaluations(self, prior):
        return Evaluations(begin=cost(self.cfg), step=cost(self.cfg))

"""DSD*: Diverse Score Distillation when x can follow the path exactly (arXiv 2412.06780)."""

from dataclasses import dataclass

from .base import ASSIGNED, Evaluations, Method, cost, first_prediction, same_t
from .state import State


@dataclass(frozen=True)
class DSDStar(Method):
    """DDIM rewritten as descent on x: its change of variables is x = x0hat(x_t, t).

        x <- x - r_s [ e_g(alpha_s x + sigma_s n, s) - n ],    s = the next level after t
        n <- that prediction

    begun at x = x0hat(e*, T - 1) and n = e_g(e*, T - 1). Since alpha_s x + sigma_s n is DDIM's own
    x_s, `steps` steps give DDIM's result with the same number of steps, to rounding. For pictures,
    not for scenes.
    Source: arXiv 2412.06780, section 4.1.
    """

    name = "DSD*"
    for_scenes = False
    takes_ddim_steps = True

    @property
    def defaults(self):
        return ASSIGNED

    def begin(self, prior, cond, e_star, steps):
        prior.schedule.timesteps(steps)  # DDIM's levels: refuses more steps than there are
        first = first_prediction(prior, cond, e_star, self.cfg)
        return State(prior, cond, e_star, steps, {"n": first.eps, "x0": first.x0})

    def start(self, state):
        return state.kept["x0"]

    def gradient(self, state, x, step, draws):
        schedule, n = state.schedule, state.kept["n"]
        s = same_t(int(schedule.timesteps(state.steps)[step + 1]), x)
        e_g = state.prior.predict_noise(schedule.add_noise(x, s, n), s, state.cond, self.cfg)
        return schedule.at("ratio", s, x) * (e_g - n), s, state.keep(n=e_g)

    def evaluations(self, prior):
        return Evaluations(begin=cost(self.cfg, prior), step=cost(self.cfg, prior))

"""CSD: Classifier Score Distillation (arXiv 2310.19415)."""

from dataclasses import dataclass

from .base import Evaluations
from .timesteps import UniformMethod


@dataclass(frozen=True)
class CSD(UniformMethod):
    """Descend the guidance alone: what tells the condition from everything.

        g = sigma_t^2 cfg ( e_c(x_t, t) - e_u(x_t, t) ) = sigma_t^2 ( e_g(x_t, t) - e_u(x_t, t) )
        x_t = alpha_t x + sigma_t n,    n ~ N(0, I),    t ~ U{t_min..t_max}

    cfg: guidance; in this method only a factor, which the paper leaves out and Adam does not see.
    t_min, t_max: the range of t as fractions of the schedule. A negative prompt's prediction stands
    in e_u's place.
    Source: arXiv 2310.19415, with w(t) = sigma_t^2.
    """

    name = "CSD"

    def gradient(self, state, x, step, draws):
        t, _, x_t = self.draw_point(state, x, step, draws)
        base = state.cond.base
        terms = state.prior.predict(x_t, t, state.cond, (base, "cond"))
        e_u, e_c = terms[base].eps, terms["cond"].eps
        return state.schedule.at("sigma", t, x) ** 2 * self.cfg * (e_c - e_u), t, state

    def evaluations(self, prior):
        return Evaluations(begin=0, step=prior.cost(("uncond", "cond")))

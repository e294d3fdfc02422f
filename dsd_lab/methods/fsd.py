"""FSD: Flow Score Distillation (arXiv 2405.10988)."""

from dataclasses import dataclass

from .base import same_t
from .timesteps import FallingMethod


@dataclass(frozen=True)
class FSD(FallingMethod):
    """SDS whose noise is the seed's e* at every step.

        g = sigma_t^2 ( e_g(alpha_t x + sigma_t n, t) - n ),    n = e*
        t falls linearly from t_max to t_min

    cfg: guidance. t_min, t_max: the range of t as fractions of the schedule. In 3-D all views have
    the same e*; the paper's views crop theirs from one noise map of the world, which is not built.
    Source: arXiv 2405.10988, with w(t) = sigma_t^2.
    """

    name = "FSD"

    def gradient(self, state, x, step, draws):
        schedule, n = state.schedule, state.e_star
        t = same_t(self.t_at(step, state.steps, schedule), x)
        e_g = state.prior.predict_noise(schedule.add_noise(x, t, n), t, state.cond, self.cfg)
        return schedule.at("sigma", t, x) ** 2 * (e_g - n), t, state

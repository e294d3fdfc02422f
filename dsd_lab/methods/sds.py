"""SDS: Score Distillation Sampling (DreamFusion, arXiv 2209.14988)."""

from dataclasses import dataclass

from .timesteps import UniformMethod


@dataclass(frozen=True)
class SDS(UniformMethod):
    """Add fresh noise n, ask for it back, descend the difference.

        g = sigma_t^2 ( e_g(x_t, t) - n )
        x_t = alpha_t x + sigma_t n,    n ~ N(0, I),    t ~ U{t_min..t_max}

    cfg: guidance. t_min, t_max: the range of t as fractions of the schedule.
    Averaged over n, this is the gradient of a KL divergence to the noisy data: it seeks modes.
    Source: arXiv 2209.14988, eq. 3 with w(t) = sigma_t^2.
    """

    name = "SDS"

    def gradient(self, state, x, step, draws):
        t, n, x_t = self.draw_point(state, x, step, draws)
        e_g = state.prior.predict_noise(x_t, t, state.cond, self.cfg)
        return state.schedule.at("sigma", t, x) ** 2 * (e_g - n), t, state

"""ASD: Asynchronous Score Distillation (ScaleDreamer, arXiv 2407.02040)."""

from dataclasses import dataclass

from ..checks import fraction
from .base import Evaluations, cost, guided_noises
from .timesteps import AnnealedMethod, at_ratio, check_rho, noisier, unit_gain


@dataclass(frozen=True)
class ASD(AnnealedMethod):
    """Compare two predictions of the same fresh noise n, the second plain and at a noisier t' >= t.

        g = sigma_t^2 ( e_g(alpha_t x + sigma_t n, t) - e_c(alpha_t' x + sigma_t' n, t') )
        n ~ N(0, I),    t ~ U{t_min..t_max}
        t' = t + floor( U[0,1) min(shift (t - t_min), T - 1 - t) )
        rho given (ours): t' with r_t' = r_t / rho and r_t / (1 - rho) in the place of sigma_t^2

    cfg: guidance of the first term; the second has none. t_min, t_max: the range of t as fractions
    of the schedule, each (at the beginning, at the end) and linear between. shift: t' - t at the
    most, as a fraction of t - t_min. rho: in (0, 1), unit gain as in `DSD(form="unit")`. With shift
    0 it is (cfg - 1) / cfg times CSD. Not Adversarial Score Distillation (arXiv 2312.00739).
    Source: arXiv 2407.02040 with w(t) = sigma_t^2; t' follows the published implementation.
    """

    t_min: tuple[float, float] = (0.5, 0.02)
    t_max: tuple[float, float] = (0.98, 0.5)
    shift: float = 0.1
    rho: float | None = None

    name = "ASD"

    def __post_init__(self):
        super().__post_init__()
        fraction("shift", self.shift)
        if self.rho is not None:
            check_rho(self.rho)

    def gradient(self, state, x, step, draws):
        schedule = state.schedule
        lowest, _ = self.range_at(step, state.steps, schedule)
        t = self.draw_t(state, step, draws)
        if self.rho is None:
            t_prime = noisier(t, lowest, self.shift, draws.uniform(), schedule)
            weight = schedule.at("sigma", t, x) ** 2
        else:
            t_prime = at_ratio(t, self.rho, schedule)
            weight = unit_gain(t, t_prime, self.rho, schedule, x)
        n = draws.normal()
        x_t, x_t_prime = schedule.add_noise(x, t, n), schedule.add_noise(x, t_prime, n)
        e_g, e_c = guided_noises(state, (x_t, t, self.cfg), (x_t_prime, t_prime, 1.0))
        return weight * (e_g - e_c), t, state

    def evaluations(self, prior):
        return Evaluations(begin=0, step=cost(self.cfg, prior) + cost(1, prior))

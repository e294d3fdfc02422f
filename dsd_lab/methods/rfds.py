"""RFDS and RFDS-Rev: Rectified Flow Distillation Sampling (arXiv 2406.03293)."""

from dataclasses import dataclass

from ..checks import at_least, choice
from .base import Evaluations, cost
from .timesteps import UniformMethod

WEIGHTS = ("flow", "sigma2", "ratio")


@dataclass(frozen=True)
class RFDS(UniformMethod):
    """SDS with a flow's weight; with rounds, on noise that the prior's own flow leads back to.

        g = w ( e_g(alpha_t x + sigma_t n, t) - n ),    t ~ U{t_min..t_max}
        n ~ N(0, I), then `rounds` times  n <- e_c(alpha_t x + sigma_t n, t)
        weight="flow"     w = 1 + r_t = (alpha_t + sigma_t) / alpha_t    the paper's, 1 / (1 - time)
        weight="sigma2"   w = sigma_t^2      SDS's;    weight="ratio"   w = r_t

    rounds: 0 is RFDS, 1 is RFDS-Rev. cfg: guidance of the last prediction; those that n comes from
    have none. t_min, t_max: the range of t as fractions of the schedule. Without rounds and with
    weight "sigma2" it is SDS.
    Source: arXiv 2406.03293, in the notation of a variance-preserving diffusion.
    """

    rounds: int = 0
    weight: str = "flow"

    name = "RFDS"

    def __post_init__(self):
        super().__post_init__()
        at_least("rounds", self.rounds, 0)
        choice("weight", self.weight, WEIGHTS)

    def gradient(self, state, x, step, draws):
        prior, schedule = state.prior, state.schedule
        t, n, x_t = self.draw_point(state, x, step, draws)
        for _ in range(self.rounds):
            n = prior.predict_noise(x_t, t, state.cond)
            x_t = schedule.add_noise(x, t, n)
        e_g, ratio = prior.predict_noise(x_t, t, state.cond, self.cfg), schedule.at("ratio", t, x)
        sigma = schedule.at("sigma", t, x)
        w = {"flow": 1 + ratio, "sigma2": sigma**2, "ratio": ratio}[self.weight]
        return w * (e_g - n), t, state

    def evaluations(self, prior):
        return Evaluations(begin=0, step=self.rounds * cost(1, prior) + cost(self.cfg, prior))

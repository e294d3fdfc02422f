"""NFSD: Noise-Free Score Distillation (arXiv 2310.17590)."""

from dataclasses import dataclass

import torch

from ..checks import fraction
from .base import Evaluations
from .timesteps import UniformMethod


@dataclass(frozen=True)
class NFSD(UniformMethod):
    """SDS without the part of the prediction that is only noise.

        g = sigma_t^2 ( d + cfg (e_c - e_u) ),    d = e_u if t < small, else e_u - e_n
        all at x_t = alpha_t x + sigma_t n,    n ~ N(0, I),    t ~ U{t_min..t_max}

    e_n, the prediction for bad pictures, is that of the negative prompt; without one it is the
    prior's term "degraded" (an exact prior of pictures: its pictures blurred by 3 pixels; a
    mixture: its components twice as wide), which a prior of text does not have. cfg: guidance.
    small: below it x_t holds too little noise for e_u to need e_n.
    t_min, t_max, small: fractions of the schedule. Source: arXiv 2310.17590, eq. 8 to 10, with w(t)
    = sigma_t^2.
    """

    small: float = 0.2

    name = "NFSD"

    def __post_init__(self):
        super().__post_init__()
        fraction("small", self.small)

    def gradient(self, state, x, step, draws):
        bad = "negative" if state.cond.negative else "degraded"
        t, _, x_t = self.draw_point(state, x, step, draws)
        terms = state.prior.predict(x_t, t, state.cond, ("uncond", "cond", bad))
        e_u, e_c, e_n = (terms[term].eps for term in ("uncond", "cond", bad))
        low = (t < state.schedule.level(self.small)).to(x.device)
        d = torch.where(low.reshape(-1, *(1,) * (x.ndim - 1)), e_u, e_u - e_n)
        return state.schedule.at("sigma", t, x) ** 2 * (d + self.cfg * (e_c - e_u)), t, state

    def evaluations(self, prior):
        return Evaluations(begin=0, step=3)

"""PDS: Posterior Distillation Sampling, editing one picture into another (arXiv 2311.13831)."""

from dataclasses import dataclass

from torch import Tensor

from ..checks import at_least, choice
from .dds import DDS

BETAS = ("step", "jump")


@dataclass(frozen=True)
class PDS(DDS):
    """Match the noise z that would make the picture's next point with the source's.

        g = z - z_src,    z = (x_p - mu) / s,    x_p = alpha_p x + sigma_p m,    p = t - stride
        mu = alpha_p beta / sigma_t^2 x0hat + sqrt(1 - beta) sigma_p^2 / sigma_t^2 x_t
        s^2 = beta sigma_p^2 / sigma_t^2,    x0hat = (x_t - sigma_t e_g(x_t, t)) / alpha_t

    n of x_t, m and t are the same for the picture and the source. beta="step" takes the schedule's
    own beta_t, also where the stride is not 1, as the published code does; "jump" (ours) takes that
    of the stride, 1 - (alpha_t / alpha_p)^2: then, or with stride 1, x drops out and it is DDS with
    weight sqrt(beta / (1 - beta)) / sigma_p. Other settings as for DDS.
    Source: arXiv 2311.13831, eq. 9; stride 2 is the published code's.
    """

    stride: int = 2
    beta: str = "step"

    name = "PDS"

    def __post_init__(self):
        super().__post_init__()
        at_least("stride", self.stride)
        choice("beta", self.beta, BETAS)

    def gradient(self, state, x, step, draws):
        t, n, x_t = self.draw_point(state, x, step, draws)
        m, source, schedule = draws.normal(), state.kept["source"], state.schedule
        source_t = schedule.add_noise(source, t, n)
        e_x, e_source = self.predictions(state, x_t, source_t, t)
        p = (t - self.stride).clamp(min=0)
        z, z_source = (
            self.z(schedule, t, p, schedule.add_noise(clean, p, m), noisy, e)
            for clean, noisy, e in ((x, x_t, e_x), (source, source_t, e_source))
        )
        return z - z_source, t, state

    def z(self, schedule, t: Tensor, p: Tensor, x_p: Tensor, x_t: Tensor, e: Tensor) -> Tensor:
        """The noise with which the posterior of x_p is met: like x_t."""
        a, s = schedule.at("alpha", t, x_t), schedule.at("sigma", t, x_t)
        a_p, s_p = schedule.at("alpha", p, x_t), schedule.at("sigma", p, x_t)
        before = schedule.at("alpha", (t - 1 if self.beta == "step" else p).clamp(min=0), x_t)
        beta = 1 - (a / before) ** 2
        x0 = (x_t - s * e) / a
        mu = a_p * beta / s**2 * x0 + (1 - beta).sqrt() * s_p**2 / s**2 * x_t
        return (x_p - mu) * s / (beta.sqrt() * s_p)

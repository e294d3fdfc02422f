"""Hidden questions on points in the plane: small mixtures, and a noisy point of each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...draws import generator_of
from ...priors import Condition, GaussianMixture
from ...schedule import NoiseSchedule

DTYPE = torch.float64


@dataclass(frozen=True)
class Plane:
    """A mixture of Gaussians of two labels in the plane, drawn from a seed, and what a question on
    it is asked with: points x and noise n, (4, 2), and the levels t' > t.
    """

    prior: GaussianMixture
    cond: Condition
    x: Tensor
    n: Tensor
    e_star: Tensor
    t: int
    t_prime: int
    cfg: float

    @classmethod
    def of(cls, seed: int, schedule: NoiseSchedule | None = None) -> "Plane":
        g = generator_of("exercise", seed)
        means = torch.randn(5, 2, generator=g).tolist()
        labels = {"asked for": means[:3], "other": means[3:]}
        prior = GaussianMixture(labels, width=0.4, schedule=schedule)
        x, n, e_star = torch.randn(3, 4, 2, generator=g, dtype=DTYPE)
        t = int(torch.randint(200, 800, (), generator=g))
        cfg = 2 + 4 * float(torch.rand((), generator=g))
        return cls(prior, prior.condition("asked for"), x, n, e_star, t, t + 100, cfg)

    def epsilon(self, x_t: Tensor, t: int) -> Tensor:
        """The conditional prediction of the noise, (B, 2)."""
        return self.prior.predict_noise(x_t, t, self.cond, 1.0)

    def predict(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The predictions without and with the prompt, each (B, 2)."""
        return self.prior.predict_noise(x_t, t, self.cond, 0.0), self.epsilon(x_t, t)


class Given:
    """Draws that are given instead of drawn."""

    def __init__(self, t: int, n: Tensor):
        self.t, self.n = t, n

    def timesteps(self, low: int, high: int) -> Tensor:
        return torch.full((len(self.n),), self.t)

    def normal(self) -> Tensor:
        return self.n

    def uniform(self) -> Tensor:
        return torch.zeros(len(self.n), dtype=DTYPE)


# ---- mistakes of guidance that several exercises know ----


def one_too_many(e_u: Tensor, e_c: Tensor, cfg: float) -> Tensor:
    """Guidance one too strong: from e_c instead of e_u."""
    return e_c + cfg * (e_c - e_u)


def conditional(e_u: Tensor, e_c: Tensor, cfg: float) -> Tensor:
    """No guidance: the prediction with the prompt alone."""
    return e_c

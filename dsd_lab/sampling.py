"""DDIM: the probability-flow ODE from noise to picture and back, and the path it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .priors import Condition, Prediction, Prior
from .shapes import Batch
from .threads import one_thread


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A kept DDIM path: K levels, noisiest first for `ddim`; t (K,) int64; x_t, eps, x0 (K, B,
    *shape).

    `eps` and `x0` are the guided predictions at (x_t, t), also at the last level.
    """

    t: Tensor
    x_t: Tensor
    eps: Tensor
    x0: Tensor
    prior: Prior = field(repr=False)

    @property
    def final(self) -> Tensor:
        """The clean result: the last level's x0-prediction (a picture at t = 0 still carries
        noise), (B, *shape).
        """
        return self.x0[-1]

    @property
    def images(self) -> Tensor:
        """`final` as pictures (B, 3, H, W) in [0, 1]."""
        with one_thread(self.prior.unet):
            return self.prior.decode(self.final)

    def select(self, items: Tensor) -> Trajectory:
        """The paths of some items of the batch, int64 (n,)."""
        return replace(self, x_t=self.x_t[:, items], eps=self.eps[:, items], x0=self.x0[:, items])

    def node(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The last kept level at or above t, and the item: two int64 indices shaped like t, (...,
        B).
        """
        if bool((t > self.t[0]).any()):
            raise ValueError(f"the path begins at t = {self.t[0]}; asked for t = {t.max()}")
        falling = self.t.reshape(-1, *(1,) * t.ndim)
        return (falling >= t).sum(0) - 1, torch.arange(t.shape[-1]).expand(t.shape)

    def point(self, t: Tensor) -> Tensor:
        """x_t anywhere on the path: one DDIM step from the last kept level at or above t, no
        network call.

        t: int64 (..., B), none above the first level; returns (..., B, *shape).
        """
        node = self.node(t)
        x_t = self.prior.schedule.add_noise(
            self.x0[node].flatten(0, -self.x0.ndim + 1),
            t.flatten(),
            self.eps[node].flatten(0, -self.eps.ndim + 1),
        )
        return x_t.reshape(*t.shape, *self.x0.shape[2:])


def check_levels(levels: Sequence[int] | Tensor, prior: Prior, falling: bool) -> Tensor:
    """`levels` as int64 (K,). Raises ValueError unless they are strictly monotone timesteps of the
    prior.
    """
    t = prior.schedule.check(torch.as_tensor(levels)).reshape(-1)
    steps = t.diff() * (-1 if falling else 1)
    if len(t) < 1 or bool((steps <= 0).any()):
        raise ValueError(
            f"levels must be strictly {'falling' if falling else 'rising'} timesteps, "
            f"got {t.tolist()}"
        )
    return t


def ddim(
    prior: Prior,
    noise: Batch,
    cond: Condition,
    steps: int = 50,
    cfg: float = 7.5,
    levels: Sequence[int] | None = None,
) -> Trajectory:
    """Follow the probability-flow ODE from noise to a clean picture by DDIM with eta = 0.

        x_s = alpha_s x0hat(x_t, t) + sigma_s e_g(x_t, t)    for each next level s < t

    noise: (B, *shape) at the first level. levels: any falling timesteps in place of
    int(linspace(999, 0, steps + 1)).
    Raises ValueError for bad steps, levels or shapes. Source: arXiv 2010.02502, eq. 12.
    """
    falling = prior.schedule.timesteps(steps) if levels is None else levels
    return _follow(prior, noise, cond, cfg, check_levels(falling, prior, falling=True))


def ddim_invert(
    prior: Prior,
    x: Batch,
    cond: Condition,
    steps: int = 50,
    cfg: float = 1.0,
    levels: Sequence[int] | None = None,
) -> Trajectory:
    """Follow the same ODE upwards: from x at the lowest level to the noise that leads to it.

    x: (B, *shape), taken as the point at levels[0] (t = 0 by default). The noise found is
    `x_t[-1]`. The prediction at the lower level stands for the whole step, so a round trip's error
    halves when steps double.
    Source: arXiv 2010.02502, section 4.3.
    """
    rising = prior.schedule.timesteps(steps).flip(0) if levels is None else levels
    return _follow(prior, x, cond, cfg, check_levels(rising, prior, falling=False))


def check_finite(prediction: Prediction, step: int, t: Tensor) -> None:
    """Raises ValueError for a prediction of a path that is not finite, in noise or picture."""
    good = torch.stack([p.isfinite().flatten(1).all(1) for p in (prediction.eps, prediction.x0)])
    if not bool(good.all()):
        bad = (~good.all(0)).nonzero()[:, 0].tolist()
        raise ValueError(
            f"the prediction is not finite at step {step} of the path, t = {int(t)}, items {bad}; "
            "lower cfg, check the noise given, or give a network in half precision "
            "dtype=torch.float32"
        )


@torch.no_grad()
def _follow(prior: Prior, x_t: Batch, cond: Condition, cfg: float, levels: Tensor) -> Trajectory:
    points, predictions = [], []
    with one_thread(prior.unet):
        for t in levels:
            if predictions:
                x_t = prior.schedule.add_noise(predictions[-1].x0, t, predictions[-1].eps)
            points.append(x_t)
            predictions.append(prior.predict_guided(x_t, t, cond, cfg))
            check_finite(predictions[-1], len(points), t)
    eps, x0 = torch.stack([p.eps for p in predictions]), torch.stack([p.x0 for p in predictions])
    return Trajectory(levels, torch.stack(points), eps, x0, prior)

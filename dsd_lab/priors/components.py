"""Weighted Gaussians, and the posterior mean under them: the closed form behind the exact priors.

For x0 ~ sum_i w_i N(y_i, h_i^2 I), the noisy x_t = a x0 + s eps has components N(a y_i, v_i I), v_i
= s^2 + a^2 h_i^2, so the posterior over components and the mean of x0 under it are

    p_i = softmax_i( log w_i - |x_t - a y_i|^2 / (2 v_i) - D/2 log v_i )
    E[x0 | x_t] = sum_i p_i ( (s^2 y_i + a h_i^2 x_t) / v_i )

A finite set of pictures is the case h = 0: a softmax-weighted mean of the pictures. No training,
and the truth is known.
Source: EDM (arXiv 2206.00364), appendix B.3, for h = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from ..schedule import NoiseSchedule
from .device import Casts


class Components:
    """N isotropic Gaussians in D dimensions.

    means (N, D), float64, or float32 where a bank of views would not fit twice; width () or (N,):
    standard deviations, 0 for points; log_weight (N,), even unless given; all on the CPU, from
    where they are cast to what x is. worse: makes the components of the term "degraded".
    """

    def __init__(
        self,
        means: Tensor,
        width: Tensor | None = None,
        log_weight: Tensor | None = None,
        worse: Callable[[], Components] | None = None,
    ):
        self.means = means
        self.width = (torch.tensor(0.0) if width is None else width).double()
        even = torch.full((len(means),), -math.log(len(means)))
        self.log_weight = (even if log_weight is None else log_weight).double()
        half_norm = means.square().sum(1) / 2
        self._casts = Casts(means, half_norm, self.width, self.log_weight)
        self._worse = worse

    def __len__(self) -> int:
        return len(self.means)

    @cached_property
    def degraded(self) -> Components:
        """Everything made worse: what a text prior is told to avoid, "blurry, low quality"."""
        return self._worse()

    def logits(self, x: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """log(w_i p(x_t | i)) of x (M, D) up to what all components share: (M, N)."""
        means, half_norm, width, log_weight = self._casts.like(x)
        a, s = schedule.at("alpha", t, x), schedule.at("sigma", t, x)
        v = s**2 + (a * width) ** 2
        # means first: BLAS is a third faster so than with x @ means.T, for the same numbers
        logits = (a * (means @ x.T).T - a**2 * half_norm) / v + log_weight
        return logits - self.shared(x, t, schedule) if width.ndim else logits

    def shared(self, x: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The rest of -log p(x_t | i), which components of one width share: (M, 1) or (M, N)."""
        width = self._casts.like(x)[2]
        a, s = schedule.at("alpha", t, x), schedule.at("sigma", t, x)
        v = s**2 + (a * width) ** 2
        return (x.square().sum(1, keepdim=True) / v + x.shape[1] * torch.log(2 * torch.pi * v)) / 2

    def log_probs(self, x: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """log(w_i p(x_t | i)) of x (M, D): (M, N)."""
        logits = self.logits(x, t, schedule)
        return logits if self.width.ndim else logits - self.shared(x, t, schedule)

    def posterior_mean(
        self,
        x: Tensor,
        t: Tensor,
        logits: Tensor,
        schedule: NoiseSchedule,
        chosen: tuple[Tensor, Tensor | None] | None = None,
    ) -> Tensor:
        """E[x0 | x_t] of x (M, D): (M, D).

        chosen: the components that count, int64 (n,), and what is added to their logits, (1 or M,
        n), if anything; None is all as they are.
        """
        means, _, width, _ = self._casts.like(x)
        if chosen is not None:
            columns, given = chosen
            if len(columns) < len(self):
                columns = columns.to(x.device)
                logits, means = logits[:, columns], means[columns]
                width = width[columns] if width.ndim else width
            if given is not None:
                logits = logits + given.to(logits)
        p = logits.softmax(1)
        if not width.any():
            # at low noise few pictures weigh more than rounding: the others need not be multiplied
            weighty = (p > 1e-3 * torch.finfo(p.dtype).eps).any(0).nonzero()[:, 0]
            return p[:, weighty] @ means[weighty] if 2 * len(weighty) < len(means) else p @ means
        a, s = schedule.at("alpha", t, x), schedule.at("sigma", t, x)
        v = s**2 + (a * width) ** 2
        return (p * s**2 / v) @ means + (p * a * width**2 / v).sum(1, keepdim=True) * x

"""Gradients through half precision, which holds no number below 6e-8 or above 65504."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, function):
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = function(ctx.x)
        return ctx.y.detach()

    @staticmethod
    def backward(ctx, gradient):
        largest = gradient.abs().max().clamp(min=torch.finfo(gradient.dtype).tiny)
        scale = torch.exp2(-largest.log2().floor())
        (found,) = torch.autograd.grad(ctx.y, ctx.x, gradient * scale)
        return found / scale, None


def gone_through(function: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """`function(x)`, from float32 to float32 by way of `dtype`. Through float16 the gradient is
    scaled on its way back: it enters with a largest value of 1 to 2, by a power of two, which is
    taken off where it leaves. So it neither vanishes nor overflows, however large the loss is.
    """
    scaled = dtype == torch.float16 and x.requires_grad
    return _Scaled.apply(x, function) if scaled else function(x)

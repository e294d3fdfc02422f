"""Ways back through a function: worked out again to spare memory, scaled through half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class _Through(torch.autograd.Function):
    """torch.utils.checkpoint does the first half of this; not every device can stop it midway."""

    @staticmethod
    def forward(ctx, function, again, scaled, x, *parameters):
        ctx.function, ctx.scaled, ctx.y = function, scaled, None
        ctx.save_for_backward(x, *parameters)
        with torch.set_grad_enabled(not again):
            ctx.x = None if again else x.detach().requires_grad_(x.requires_grad)
            y = function(x if again else ctx.x)
        ctx.y = None if again else y
        return y.detach()

    @staticmethod
    def backward(ctx, gradient):
        x, *parameters = ctx.saved_tensors
        if ctx.y is None:
            with torch.enable_grad():
                ctx.x = x.detach().requires_grad_(x.requires_grad)
                ctx.y = ctx.function(ctx.x)
        scale = 1.0
        if ctx.scaled:
            largest = gradient.abs().max().clamp(min=torch.finfo(gradient.dtype).tiny)
            scale = torch.exp2(-largest.log2().floor())
        inputs = [value for value in (ctx.x, *parameters) if value.requires_grad]
        found = iter(torch.autograd.grad(ctx.y, inputs, gradient * scale))
        slopes = [next(found) / scale if v.requires_grad else None for v in (ctx.x, *parameters)]
        ctx.x = ctx.y = None
        return None, None, None, *slopes


def through(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    parameters: Sequence[Tensor] = (),
    again: bool = False,
    scaled: bool = False,
) -> Tensor:
    """`function(x)`, with the gradient in x and in the parameters that the function has.

    again: keep nothing on the way, and work the function out once more for the gradient. scaled:
    the gradient enters with a largest value of 1 to 2, by a power of two that is taken off where it
    leaves, so that in half precision, which holds 6e-8 to 65504, it neither vanishes nor overflows.
    """
    if not (again or scaled) or not torch.is_grad_enabled():
        return function(x)
    return _Through.apply(function, again, scaled, x, *parameters)

"""e_phi as the prior's own network with a low-rank adapter (LoRA, arXiv 2106.09685)."""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...priors import Query
from .network import TrainedState, adam_for

PROJECTIONS = (".to_q", ".to_k", ".to_v", ".to_out.0")  # of diffusers' attention


class LoRA:
    """An adapter of a network's attention: W becomes W + B A for its projections W while it is on.

    The network itself stays as it is: nothing is put into it, and nothing has to be taken out.
    weights: float32, "<layer>.A" (rank, inputs), from U(+-1 / sqrt(inputs)) of a fixed seed, and
    "<layer>.B" (outputs, rank), zero. Raises ValueError for a network without such projections.
    """

    def __init__(self, network: nn.Module, rank: int):
        self.layers = {
            name: layer for name, layer in network.named_modules() if name.endswith(PROJECTIONS)
        }
        if not self.layers:
            raise ValueError(
                f"{type(network).__name__} has no attention with projections "
                f"{', '.join(PROJECTIONS)} for an adapter"
            )
        self.weights: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(0)
        for name, layer in self.layers.items():
            inputs, outputs, device = layer.in_features, layer.out_features, layer.weight.device
            a = (2 * torch.rand(rank, inputs, generator=generator) - 1) / math.sqrt(inputs)
            self.weights[f"{name}.A"] = a.to(device).requires_grad_()
            self.weights[f"{name}.B"] = torch.zeros(outputs, rank, device=device).requires_grad_()

    @contextmanager
    def on(self):
        """The network with the adapter, as long as the context lasts."""
        hooks = [
            layer.register_forward_hook(self._adding(name)) for name, layer in self.layers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _adding(self, name: str):
        a, b = self.weights[f"{name}.A"], self.weights[f"{name}.B"]

        def add(layer, inputs, output):
            return (output + F.linear(F.linear(inputs[0].to(a.dtype), a), b)).to(output.dtype)

        return add


@dataclass(frozen=True, eq=False, kw_only=True)
class LoRAState(TrainedState):
    """A VSD run with an adapter of its own on the prior's network, which is on for e_phi and for
    its training alone.
    """

    lora: LoRA

    @classmethod
    def begun(cls, prior, cond, e_star: Tensor, steps: int, rank: int, lr: float):
        """A run at its beginning; e_phi is the prior itself. Raises ValueError for a prior without
        a network.
        """
        if prior.unet is None:
            raise ValueError(
                f'particles="lora" adapts the network of a prior, and "{prior.name}" has none; '
                'allowed for exact priors: "exact", "network"'
            )
        lora = LoRA(prior.unet, rank)
        adam = adam_for(lora.weights, lr)
        return cls(prior, cond, e_star, steps, weights=lora.weights, adam=adam, lora=lora)

    def e_phi(self, x_t, t, x=None):
        with self.lora.on():
            return self.prior.predict_noise(x_t, t, self.cond)

    def loss(self, x, t, n):
        """|output - target|^2 of the network at x_t, in what it predicts natively, summed over
        pixels: Adam does not see the scale, and the gradient of a mean vanishes in float16.
        """
        target = self.schedule.to_output(x, n, t)
        # not by `predict`: a training pass is no prediction, and is not counted as one
        query = Query(self.schedule.add_noise(x, t, n), t, self.cond, ("cond",))
        with self.lora.on():
            output = self.prior.predict_many([query], counted=False)[0]["cond"].output
        return (output - target).square().flatten(1).sum(1).mean()

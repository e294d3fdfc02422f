"""Held targets: what each view is to become, until the method is asked about it again."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..shapes import Batch


class Targets:
    """A target for each view, and the turn in which the views are asked about.

    values: (V, *shape), of the views that have been asked about; held: bool (V,), which those are;
    order: int64, what is still to come in this turn. like: a tensor (V, *shape). together: how many
    views, one after the other, are asked about together.
    Source: iterative dataset updates, as in Instruct-NeRF2NeRF (arXiv 2303.12789).
    """

    def __init__(self, like: Batch, together: int = 1):
        self.together = together
        self.values = torch.zeros_like(like)
        self.held = torch.zeros(len(like), dtype=torch.bool)
        self.order = torch.zeros(0, dtype=torch.int64)

    def next(self, count: int, generator: torch.Generator) -> Tensor:
        """The next views in turn, each turn in a new order: int64, `count` of them at the most, in
        whole sets, sorted.
        """
        count = max(1, count // self.together) * self.together
        while len(self.order) < count:
            first = torch.randperm(len(self.held) // self.together, generator=generator)
            turn = first[:, None] * self.together + torch.arange(self.together)
            self.order = torch.cat([self.order, turn.flatten()])
        views, self.order = self.order[:count].unique(), self.order[count:]
        return views

    def hold(self, views: Int[Tensor, "batch"], values: Batch) -> None:
        """Hold these views' targets, (n, *shape), from now on."""
        self.values[views], self.held[views] = values, True

    def pick(self, count: int, generator: torch.Generator) -> Tensor:
        """Some of the views that have a target: int64, `count` of them at the most, sorted."""
        held = self.held.nonzero()[:, 0]
        chosen = torch.randperm(len(held), generator=generator)[:count]
        return held[chosen].sort().values

    def loss(self, views: Int[Tensor, "batch"], x: Batch) -> Float[Tensor, ""]:
        """|x - target|^2 / 2, summed over elements, mean over views; its gradient in x is that of
        the method, over the number of views, where x is still what the method was asked about.
        """
        return (x - self.values[views]).square().sum() / (2 * len(views))

    def state_dict(self) -> dict[str, Tensor]:
        return {"values": self.values, "held": self.held, "order": self.order}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`, which is copied."""
        self.values.copy_(state["values"])
        self.held, self.order = state["held"].cpu().clone(), state["order"].cpu().clone()

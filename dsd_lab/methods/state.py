"""The state of a run of a method: passed to each gradient, and returned by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..priors import Condition, Prior
from ..schedule import NoiseSchedule


@dataclass(frozen=True, eq=False)
class State:
    """A run of a method: what it was begun with, and what it keeps from step to step.

    cond: of the whole batch, or one an item. e_star: (B, *shape). steps: gradients in the run.
    kept: tensors by name, an entry an item, (B, ...).
    """

    prior: Prior
    cond: Condition
    e_star: Tensor
    steps: int
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def schedule(self) -> NoiseSchedule:
        return self.prior.schedule

    @property
    def nbytes(self) -> int:
        """Memory of what is kept."""
        return sum(tensor.nbytes for tensor in self.kept.values())

    def keep(self, **tensors: Tensor) -> State:
        """The state with these tensors in the place of what it kept under their names."""
        return replace(self, kept={**self.kept, **tensors})

    def select(self, items: Tensor) -> State:
        """The state of some items of the batch, int64 (n,): in 3-D, of the views of a step."""
        kept = {name: value[items] for name, value in self.kept.items()}
        cond = self.cond.select(items.tolist())
        return replace(self, cond=cond, e_star=self.e_star[items], kept=kept)

    def merge(self, items: Tensor, part: State) -> State:
        """The state with what a selected part of it has come to keep."""
        return self.keep(
            **{
                name: self.kept[name].index_copy(0, items.to(value.device), value)
                for name, value in part.kept.items()
            }
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What a run of the same settings needs to go on from here: a flat dict of tensors."""
        return dict(self.kept)

    def restored(self, tensors: Mapping[str, Tensor]) -> State:
        """The state that goes on from a `state_dict`, which it copies."""
        device = self.e_star.device  # timesteps, which are integers, stay on the CPU
        return replace(
            self,
            kept={
                name: value.to(device if value.is_floating_point() else "cpu", copy=True)
                for name, value in tensors.items()
            },
        )

"""What every score-distillation method shares: settings, the state of a run, and the contract of a gradient."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..draws import Draws
from ..priors import Condition, Prior, check_cfg
from ..schedule import NoiseSchedule


class Defaults(NamedTuple):
    """How a method wants to be run: the loop's own values unless a method needs to deviate (and then it is printed)."""

    start: str = "zeros"  # "zeros" (the mean picture) or "x0hat" (the guided x0-prediction of e* at the last timestep)
    optimizer: str = "adam"  # "adam" (0.9, 0.99) or "plain": x <- x - lr g
    lr: float | None = None  # None: the loop's


class Evaluations(NamedTuple):
    """Predictions an item through the network: once at the start, and at each step."""

    begin: int
    step: int


class State:
    """A run of a method: what it was begun with, and what it keeps from step to step (in `kept`, all tensors)."""

    def __init__(self, prior: Prior, cond: Condition, e_star: Tensor, steps: int, **kept: Tensor):
        self.prior, self.cond, self.e_star, self.steps, self.kept = prior, cond, e_star, steps, kept
        self.schedule: NoiseSchedule = prior.schedule

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.kept)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.kept = dict(state)


@dataclass(frozen=True)
class Method(ABC):
    """A score-distillation method: frozen settings, so that one object drives any number of runs.

    cfg: guidance, e_g = e_u + cfg (e_c - e_u).
    """

    cfg: float = 7.5

    name: ClassVar[str] = ""

    def __post_init__(self):
        check_cfg(self.cfg)

    @property
    def defaults(self) -> Defaults:
        return Defaults()

    def __str__(self) -> str:
        """The name and the settings that were changed; a setting whose default is None is filled in by the method."""
        def default(f):
            return f.default if f.default is not None else getattr(replace(self, **{f.name: None}), f.name)
        changed = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != default(f)]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def begin(self, prior: Prior, cond: Condition, e_star: Tensor, steps: int) -> State:
        """The state of a new run of `steps` gradients from the starting noise e_star (B, *shape)."""
        return State(prior, cond, e_star, steps)

    @abstractmethod
    def gradient(self, state: State, x: Tensor, step: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """The descent gradient at x in the prior's space, (B, *shape), and the timesteps it looked at, (B,)."""

    @abstractmethod
    def evaluations(self, prior: Prior) -> Evaluations:
        """The exact number of predictions an item that a run makes."""

    def start(self, state: State) -> Tensor:
        """x0hat(e*, T - 1): the guided one-step prediction that the ODE starts with, (B, *shape)."""
        return state.prior.predict_guided(state.e_star, len(state.schedule) - 1, state.cond, self.cfg).x0


def check_range(t_min: float, t_max: float) -> None:
    """Raises ValueError unless 0 <= t_min < t_max <= 1, as fractions of the schedule."""
    if not (math.isfinite(t_min) and math.isfinite(t_max) and 0 <= t_min < t_max <= 1):
        raise ValueError(f"t_min and t_max are fractions of the schedule with 0 <= t_min < t_max <= 1, "
                         f"got t_min={t_min}, t_max={t_max}")


def cost(cfg: float) -> int:
    """Predictions in one guided evaluation: 1 without guidance, else 2."""
    return 1 if cfg == 1 else 2


def same_t(t: int, like: Tensor) -> Tensor:
    """One timestep for every item of a batch: int64 (B,)."""
    return torch.full((len(like),), t, dtype=torch.int64)

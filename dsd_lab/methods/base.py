"""What every score-distillation method shares: settings, the state of a run, and the contract of a
gradient.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..draws import Draws
from ..priors import Condition, Prediction, Prior, check_cfg
from ..schedule import NoiseSchedule


class Defaults(NamedTuple):
    """How a method wants to be run: the loop's own values unless a method needs to deviate (and
    then it is printed).
    """

    # "zeros" (the mean picture) or "x0hat" (the guided x0-prediction of e* at the last timestep)
    start: str = "zeros"
    optimizer: str = "adam"  # "adam" (0.9, 0.99) or "plain": x <- x - lr g
    lr: float | None = None  # None: the loop's


class Evaluations(NamedTuple):
    """Predictions an item through the network: once at the start, and at each step.

    Where the number follows t, `step` is the first and dearest step's; `Method.total_evaluations`
    is exact there too.
    """

    begin: int
    step: int


class State:
    """A run of a method: what it was begun with, and what it keeps from step to step (in `kept`,
    all tensors).
    """

    def __init__(self, prior: Prior, cond: Condition, e_star: Tensor, steps: int, **kept: Tensor):
        self.prior, self.cond, self.e_star, self.steps, self.kept = prior, cond, e_star, steps, kept
        self.schedule: NoiseSchedule = prior.schedule

    def select(self, items: Tensor) -> State:
        """The state of some items of the batch, int64 (n,): in 3-D, of the views that a step looks
        at.
        """
        part = copy(self)
        part.cond, part.e_star = self.cond.select(items.tolist()), self.e_star[items]
        part.kept = {name: value[items] for name, value in self.kept.items()}
        return part

    def merge(self, items: Tensor, part: State) -> None:
        """Take back what a selected part has kept."""
        for name, value in part.kept.items():
            self.kept[name] = self.kept[name].index_copy(0, items, value)

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
        """The name and the settings that were changed; a setting whose default is None is filled in
        by the method.
        """

        def default(f):
            return (
                f.default
                if f.default is not None
                else getattr(replace(self, **{f.name: None}), f.name)
            )

        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if getattr(self, f.name) != default(f)
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def begin(self, prior: Prior, cond: Condition, e_star: Tensor, steps: int) -> State:
        """The state of a new run of `steps` gradients from the starting noise e_star (B, *shape)."""
        return State(prior, cond, e_star, steps)

    @abstractmethod
    def gradient(self, state: State, x: Tensor, step: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """The descent gradient at x in the prior's space, (B, *shape), and the timesteps it looked
        at, (B,).
        """

    @abstractmethod
    def evaluations(self, prior: Prior) -> Evaluations:
        """The exact number of predictions an item that a run makes."""

    def total_evaluations(self, prior: Prior, steps: int) -> int:
        """The exact number of predictions an item in a run of `steps` gradients."""
        each = self.evaluations(prior)
        return each.begin + steps * each.step

    def start(self, state: State) -> Tensor:
        """x0hat(e*, T - 1): the guided one-step prediction that the ODE starts with, (B, *shape)."""
        return state.prior.predict_guided(
            state.e_star, len(state.schedule) - 1, state.cond, self.cfg
        ).x0


@dataclass(frozen=True)
class UniformMethod(Method):
    """A method that draws t ~ U{t_min..t_max} for each seed; t_min, t_max: fractions of the
    schedule.
    """

    t_min: float = 0.02
    t_max: float = 0.98

    def __post_init__(self):
        super().__post_init__()
        check_range(self.t_min, self.t_max)

    def draw_t(self, schedule: NoiseSchedule, draws: Draws) -> Tensor:
        """t of each seed for a step: int64 (B,)."""
        return draws.timesteps(level(self.t_min, schedule), level(self.t_max, schedule))


@dataclass(frozen=True)
class AnnealedMethod(Method):
    """A method that draws t from a range whose ends move linearly over the run.

    t_min, t_max: (at the beginning, at the end), fractions of the schedule.
    """

    t_min: tuple[float, float] = (0.02, 0.02)
    t_max: tuple[float, float] = (0.98, 0.5)

    def __post_init__(self):
        super().__post_init__()
        for name, pair in (("t_min", self.t_min), ("t_max", self.t_max)):
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise TypeError(
                    f"{name} is a pair of fractions (at the beginning, at the end) such as (0.98, 0.5), got {pair!r}"
                )
        for ends in zip(self.t_min, self.t_max, strict=True):
            check_range(*ends)

    def range_at(self, step: int, steps: int, schedule: NoiseSchedule) -> tuple[int, int]:
        """The lowest and the highest t of a step."""
        return annealed(self.t_min, step, steps, schedule), annealed(
            self.t_max, step, steps, schedule
        )


def level(fraction: float, schedule: NoiseSchedule) -> int:
    """The timestep at a fraction of the schedule, T - 1 at the most."""
    return min(
        math.floor(len(schedule) * fraction + 1e-9), len(schedule) - 1
    )  # 0.29 of 1000 is 290 in floats too


def annealed(ends: tuple[float, float], step: int, steps: int, schedule: NoiseSchedule) -> int:
    """The timestep at a fraction that moves linearly from ends[0] to ends[1] over the run."""
    return level(ends[0] + (ends[1] - ends[0]) * step / steps, schedule)


def invert(
    x: Tensor,
    levels: Tensor,
    schedule: NoiseSchedule,
    predict: Callable[[Tensor, Tensor], Prediction],
) -> Tensor:
    """DDIM upwards, each item on its own levels (K, B): from x, taken as the point at levels[0], to
    the point at levels[-1].

    predict: (x_t, t) -> the prediction to go by. A level that repeats moves nothing.
    """
    for low, high in zip(levels, levels[1:], strict=False):
        at_low = predict(x, low)
        x = schedule.add_noise(at_low.x0, high, at_low.eps)
    return x


def base_term(cond: Condition) -> str:
    """The term in e_u's place: the negative prompt's if the condition has one."""
    return "negative" if cond.negative else "uncond"


def check_range(t_min: float, t_max: float) -> None:
    """Raises ValueError unless 0 <= t_min < t_max <= 1, as fractions of the schedule."""
    if not (math.isfinite(t_min) and math.isfinite(t_max) and 0 <= t_min < t_max <= 1):
        raise ValueError(
            f"t_min and t_max are fractions of the schedule with 0 <= t_min < t_max <= 1, "
            f"got t_min={t_min}, t_max={t_max}"
        )


def cost(cfg: float) -> int:
    """Predictions in one guided evaluation: 1 without guidance, else 2."""
    return 1 if cfg == 1 else 2


def same_t(t: int, like: Tensor) -> Tensor:
    """One timestep for every item of a batch: int64 (B,)."""
    return torch.full((len(like),), t, dtype=torch.int64)


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f'unknown {name} "{value}"; allowed: {", ".join(allowed)}')


def check_fraction(name: str, value: float) -> None:
    """Raises ValueError unless 0 <= value <= 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} is a fraction in 0..1, got {value!r}")

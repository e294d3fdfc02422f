"""What every score-distillation method shares: its settings and the contract of a gradient."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..draws import Draws
from ..priors import Condition, Prediction, Prior, Query, check_cfg, guidance_terms, guide
from ..schedule import NoiseSchedule
from ..shapes import Batch, Times
from .repulsion import repel_groups
from .state import State


class Defaults(NamedTuple):
    """How a method wants to be run: the loop's own values unless a method needs to deviate (and
    then it is printed).
    """

    # "zeros" (the mean picture) or "x0hat" (the guided x0-prediction of e* at the last timestep)
    start: str = "zeros"
    optimizer: str = "adam"  # "adam" (0.9, 0.99) or "plain": x <- x - lr g
    lr: float | None = None  # None: the loop's


ASSIGNED = Defaults(start="x0hat", optimizer="plain", lr=1.0)  # each step puts x where g says


class Evaluations(NamedTuple):
    """Predictions an item through the network: once at the start, and at each step.

    Where the number follows t, `step` is the first and dearest step's; `Method.total_evaluations`
    is exact there too.
    """

    begin: int
    step: int


@dataclass(frozen=True)
class Method(ABC):
    """A score-distillation method: frozen settings, so that one object drives any number of runs.

    cfg: guidance, e_g = e_u + cfg (e_c - e_u). repulsion: pushes the seeds of a prompt apart (see
    `descent`; RSD, arXiv 2406.16683); with any but 0 the seeds of a batch depend on each other.
    name: to show. for_scenes: whether it can drive a scene, which x is only rendered from.
    needs_source: whether it edits the picture that the run starts from, which `begin` then takes as
    `source`. takes_ddim_steps: whether it takes exactly DDIM's steps. keeps: whether it keeps what
    it was told of each view, so that views cannot change.
    """

    cfg: float = 7.5
    repulsion: float = field(default=0.0, kw_only=True)

    name: ClassVar[str] = ""
    for_scenes: ClassVar[bool] = True
    needs_source: ClassVar[bool] = False
    takes_ddim_steps: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    def __post_init__(self):
        check_cfg(self.cfg)
        if not 0 <= self.repulsion < math.inf:
            raise ValueError(f"repulsion must be finite and not negative, got {self.repulsion}")

    @property
    def defaults(self) -> Defaults:
        """Start, optimiser and learning rate of a run that is not told others."""
        return Defaults()

    def __str__(self) -> str:
        """The name and the settings that were changed."""
        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def begin(self, prior: Prior, cond: Condition, e_star: Batch, steps: int) -> State:
        """The state of a new run of `steps` gradients from starting noise e_star, (B, *shape)."""
        return State(prior, cond, e_star, steps)

    @abstractmethod
    def gradient(
        self, state: State, x: Batch, step: int, draws: Draws
    ) -> tuple[Batch, Times, State]:
        """The descent gradient at x in the prior's space, (B, *shape), the timesteps at which the
        prior was asked, (B,), and the state for the next step.
        """

    def descent(
        self, state: State, x: Batch, step: int, draws: Draws
    ) -> tuple[Batch, Times, State]:
        """What `gradient` returns, less `repulsion` sigma_t^3 R: SDS's share of RSD's force."""
        g, t, state = self.gradient(state, x, step, draws)
        if self.repulsion:
            sigma, group = state.schedule.at("sigma", t, x), state.cond.expand(len(x)).subjects()
            g = g - self.repulsion * sigma**3 * repel_groups(x, group)
        return g, t, state

    def evaluations(self, prior: Prior) -> Evaluations:
        """The exact number of predictions an item that a run makes; e_g at one point a step."""
        return Evaluations(begin=0, step=cost(self.cfg, prior))

    def total_evaluations(self, prior: Prior, steps: int) -> int:
        """The exact number of predictions an item in a run of `steps` gradients."""
        each = self.evaluations(prior)
        return each.begin + steps * each.step

    def start(self, state: State) -> Batch:
        """x0hat(e*, T - 1), the guided prediction that the ODE starts with: (B, *shape)."""
        return first_prediction(state.prior, state.cond, state.e_star, self.cfg).x0


def first_prediction(prior: Prior, cond: Condition, e_star: Batch, cfg: float) -> Prediction:
    """The guided prediction at e*, where the ODE starts: at the noisiest timestep T - 1."""
    return prior.predict_guided(e_star, len(prior.schedule) - 1, cond, cfg)


def guided_noises(state: State, *points: tuple[Batch, Times, float]) -> list[Batch]:
    """e_g at several points (x_t, t, cfg), from one call of the network: each (B, *shape)."""
    answers = state.prior.predict_many(
        [Query(x_t, t, state.cond, guidance_terms(cfg, state.cond)) for x_t, t, cfg in points]
    )
    return [guide(terms, cfg).eps for terms, (_, _, cfg) in zip(answers, points, strict=True)]


def invert(
    x: Batch,
    levels: Tensor,
    schedule: NoiseSchedule,
    predict: Callable[[Tensor, Tensor], Prediction],
) -> Batch:
    """DDIM upwards, each item on its own levels (K, B): from x, taken as the point at levels[0], to
    the point at levels[-1].

    predict: (x_t, t) -> the prediction to go by. A level that repeats moves nothing.
    """
    for low, high in zip(levels, levels[1:], strict=False):
        at_low = predict(x, low)
        x = schedule.add_noise(at_low.x0, high, at_low.eps)
    return x


def cost(cfg: float, prior: Prior) -> int:
    """Predictions in one guided evaluation of an item: without guidance 1, else 2, or more where
    the prior asks more for a term.
    """
    return prior.cost(guidance_terms(cfg))


def same_t(t: int, like: Tensor) -> Times:
    """One timestep for every item of a batch: int64 (B,)."""
    return torch.full((len(like),), t, dtype=torch.int64)

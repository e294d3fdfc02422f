"""Where DSD has its noise from: each seed's own ODE path from e*, kept at some levels."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..draws import Draws
from ..priors import Prior
from ..sampling import Trajectory, ddim
from ..schedule import NoiseSchedule
from .base import Evaluations, Method, cost, same_t
from .state import State
from .timesteps import between

SPACING = 100  # thousandths of the schedule between the path's nodes
SNAPPED = 20
AHEAD = 8  # steps in a block at most: with more a run begins later, and is not faster


@dataclass(frozen=True, eq=False, kw_only=True)
class PathState(State):
    """A run with the kept path of e*, and t' and n for some steps ahead: n does not depend on x.

    block: for how many steps they are made together. ahead: "first", the block's first step, "t"
    and "n", (K, B) and (K, B, *shape).
    """

    path: Trajectory
    block: int
    ahead: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self):
        path, ahead = self.path, sum(tensor.nbytes for tensor in self.ahead.values())
        return super().nbytes + ahead + path.x_t.nbytes + path.eps.nbytes + path.x0.nbytes

    @classmethod
    def begun(cls, state: State, levels: list[int], cfg: float) -> PathState:
        """A run that has kept its path at these levels."""
        prior, cond, e_star = state.prior, state.cond, state.e_star
        path = ddim(prior, e_star, cond, cfg=cfg, levels=levels)
        block = max(1, min(AHEAD, prior.preferred_batch // len(e_star)))
        return cls(prior, cond, e_star, state.steps, state.kept, path=path, block=block)

    def has(self, step: int) -> bool:
        """Whether t' and n of a step are kept."""
        if not self.ahead:
            return False
        first = int(self.ahead["first"])
        return first <= step < first + len(self.ahead["n"])

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """t' (B,) and n (B, *shape) of a step that is kept."""
        k = step - int(self.ahead["first"])
        return self.ahead["t"][k], self.ahead["n"][k]

    def made_ahead(self, step: int, t: Tensor, snap: bool, cfg: float) -> PathState:
        """The state with n from a step on, at levels t (K, B); snap: at the path's nodes above."""
        t, n = self.snapped(t) if snap else (t, self.predicted(t, cfg))
        return replace(self, ahead={"first": torch.tensor(step), "t": t, "n": n})

    def predicted(self, t: Tensor, cfg: float) -> Tensor:
        """e_g at the path's points at t, (K, B): (K, B, *shape)."""
        points = self.path.point(t).flatten(0, 1)
        n = self.prior.predict_noise(points, t.flatten(), self.cond.repeat(len(t)), cfg)
        return n.reshape(*t.shape, *n.shape[1:])

    def snapped(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t rounded up to the path's nodes, and the predictions kept there."""
        node, item = self.path.node(t)
        return self.path.t[node], self.path.eps[node, item]

    def select(self, items):
        """Of some items; which come next is not known, so n is made for one step."""
        return replace(super().select(items), path=self.path.select(items), block=1, ahead={})

    def state_dict(self):
        return {**super().state_dict(), **self.ahead}

    def restored(self, tensors):
        state = super().restored(tensors)
        kept = {name: state.kept[name] for name in self.kept}
        ahead = {name: value for name, value in state.kept.items() if name not in kept}
        return replace(state, kept=kept, ahead=ahead)


class PathMethod(Method):
    """A method that gives every seed its own ODE path from e*, and takes n from it.

    Its settings, which a subclass has as fields: t_max, anneal, spacing, snap, noise, keep_path
    (see `DSD`).
    """

    t_max: float
    anneal: str
    spacing: int | None
    snap: bool
    noise: str
    keep_path: bool = True

    @property
    @abstractmethod
    def lowest(self) -> float:
        """The lowest t, a fraction of the schedule."""

    @property
    def near_nodes(self) -> bool:
        """Whether the path's nodes are as near as the prior's `path_spacing`."""
        return False

    @abstractmethod
    def t_prime_at(self, t: Tensor, last: Tensor, schedule: NoiseSchedule, draws: Draws) -> Tensor:
        """The noisier level t' at which the path is asked for n: int64 (B,). last: t at the step
        before.
        """

    def t_at(self, step: int, steps: int, schedule) -> int:
        """t of a step, falling with the square root of progress."""
        progress = math.sqrt(step / steps) if self.anneal == "sqrt" else step / steps
        return between(self.t_max, self.lowest, progress, schedule)

    def nodes(self, prior: Prior) -> list[int]:
        """The levels at which the path is kept: a grid from the noisiest timestep, above t_min."""
        schedule, spacing = prior.schedule, self.spacing
        if spacing is None:
            thousandths = prior.path_spacing if self.near_nodes else SPACING
            spacing = max(1, (SNAPPED if self.snap else thousandths) * len(schedule) // 1000)
        return list(range(len(schedule) - 1, schedule.level(self.lowest), -spacing))

    def begin(self, prior, cond, e_star, steps):
        last = same_t(len(prior.schedule) - 1, e_star)
        state = State(prior, cond, e_star, steps, {"last": last})
        return PathState.begun(state, self.nodes(prior), self.cfg) if self.keeps else state

    @property
    def keeps(self) -> bool:
        """Whether a run keeps the paths of its views."""
        return self.keep_path and self.noise == "ode"

    def noise_evaluations(self, prior: Prior) -> Evaluations:
        """What the path, n and a start that is a prediction cost."""
        if self.noise == "random":
            return Evaluations(0, 0)
        guided, start = cost(self.cfg, prior), self.defaults.start == "x0hat"
        path, n = len(self.nodes(prior)) * guided, 0 if self.snap else guided
        return Evaluations(path, n) if self.keep_path else Evaluations(start * guided, path + n)

    def total_evaluations(self, prior, steps):
        """As any method's; with keep_path=False the most there can be, as if t' were t."""
        total = super().total_evaluations(prior, steps)
        if self.keep_path or self.noise == "random":
            return total
        below = sum(
            node < self.t_at(step, steps, prior.schedule)
            for step in range(steps)
            for node in self.nodes(prior)
        )
        return total - below * cost(self.cfg, prior)

    def start(self, state):
        return state.path.x0[0] if self.keeps else super().start(state)

    def noise_at(self, state: State, step: int, draws: Draws) -> tuple[Tensor, Tensor, State]:
        """t' (B,) and n = e_g(path(t'), t') (B, *shape) of a step, and the state that has them."""
        if not self.keeps:
            t = self.levels(state, range(step, step + 1), draws)
            if self.noise == "random":
                return t[0], draws.normal(), state
            nodes = [node for node in self.nodes(state.prior) if node >= t.min()]
            path = PathState.begun(state, nodes, self.cfg).made_ahead(step, t, self.snap, self.cfg)
            return *path.at(step), state
        if not state.has(step):
            ahead = range(step, min(step + state.block, state.steps))
            t = self.levels(state, ahead, draws)
            state = state.made_ahead(step, t, self.snap, self.cfg)
        return *state.at(step), state

    def levels(self, state: State, steps: range, draws: Draws) -> Tensor:
        """t' of steps, from the one that comes next: int64 (K, B)."""
        last, schedule, levels = state.kept["last"], state.schedule, []
        for step in steps:
            t = same_t(self.t_at(step, state.steps, schedule), last)
            levels.append(self.t_prime_at(t, last, schedule, draws))
            last = t
        return torch.stack(levels)

"""DSD: Diverse Score Distillation (arXiv 2412.06780), in three forms."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from ..draws import Draws
from ..priors import Prior, Query, check_cfg, guidance_terms, guide
from ..sampling import Trajectory, ddim
from .base import (
    Defaults,
    Evaluations,
    Method,
    State,
    check_choice,
    check_fraction,
    check_range,
    cost,
    level,
    same_t,
)

FORMS = ("ode", "reference", "x0")


@dataclass(frozen=True)
class DSD(Method):
    """Give every seed its own ODE path from e*, take the noise n from it, and interpolate: x_t =
    alpha_t x + sigma_t n.

    n = e_g(path(t'), t') is the guided prediction on the path at a noisier t' > t; t falls as 1 -
    sqrt(progress).

        form="ode"        g = r_t       ( e_g(x_t, t) - e_g(x_t', t') )      t' = the previous t; on the path, DDIM
        form="reference"  g = sigma_t^2 ( e_g(x_t, t) - e_r(x_t', t') )      t' = t + U[0,1) shift; the published code
        form="x0"         g = r_t       ( e_g(x_t, t) - n )                  t' = t + shift; x - g is a one-step target

    e_r is guided by reference_cfg (1, as in the published code; 2 with cfg 8.5 reproduces its
    branch without Perp-Neg).
    cfg: guidance. t_min, t_max: the range of t as fractions of the schedule; None takes the form's
    own, 0.02 to 0.98 for "ode" and 0.32 to 0.98 for the others. shift: t' - t at the most, as a
    fraction of t - t_min.
    spacing: timesteps between the path's kept nodes, 999, 999 - spacing, ...; None is 100, and in
    the ode form on networks, whose paths bend more, 20. snap=True (our variant) keeps them 20
    apart, rounds t' up to a node and takes the prediction kept there, so n costs nothing more. Two
    switches for ablations: anneal="linear" lets t fall evenly; noise="random" draws n ~ N(0, I)
    afresh at each step, which leaves of the reference form ASD with a deterministic t.
    Source: arXiv 2412.06780, section 4.2 and algorithm 1; form "reference" follows the published
    implementation; form "x0" is ours.
    """

    form: str = "ode"
    reference_cfg: float = 1.0
    t_min: float | None = None
    t_max: float = 0.98
    shift: float = 0.1
    spacing: int | None = None
    snap: bool = False
    anneal: str = "sqrt"
    noise: str = "ode"

    name = "DSD"

    def __post_init__(self):
        super().__post_init__()
        check_choice("form", self.form, FORMS)
        check_choice("anneal", self.anneal, ("sqrt", "linear"))
        check_choice("noise", self.noise, ("ode", "random"))
        if self.t_min is None:
            object.__setattr__(self, "t_min", 0.02 if self.form == "ode" else 0.32)
        if self.spacing is None and self.snap:
            object.__setattr__(self, "spacing", 20)
        check_cfg(self.reference_cfg)
        check_range(self.t_min, self.t_max)
        check_fraction("shift", self.shift)
        if self.spacing is not None and (
            not isinstance(self.spacing, int) or not 1 <= self.spacing <= 999
        ):
            raise ValueError(
                f"spacing is the timesteps between the path's nodes, an int in 1..999, got {self.spacing}"
            )

    @property
    def defaults(self):
        return (
            Defaults(start="x0hat", optimizer="plain", lr=1.0) if self.form == "ode" else Defaults()
        )

    def t_at(self, step: int, steps: int, schedule) -> int:
        """t of a step, falling with the square root of progress."""
        progress = math.sqrt(step / steps) if self.anneal == "sqrt" else step / steps
        return level((self.t_max - self.t_min) * (1 - progress) + self.t_min, schedule)

    def nodes(self, prior: Prior) -> list[int]:
        """The levels at which the path is kept: the grid from the noisiest timestep, above t_min."""
        schedule, spacing = (
            prior.schedule,
            self.spacing or (prior.path_spacing if self.form == "ode" else 100),
        )
        return list(range(len(schedule) - 1, level(self.t_min, schedule), -spacing))

    def begin(self, prior, cond, e_star, steps):
        if self.noise == "random":
            return State(prior, cond, e_star, steps)
        path = ddim(prior, e_star, cond, cfg=self.cfg, levels=self.nodes(prior))
        return DSDState(prior, cond, e_star, steps, path)

    def start(self, state):
        return super().start(state) if self.noise == "random" else state.path.x0[0]

    def t_prime(self, step: int, steps: int, schedule, draws: Draws, like: Tensor) -> Tensor:
        """The noisier level t' at which the path is asked for n: int64 (B,)."""
        t, last = self.t_at(step, steps, schedule), len(schedule) - 1
        if self.form == "ode":
            return same_t(self.t_at(step - 1, steps, schedule) if step else last, like)
        reach = min(self.shift * (t - level(self.t_min, schedule)), last - t)
        if self.form == "x0":
            return same_t(t + math.floor(reach), like)
        return t + (draws.uniform() * reach).floor().long()

    def gradient(self, state, x, step, draws):
        schedule, cond = state.schedule, state.cond
        t = same_t(self.t_at(step, state.steps, schedule), x)
        if self.noise == "random":
            t_prime, n = self.t_prime(step, state.steps, schedule, draws, x), draws.normal()
        else:
            t_prime, n = state.noise(self, step, draws)
        here = Query(schedule.add_noise(x, t, n), t, cond, guidance_terms(self.cfg, cond))
        if self.form == "x0":
            e_t, reference = guide(state.prior.predict_many([here])[0], self.cfg).eps, n
        else:
            cfg = self.cfg if self.form == "ode" else self.reference_cfg
            there = Query(
                schedule.add_noise(x, t_prime, n), t_prime, cond, guidance_terms(cfg, cond)
            )
            terms, terms_prime = state.prior.predict_many([here, there])
            e_t, reference = guide(terms, self.cfg).eps, guide(terms_prime, cfg).eps
        weight = (
            schedule.at("sigma", t, x) ** 2
            if self.form == "reference"
            else schedule.at("ratio", t, x)
        )
        return weight * (e_t - reference), t

    def evaluations(self, prior):
        nodes, guided = len(self.nodes(prior)), cost(self.cfg)
        reference = {"ode": guided, "reference": cost(self.reference_cfg), "x0": 0}[self.form]
        if self.noise == "random":
            return Evaluations(begin=0, step=guided + reference)
        return Evaluations(
            begin=nodes * guided, step=guided + reference + (0 if self.snap else guided)
        )


class DSDState(State):
    """A DSD run: the kept path of e*, and n for a block of steps ahead, since n does not depend on
    x.
    """

    def __init__(self, prior, cond, e_star, steps, path: Trajectory):
        super().__init__(prior, cond, e_star, steps)
        self.path = path
        self.block = max(1, prior.preferred_batch // len(e_star))

    def select(self, items):
        part = copy(self)  # which views come next is not known: n is made for one step
        part.cond, part.e_star = self.cond.select(items.tolist()), self.e_star[items]
        part.path, part.block, part.kept = self.path.select(items), 1, {}
        return part

    def merge(self, items, part):
        pass

    def noise(self, method: DSD, step: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """t' (B,) and n = e_g(path(t'), t') (B, *shape) for this step."""
        first = int(self.kept["first"]) if self.kept else -1
        if not self.kept or not first <= step < first + len(self.kept["n"]):
            ahead = range(step, min(step + self.block, self.steps))
            t = torch.stack(
                [method.t_prime(k, self.steps, self.schedule, draws, self.e_star) for k in ahead]
            )
            t, n = self._snapped(t) if method.snap else (t, self._predicted(t, method.cfg))
            self.kept, first = {"first": torch.tensor(step), "t": t, "n": n}, step
        return self.kept["t"][step - first], self.kept["n"][step - first]

    def _predicted(self, t: Tensor, cfg: float) -> Tensor:
        points = self.path.point(t).flatten(0, 1)
        n = self.prior.predict_noise(points, t.flatten(), self.cond.repeat(len(t)), cfg)
        return n.reshape(*t.shape, *n.shape[1:])

    def _snapped(self, t: Tensor) -> tuple[Tensor, Tensor]:
        node, item = self.path.node(t)
        return self.path.t[node], self.path.eps[node, item]

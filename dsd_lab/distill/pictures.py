"""The optimisation loop on pictures and points: a method's gradient, one item a seed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoint import flatten, part, prefixed, restore
from ..draws import Draws, check_seeds
from ..methods import Method
from ..methods.repulsion import check_groups
from ..priors import Condition, Prior
from .loop import REMEDY, Loop, asks, check_finite, check_settings


class Step(NamedTuple):
    """A record of one optimisation step, detached from the run: x (B, *shape) after it, t (B,), |g|
    per element (B,).
    """

    index: int
    t: Tensor
    x: Tensor
    gradient_rms: Tensor


class Run(Loop):
    """An optimisation under way: it owns x, the optimiser, the draws, the step and the method's
    state.

    Iterating yields a `Step` after each optimisation step and goes on where it stopped; `finish()`
    drives it to the end; between steps the run is whole, and `state_dict()` is its checkpoint.

    x: (B, *prior.shape), in the prior's own space. seeds: one an item, independent of each other.
    target: x - g, held for `refresh` steps. Other arguments as `check_settings` returns them.
    """

    def __init__(
        self,
        prior: Prior,
        cond: Condition,
        method: Method,
        seeds: Sequence[int],
        steps: int,
        start: str | Tensor,
        optimizer: str,
        lr: float,
        refresh: int,
        dtype: torch.dtype | None,
    ):
        super().__init__(prior, steps)
        self.cond, self.method, self.seeds = cond, method, check_seeds(seeds)
        self.refresh = refresh
        if len(cond) not in (1, len(self.seeds)):
            raise ValueError(
                f"{len(cond)} prompts for {len(self.seeds)} seeds; give one prompt, or one a seed"
            )
        if method.repulsion:
            check_groups(cond.expand(len(self.seeds)).subjects())
        dtype = dtype or prior.dtype
        self.draws = Draws(self.seeds, prior.shape, dtype, prior.device)
        with torch.no_grad():
            self.e_star = prior.noise(self.seeds, dtype)
            given = self._given(start)
            source = {"source": given} if method.needs_source else {}
            self.state = method.begin(prior, cond, self.e_star, asks(steps, refresh), **source)
            self.x = method.start(self.state).clone() if given is None else given
        self.settings = {
            "start": start if isinstance(start, str) else "given",
            "optimizer": optimizer,
            "lr": lr,
            "steps": steps,
            "cfg": method.cfg,
            "refresh": refresh,
        }
        self.optimizer = optimizer_of(self.x, optimizer, lr)
        if not bool(self.x.isfinite().all()):
            raise ValueError(f"the start is not finite: check it, and the prior; {REMEDY}")
        self.target = self.x.clone()
        self.t = torch.zeros(len(self.seeds), dtype=torch.int64)
        self.gradient_rms = torch.zeros_like(self.x.flatten(1)[:, 0])

    def _given(self, start: str | Tensor) -> Tensor | None:
        """A copy of the x to start from, unless the method is to say."""
        if not isinstance(start, Tensor):
            return torch.zeros_like(self.e_star) if start == "zeros" else None
        if start.shape != self.e_star.shape:
            raise ValueError(
                f"start must have shape {tuple(self.e_star.shape)}, got {tuple(start.shape)}"
            )
        return start.detach().to(self.e_star).clone()

    @torch.no_grad()
    def step(self) -> Step:
        if self.index % self.refresh == 0:
            k = self.index // self.refresh
            g, t, state = self.method.descent(self.state, self.x, k, self.draws)
            check_finite(g, t, k)
            self.t, self.state = t, state
            self.target, self.gradient_rms = self.x - g, g.flatten(1).square().mean(1).sqrt()
        # dL/dx of 0.5 |x - target|^2; with a new target each step that is g itself
        self.x.grad = g if self.refresh == 1 else self.x - self.target
        self.optimizer.step()
        if not bool(self.x.isfinite().all()):
            raise ValueError(
                f"x is not finite after step {self.index + 1}, t = {self.t.tolist()}; the run is "
                f"left as it was before; {REMEDY}"
            )
        self.index += 1
        return Step(self.index, self.t.clone(), self.x.clone(), self.gradient_rms.clone())

    @property
    def images(self) -> Tensor:
        """x as pictures (B, 3, H, W) in [0, 1]. Raises TypeError for a prior of points."""
        return self.prior.decode(self.x)

    def state_dict(self):
        tensors = {
            "index": torch.tensor(self.index),
            "x": self.x,
            "target": self.target,
            "t": self.t,
            "gradient_rms": self.gradient_rms,
            **self.draws.state_dict(),
            **prefixed("method", self.state.state_dict()),
            **prefixed("optimizer", flatten(self.optimizer)),
        }
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint of a run with the same settings. Raises ValueError if shapes
        differ.
        """
        if state["x"].shape != self.x.shape:
            raise ValueError(
                f"the checkpoint holds x of shape {tuple(state['x'].shape)}, "
                f"this run {tuple(self.x.shape)}"
            )
        self.index, self.t = int(state["index"]), state["t"].clone()
        for name in ("x", "target", "gradient_rms"):
            getattr(self, name).copy_(state[name])
        self.draws.load_state_dict(state)
        self.state = self.state.restored(part(state, "method"))
        restore(self.optimizer, part(state, "optimizer"))


def optimizer_of(x: Tensor, name: str, lr: float) -> torch.optim.Optimizer:
    """ "adam" (0.9, 0.99) or "plain". Not foreach: its fused paths differ in their last bits."""
    if name == "plain":
        return torch.optim.SGD([x], lr=lr, foreach=False)
    return torch.optim.Adam([x], lr=lr, betas=(0.9, 0.99), foreach=False)


def distill(
    prior: Prior,
    cond: Condition | str,
    method: Method,
    seeds: Sequence[int],
    steps: int = 300,
    *,
    start: str | Tensor | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    refresh: int = 1,
    dtype: torch.dtype | None = None,
) -> Run:
    """A run of a method on a prior, one item a seed, ready to iterate or `finish()`.

        each step:  g from the method;  one optimiser step with dL/dx = g,
                    for the loss L = 0.5 |x - stop_gradient(x - g)|^2

    cond: a condition of the prior, or a prompt. steps: optimisation steps. start: "zeros", "x0hat"
    or a tensor (B, *shape); optimizer: "adam" (0.9, 0.99) or "plain"; lr: each is the method's
    default unless given, 0.05 for Adam.
    refresh: hold each target x - g for so many optimiser steps before asking the method again.
    Raises TypeError or ValueError for settings that cannot be.
    """
    start, optimizer, lr = check_settings(method, steps, start, optimizer, lr, refresh)
    cond = prior.condition(cond) if isinstance(cond, str) else cond
    return Run(prior, cond, method, seeds, steps, start, optimizer, lr, refresh, dtype)

"""The one optimisation loop: a method's gradient, injected into whatever is being optimised."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoint import flatten, part, prefixed, restore
from ..draws import Draws, check_seeds
from ..methods import Method
from ..priors import Condition, Prior

STARTS = ("zeros", "x0hat")
OPTIMIZERS = ("adam", "plain")
LEARNING_RATE = 0.05


class Step(NamedTuple):
    """A record of one optimisation step, detached from the run: x (B, *shape) after it, t (B,), |g|
    per element (B,).
    """

    index: int
    t: Tensor
    x: Tensor
    gradient_rms: Tensor


class Loop:
    """What can be driven step by step: iterating goes on where it stopped, and `finish()` drives it
    to its end.

    A subclass gives `__next__`, which takes a step, adds 1 to `index` and raises StopIteration at
    `steps`.
    """

    steps: int
    index: int = 0

    def __iter__(self):
        return self

    def finish(self, progress: Callable[[Loop], None] | None = None):
        """Drive the run to its end and return it; Ctrl-C stops it after the step under way, with
        all it has.

        progress: called with the run after each step.
        """
        with _interrupt_between_steps() as interrupted:
            for _ in self:
                if progress:
                    progress(self)
                if interrupted():
                    break
        return self

    @property
    def finished(self) -> bool:
        return self.index >= self.steps


class Run(Loop):
    """An optimisation under way: it owns x, the optimiser, the draws, the step and the method's
    state.

    Iterating yields a `Step` after each optimisation step and goes on where it stopped; `finish()`
    drives it to the end; between steps the run is whole, and `state_dict()` is its checkpoint.

    x: (B, *prior.shape), in the prior's own space. seeds: one an item, independent of each other.
    """

    def __init__(
        self,
        prior: Prior,
        cond: Condition,
        method: Method,
        seeds: Sequence[int],
        steps: int,
        start,
        optimizer,
        lr: float,
        refresh: int,
        dtype: torch.dtype | None,
    ):
        self.prior, self.cond, self.method, self.seeds = prior, cond, method, check_seeds(seeds)
        self.steps, self.refresh = steps, refresh
        if len(cond) not in (1, len(self.seeds)):
            raise ValueError(
                f"{len(cond)} prompts for {len(self.seeds)} seeds; give one prompt, or one a seed"
            )
        dtype = dtype or prior.dtype
        self.draws = Draws(self.seeds, prior.shape, dtype, prior.device)
        gradients = -(-steps // refresh)
        with torch.no_grad():
            self.e_star = prior.noise(self.seeds, dtype)
            self.state = method.begin(prior, cond, self.e_star, gradients)
            self.x = self._start(start)
        self.settings = {
            "start": start if isinstance(start, str) else "given",
            "optimizer": optimizer,
            "lr": lr,
            "steps": steps,
            "cfg": method.cfg,
            "refresh": refresh,
        }
        # foreach=False: one tensor, and the fused paths would differ in their last bits
        self.optimizer = (
            torch.optim.Adam([self.x], lr=lr, betas=(0.9, 0.99), foreach=False)
            if optimizer == "adam"
            else torch.optim.SGD([self.x], lr=lr, foreach=False)
        )
        self.target, self.last = None, (None, None)

    def _start(self, start) -> Tensor:
        if isinstance(start, Tensor):
            if start.shape != self.e_star.shape:
                raise ValueError(
                    f"start must have shape {tuple(self.e_star.shape)}, got {tuple(start.shape)}"
                )
            return start.detach().to(self.e_star).clone()
        return (
            torch.zeros_like(self.e_star)
            if start == "zeros"
            else self.method.start(self.state).clone()
        )

    @torch.no_grad()
    def __next__(self) -> Step:
        if self.index >= self.steps:
            raise StopIteration
        if self.index % self.refresh == 0:
            g, t = self.method.gradient(self.state, self.x, self.index // self.refresh, self.draws)
            if self.refresh > 1:
                self.target = self.x - g
            self.last = t, g.flatten(1).square().mean(1).sqrt()
        # dL/dx of 0.5 |x - target|^2; with a new target each step that is g itself
        self.x.grad = g if self.refresh == 1 else self.x - self.target
        self.optimizer.step()
        self.index += 1
        return Step(self.index, self.last[0].clone(), self.x.clone(), self.last[1].clone())

    @property
    def images(self) -> Tensor:
        """x as pictures (B, 3, H, W) in [0, 1]. Raises TypeError for a prior of points."""
        return self.prior.decode(self.x)

    def state_dict(self) -> dict[str, Tensor]:
        """All that a run of the same settings needs to go on from here, to the bit: a flat dict of
        tensors.
        """
        parts = {"x": self.x, "index": torch.tensor(self.index), **self.draws.state_dict()}
        if self.target is not None:
            parts["target"] = self.target
        if self.last[0] is not None:
            parts["last.t"], parts["last.rms"] = self.last
        parts |= prefixed("method", self.state.state_dict())
        parts |= prefixed("optimizer", flatten(self.optimizer))
        return {name: tensor.detach().clone() for name, tensor in parts.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint of a run with the same settings. Raises ValueError if shapes
        differ.
        """
        if state["x"].shape != self.x.shape:
            raise ValueError(
                f"the checkpoint holds x of shape {tuple(state['x'].shape)}, this run {tuple(self.x.shape)}"
            )

        self.x.copy_(state["x"])
        self.index = int(state["index"])
        self.draws.load_state_dict(state)
        kept = part(state, "method")
        self.state.load_state_dict({name: value.clone() for name, value in kept.items()})
        self.target = state["target"].clone() if "target" in state else None
        self.last = (state.get("last.t"), state.get("last.rms"))
        restore(self.optimizer, part(state, "optimizer"))


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

        each step:  g from the method;  dL/dx = g, for the loss 0.5 |x - stop_gradient(x - g)|^2;  one optimiser step

    cond: a condition of the prior, or a prompt. steps: optimisation steps. start: "zeros", "x0hat"
    or a tensor (B, *shape); optimizer: "adam" (0.9, 0.99) or "plain"; lr: each is the method's
    default unless given, 0.05 for Adam.
    refresh: hold each target x - g for so many optimiser steps before asking the method again.
    Raises TypeError or ValueError for settings that cannot be.
    """
    start, optimizer, lr = check_settings(method, steps, start, optimizer, lr, refresh)
    cond = prior.condition(cond) if isinstance(cond, str) else cond
    return Run(prior, cond, method, seeds, steps, start, optimizer, lr, refresh, dtype)


def check_settings(
    method: Method,
    steps: int,
    start: str | Tensor | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    refresh: int = 1,
    dtype: torch.dtype | None = None,
) -> tuple[str | Tensor, str, float]:
    """The start, optimiser and rate that `distill` uses for these arguments, with the method's
    defaults filled in.

    Raises TypeError or ValueError for settings that cannot be.
    """
    if not isinstance(method, Method):
        raise TypeError(f"method must be a method object such as dsd_lab.DSD(), got {method!r}")
    for name, value in (("steps", steps), ("refresh", refresh)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    own = method.defaults
    start = own.start if start is None else start
    if not isinstance(start, Tensor) and start not in STARTS:
        raise ValueError(
            f'unknown start "{start}"; allowed: {", ".join(STARTS)}, or a tensor (B, *shape)'
        )
    optimizer = optimizer or own.optimizer
    if optimizer not in OPTIMIZERS:
        raise ValueError(f'unknown optimizer "{optimizer}"; allowed: {", ".join(OPTIMIZERS)}')
    if lr is None:  # a method's own rate belongs to its own optimiser
        lr = (
            own.lr
            if own.lr is not None and optimizer == own.optimizer
            else (1.0 if optimizer == "plain" else LEARNING_RATE)
        )
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be positive and finite, got {lr}")
    return start, optimizer, float(lr)


@contextmanager
def _interrupt_between_steps():
    """Ctrl-C asks to stop at the end of the step; a second one stops at once. Only the main thread
    gets signals.
    """
    asked = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def handler(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)

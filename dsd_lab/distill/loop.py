"""What can be driven, stopped and resumed; and the settings that all runs share, checked."""

from __future__ import annotations

import math
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from ..checks import at_least, choice, positive
from ..methods import Method
from ..priors import Prior
from ..priors.network import out_of_memory, release
from ..threads import one_thread

STARTS = ("zeros", "x0hat")
OPTIMIZERS = ("adam", "plain")
LEARNING_RATE = {"adam": 0.05, "plain": 1.0}


class Loop(ABC):
    """What can be driven step by step: iterating goes on where it stopped, and `finish()` drives it
    to its end.

    A subclass gives `step`, which adds 1 to `index` and returns what it yields, and its checkpoint.
    """

    def __init__(self, prior: Prior, steps: int):
        self.prior, self.steps, self.index = prior, steps, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.finished:
            raise StopIteration
        while True:
            try:
                with one_thread(self.prior.unet):
                    self.prepare()
                    with self.whole():
                        return self.step()
            except (MemoryError, RuntimeError) as error:
                if not (out_of_memory(error) and self.economise()):
                    raise
            release(self.prior.device)  # here, where the error holds no tensor of the step any more

    def economise(self) -> bool:
        """Make do with less memory, where it has run out in a step; whether that can be. The step
        is then taken again.
        """
        return False

    def prepare(self) -> None:
        """What comes before a step and is no part of it."""

    @abstractmethod
    def step(self):
        """Take a step, and return a record of it."""

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

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """All that a run of the same settings needs to go on from here, to the bit: a flat dict of
        copied tensors.
        """

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`, which is copied, of a run with the same settings."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A step within it is taken whole or not at all: if it fails, the run is as before."""
        before = self.state_dict()
        try:
            yield
        except BaseException:
            self.load_state_dict(before)
            raise

    @property
    def finished(self) -> bool:
        return self.index >= self.steps


def asks(steps: int, refresh: int) -> int:
    """How often a method is asked in a run that holds each target for `refresh` steps."""
    return math.ceil(steps / refresh)


def check_method(method: Method) -> None:
    """Raises TypeError unless it is a method object."""
    if not isinstance(method, Method):
        raise TypeError(f"method must be a method object such as dsd_lab.DSD(), got {method!r}")


def check_settings(
    method: Method,
    steps: int,
    start: str | Tensor | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    refresh: int = 1,
    dtype=None,
) -> tuple[str | Tensor, str, float]:
    """The start, optimiser and rate that `distill` uses for these arguments, with the method's
    defaults filled in.

    Raises TypeError or ValueError for settings that cannot be.
    """
    check_method(method)
    at_least("steps", steps)
    at_least("refresh", refresh)
    defaults = method.defaults
    start = defaults.start if start is None else start
    if not isinstance(start, Tensor) and start not in STARTS:
        raise ValueError(
            f'unknown start "{start}"; allowed: {", ".join(STARTS)}, or a tensor (B, *shape)'
        )
    optimizer = choice("optimizer", optimizer or defaults.optimizer, OPTIMIZERS)
    if lr is None:
        # a method's own rate belongs to its own optimiser
        lr = defaults.lr if optimizer == defaults.optimizer else None
        lr = LEARNING_RATE[optimizer] if lr is None else lr
    return start, optimizer, positive("lr", lr)


REMEDY = "lower lr or cfg, or give a network in half precision dtype=torch.float32"


def check_finite(g: Tensor, t: Tensor, step: int) -> None:
    """Raises ValueError if a gradient is not finite, before it can spoil what is optimised."""
    if not bool(g.isfinite().all()):
        bad = (~g.flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
        raise ValueError(
            f"the gradient is not finite at ask {step}, t = {t[bad].tolist()}, items {bad}; "
            f"the run is left as it was before the step; {REMEDY}"
        )


@contextmanager
def _interrupt_between_steps():
    """Ctrl-C asks to stop at the end of the step; a second one stops at once. Only the main thread
    gets signals.
    """
    signals = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def handler(number, frame):
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(signals)
    finally:
        signal.signal(signal.SIGINT, before)

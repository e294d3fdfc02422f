"""What an exercise is: a question, the right answer, and the wrong ones that are known.

A hint is given exactly when the answer equals what that mistake leads to, so it never guesses. What
can go wrong in any answer (nothing filled in, an exception, a shape, NaN, a loop without end) is
told once, here.
"""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .limits import TimeIsUp, within

SEEDS = (11, 12, 13)  # of the questions that an answer is tried on
CLOSE = 1e-4  # relative; answers in float32 are right too


class Hint(Exception):
    """Raised with what is wrong with an answer."""


class Verdict(NamedTuple):
    """Whether the answer to an exercise is right, and what to say of it."""

    number: str
    right: bool
    text: str

    def __repr__(self) -> str:
        return f"{self.number} {'right' if self.right else 'not yet'}: {self.text}"


@dataclass(frozen=True)
class Exercise(ABC):
    """number: lesson and place, "03.2". praise: what the right answer shows. points: what it counts
    (ours).
    """

    number: str
    praise: str

    kind: ClassVar[str]
    points: ClassVar[int]

    @abstractmethod
    def examine(self, answer: Any) -> None:
        """Raise Hint unless the answer is right."""

    def verdict(self, answer: Any) -> Verdict:
        try:
            if answer is None or answer is ...:
                raise Hint("there is no answer yet.")
            self.examine(answer)
        except Hint as hint:
            return Verdict(self.number, False, str(hint))
        return Verdict(self.number, True, self.praise)


@dataclass(frozen=True)
class Predict(Exercise):
    """A number. right: computes it. mistakes: hint -> how a wrong number comes about. within: how
    far off, absolutely, is right.
    """

    right: Callable[[], float]
    mistakes: Mapping[str, Callable[[], float]]
    within: float = 0.02

    kind, points = "predict", 1

    def examine(self, answer):
        try:
            value = float(answer)
        except (TypeError, ValueError, RuntimeError):
            raise Hint(f"the answer is one number; this is {type(answer).__name__}.") from None
        if abs(value - self.right()) <= self.within:
            return
        for hint, wrong in self.mistakes.items():
            if abs(value - wrong()) <= self.within:
                raise Hint(hint)
        raise Hint("not this number." if value == value else "NaN is no number.")


@dataclass(frozen=True)
class Explain(Exercise):
    """A choice. right: its letter. mistakes: the other letters -> hint."""

    right: str
    mistakes: Mapping[str, str]

    kind, points = "explain", 1

    def examine(self, answer):
        letter = str(answer).strip().lower()
        if letter != self.right:
            allowed = ", ".join(sorted([self.right, *self.mistakes]))
            raise Hint(self.mistakes.get(letter, f"the answer is one of the letters {allowed}."))


class Question(NamedTuple):
    """Named arguments for the learner's function, and the library's own answer to them."""

    arguments: dict[str, Any]
    right: Tensor

    def fresh(self) -> dict[str, Any]:
        """The arguments with tensors of their own, so that an answer may change them."""
        return {
            name: value.detach().clone().requires_grad_(value.requires_grad)
            if torch.is_tensor(value)
            else value
            for name, value in self.arguments.items()
        }


def as_it_is(result: Any, arguments: dict[str, Any]) -> Any:
    return result


@dataclass(frozen=True)
class Implement(Exercise):
    """A function. ask: seed -> Question. mistakes: hint -> a function of the same arguments that
    makes it.
    read: (result, arguments) -> the tensor to compare, such as a loss's gradient; may raise Hint.
    fresh: what to say of an answer that draws random numbers. seconds: for one call.
    """

    ask: Callable[[int], Question]
    mistakes: Mapping[str, Callable[..., Any]]
    read: Callable[[Any, dict[str, Any]], Any] = as_it_is
    fresh: str = ""
    seconds: float = field(default=5.0, kw_only=True)

    kind, points = "implement", 3

    def examine(self, answer):
        if not callable(answer):
            raise Hint(f"give the function itself; this is {type(answer).__name__}.")
        rights = [self.ask(seed).right for seed in SEEDS]
        found = [
            self.tried(answer, self.ask(seed).fresh(), right)
            for seed, right in zip(SEEDS, rights, strict=True)
        ]
        if alike(found, rights):
            return
        for hint, wrong in self.mistakes.items():
            made = [self.called(wrong, self.ask(seed).fresh()) for seed in SEEDS]
            if alike(found, made):
                raise Hint(hint)
        self.look_for_fresh_noise(answer, found[0])
        self.look_for_what_is_not_used(answer, found[0])
        raise Hint(gap(found, rights))

    def called(self, answer: Callable, arguments: dict[str, Any]) -> Any:
        return self.read(answer(*arguments.values()), arguments)

    def tried(self, answer: Callable, arguments: dict[str, Any], right: Tensor) -> Tensor:
        """The answer to one question, (B, ...) as `right`. Raises Hint if it is no such tensor."""
        try:
            result = within(self.seconds, lambda: self.called(answer, arguments))
        except TimeIsUp:
            raise Hint(
                f"it was stopped after {self.seconds:g} s; is there a loop that never ends?"
            ) from None
        except Hint:
            raise
        except BaseException as error:  # whatever a learner's function raises, SystemExit too
            line = traceback.extract_tb(error.__traceback__)[-1].line
            where = f' at "{line}"' if line else ""
            raise Hint(f"it raised {type(error).__name__}: {error}{where}.") from None
        if result is None or result is ...:
            raise Hint("it returned nothing; is there a `return`?")
        if not hasattr(result, "detach"):
            raise Hint(f"it returned {type(result).__name__}, not a tensor.")
        if result.shape != right.shape:
            wanted, got = tuple(right.shape), tuple(result.shape)
            raise Hint(f"the shape should be {wanted}, as the library's answer; it is {got}.")
        if not result.isfinite().all():
            raise Hint("it holds NaN or infinity; is something divided by 0, or its root taken?")
        return result.detach().cpu().double()

    def look_for_fresh_noise(self, answer: Callable, before: Tensor) -> None:
        again = self.tried(answer, self.ask(SEEDS[0]).fresh(), before)
        if not torch.equal(again, before):
            raise Hint(
                "the same arguments gave two results, so it draws random numbers of its own. "
                + self.fresh
            )

    def look_for_what_is_not_used(self, answer: Callable, before: Tensor) -> None:
        """Raises Hint for an argument that is a tensor and changes nothing when it is moved."""
        for name, value in self.ask(SEEDS[0]).arguments.items():
            if torch.is_tensor(value):
                arguments = self.ask(SEEDS[0]).fresh()
                arguments[name].data += 1.0
                if torch.equal(self.tried(answer, arguments, before), before):
                    raise Hint(f"the result does not depend on {name}, which is given.")


def alike(found: list[Tensor], wanted: list[Tensor]) -> bool:
    """Whether answers (B, ...) are equal, to rounding in float32, on every question."""
    pairs = zip(found, wanted, strict=True)
    return all(
        a.shape == b.shape and bool((a - b).norm() <= CLOSE * b.norm())
        for a, b in ((a, b.detach().double()) for a, b in pairs)
    )


def gap(found: list[Tensor], rights: list[Tensor]) -> str:
    """How far wrong answers are from the right ones: a factor that is the same in all, else the
    relative difference.
    """
    mine, right = (torch.cat([a.double().flatten() for a in each]) for each in (found, rights))
    factor = float(mine @ right / (right @ right))
    if factor and alike([mine / factor], [right]):
        return f"the result is {factor:.3g} times the right one on every question."
    off = float((mine - right).norm() / right.norm())
    return f"the result is off by {off:.0%} of the right one's size; no mistake that is known here."

"""Checks of what a user gives, with one wording: what was wrong, what is allowed, what is near."""

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping

LARGEST = 3.4e38  # in float32


def at_least(name: str, value: int, least: int = 1) -> int:
    """`value`. Raises ValueError unless it is an int (no bool) of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")
    return value


def number(name: str, value: float, example: str) -> float:
    """`value` as a float. TypeError unless it is a number, ValueError unless it is finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number such as {example}, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def positive(name: str, value: float) -> float:
    """`value` as a float. Raises ValueError unless it is a positive number, finite in float32."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < LARGEST:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return float(value)


def not_negative(name: str, value: float, example: str) -> float:
    """`value` as a float. Raises TypeError or ValueError unless it is finite and at least 0."""
    if number(name, value, example) < 0:
        raise ValueError(f"{name} must be at least 0, such as {example}, got {value!r}")
    return float(value)


def fraction(name: str, value: float) -> float:
    """`value` as a float. Raises ValueError unless 0 <= value <= 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} is a fraction in 0..1, got {value!r}")
    return float(value)


def choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """`value`. Raises ValueError, with the nearest, unless it is one of `allowed`."""
    allowed = list(allowed)
    if value not in allowed:
        hint = did_you_mean(value, allowed)
        raise ValueError(f'unknown {name} "{value}";{hint} allowed: {", ".join(allowed)}')
    return value


def did_you_mean(
    word: object,
    allowed: Iterable[str],
    cutoff: float = 0.5,
    names: Mapping[str, str] | None = None,
) -> str:
    """' did you mean "...?"' with the nearest of `allowed`, or nothing if none is near.

    names: what a wording that is allowed stands for, if that is to be said in its place.
    """
    by_folded = {folded(one): one for one in allowed}
    near = difflib.get_close_matches(folded(str(word)), by_folded, 1, cutoff)
    if not near:
        return ""
    nearest = by_folded[near[0]]
    return f' did you mean "{(names or {}).get(nearest, nearest)}"?'


def batch_of(shape: tuple[int, ...], name: str, x) -> None:
    """Raises ValueError unless the tensor x has shape (B, *shape)."""
    if tuple(x.shape[1:]) != shape or x.ndim == 0:
        sides = ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape (B, {sides}), got {tuple(x.shape)}")


def meant(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` stands for: itself, else the only one that is the same but for
    case and for how its accents are composed; None if there is none.
    """
    names = list(names)
    if not isinstance(name, str) or name in names:
        return name if name in names else None
    same = [one for one in names if folded(one) == folded(name)]
    return same[0] if len(same) == 1 else None


def folded(name: str) -> str:
    """A name as names are compared everywhere: letters composed (NFC), without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())

"""What every world has in common, and which of its prompts a user means."""

import re
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..checks import did_you_mean, folded


@runtime_checkable
class World(Protocol):
    """Pictures under prompts, and whom to credit; each kind says which are a prompt's."""

    name: str
    prompts: tuple[str, ...]
    aliases: dict[str, str]
    credit: str

    def __len__(self) -> int: ...

    def resolve(self, prompt: str) -> str:
        """The prompt meant by `prompt`, see `prompts.resolve`."""
        return resolve(prompt, self.prompts, self.aliases)

    def index(self, prompt: str) -> Tensor:
        """Which items a prompt describes: int64 (n,)."""

    def images(self, prompt: str | None = None) -> Tensor:
        """The pictures of a prompt, or all of them: float32 (n, ...) in [0, 1]."""


def resolve(prompt: str, prompts: Iterable[str], aliases: Mapping[str, str]) -> str:
    """The prompt meant by `prompt`, whatever its case, spaces and article: "Dragon" is "a dragon".

    Raises TypeError for anything but a string, ValueError with the nearest prompt for an unknown
    one.
    """
    prompts = tuple(prompts)
    if not isinstance(prompt, str):
        example = prompts[0]
        raise TypeError(f"a prompt is a string such as {example!r}, got {type(prompt).__name__}")
    if prompt in prompts:
        return prompt
    by_key = {key(alias): target for alias, target in aliases.items()}
    by_key |= {key(one): one for one in prompts}  # a prompt goes before an alias
    if key(prompt) in by_key:
        return by_key[key(prompt)]
    hint = did_you_mean(key(prompt), by_key, 0.6, by_key)
    raise ValueError(
        f'unknown prompt "{prompt}"{";" if hint else ""}{hint} '
        f"({len(prompts)} prompts; `dsd-lab prompts` or prior.prompts lists them)"
    )


def key(prompt: str) -> str:
    """A wording without its case, article and spare spaces: what wordings of one prompt share."""
    return re.sub(r"^(a|an|the) ", "", " ".join(folded(prompt).split()))

"""Which of a part's weight files to read: diffusers names them

    NAME.safetensors               NAME-00001-of-00002.safetensors
    NAME.VARIANT.safetensors       NAME.VARIANT-00001-of-00002.safetensors
                                   NAME-00001-of-00002.VARIANT.safetensors    in older versions

where VARIANT is a word such as fp16, bf16 or ema, and each part of a pipeline may have its own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

SHARD = r"-\d{5}-of-\d{5}"
NAMED = re.compile(
    rf"(?:diffusion_pytorch_)?model(?:\.(\w+))?(?:{SHARD})?(?:\.(\w+))?\.safetensors", re.ASCII
)
FIRST = ("fp32", "bf16", "fp16")  # the better ones, where there are several and no plain one


def variant_of(files: Iterable[str]) -> str | None:
    """The variant of a part's files to read: none where they are there without."""
    found = [m.group(1) or m.group(2) for file in files if (m := NAMED.fullmatch(file))]
    if not found or None in found:
        return None
    return min(found, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))


def commonest(variants: Iterable[str | None]) -> str | None:
    """The variant that most parts have, since a pipeline is read in one; None if none has any."""
    count = Counter(name for name in variants if name)
    return max(count, key=count.__getitem__, default=None)


def by_part(files: Iterable[str]) -> Mapping[str, list[str]]:
    """The weight files of a repository's parts, {part: names}, from paths such as unet/NAME."""
    parts: dict[str, list[str]] = {}
    for path in map(Path, files):
        if len(path.parts) == 2 and path.suffix == ".safetensors":
            parts.setdefault(path.parts[0], []).append(path.name)
    return parts

"""Files written whole or not at all, and short names made from a user's text."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path


def slug(prompt: str) -> str:
    """A file name for a prompt: "a hot dog" -> "a-hot-dog"."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-") or "prompt"


def file_names(prompts: Sequence[str]) -> dict[str, str]:
    """A PNG's name for each prompt; prompts of one slug are told apart by a number."""
    names = {}
    for prompt in prompts:
        taken = set(names.values())
        tries = itertools.chain([slug(prompt)], (f"{slug(prompt)}-{k}" for k in itertools.count(2)))
        names[prompt] = next(f"{name}.png" for name in tries if f"{name}.png" not in taken)
    return names


def prepare_folder(folder: str | Path) -> Path:
    """The folder, made and writable. Raises ValueError if it cannot be, before any work is done."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        raise ValueError(
            f'cannot write to the folder "{folder}": {why}; choose another with --out'
        ) from error
    return folder


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a file beside `path` and then give it its name, so that nobody sees half a
    file.
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def write_file(path: Path, content: bytes | str) -> Path:
    """Write bytes or text (as UTF-8), whole or not at all."""
    return write_whole(
        path,
        lambda place: place.write_bytes(content.encode() if isinstance(content, str) else content),
    )

"""Files written whole or not at all, and short names made from a user's text."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

LONGEST = (
    80  # bytes of a name made from a text; file systems allow 255, suffixes and marks included
)


def slug(text: str) -> str:
    """A file name for a text: "a hot dog" -> "a-hot-dog"; a long one is cut, and a digest of the
    whole text put behind it.
    """
    name = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", text).lower()).strip("-") or "prompt"
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()
    short = name.encode()[: LONGEST - len(digest) - 1].decode(errors="ignore")
    return f"{short.rstrip('-')}-{digest}"


def file_names(texts: Iterable[str], suffix: str = ".png") -> dict[str, str]:
    """A file's name for each text; texts of one slug are told apart by a number."""
    names: dict[str, str] = {}
    for text in texts:
        stem = slug(text)
        tries = itertools.chain([stem], (f"{stem}-{k}" for k in itertools.count(2)))
        names[text] = next(n for t in tries if (n := t + suffix) not in names.values())
    return names


def prepare_folder(folder: str | Path) -> Path:
    """The folder, `~` expanded, made and writable. Raises ValueError if it cannot be, before any
    work is done.
    """
    folder = Path(folder).expanduser()
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


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a file beside `path`, `~` expanded, and then give it its name: nobody sees
    half a file. Returns the path.
    """
    path = Path(path).expanduser()
    beside = path.with_name(f".{slug(path.stem)}.{os.getpid()}{path.suffix}")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def write_file(path: str | Path, content: bytes | str) -> Path:
    """Write bytes or text (as UTF-8), whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    return write_whole(path, lambda place: place.write_bytes(data))


def write_json(path: str | Path, value: object) -> Path:
    """Write a value as JSON, whole or not at all."""
    return write_file(path, json.dumps(value, indent=1) + "\n")

"""Files written whole or not at all, and short names made from a user's text."""

import hashlib
import itertools
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .checks import folded

LONGEST = 80  # bytes of a name made from a text; file systems allow 255, suffixes included
# names that Windows keeps for devices, with any suffix
RESERVED = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}


def slug(text: str) -> str:
    """A file name for a text: "a hot dog" -> "a-hot-dog"; a long one is cut, and a digest of the
    whole text put behind it, as behind a name that Windows reserves.
    """
    name = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", text).lower()).strip("-") or "prompt"
    if len(name.encode()) <= LONGEST and name not in RESERVED:
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


def expanded(path: str | Path) -> Path:
    """The path with `~` expanded, or as it is where nobody knows the home folder."""
    return Path(os.path.expanduser(path))


def find_path(path: str | Path) -> Path:
    """The file or folder meant by `path`, `~` expanded: the one of this name, else the only one
    whose name differs by case or by how its accents are composed; `path` if there is none.
    """
    path = expanded(path)
    if os.path.exists(path) or path.parent == path:
        return path
    parent = find_path(path.parent)
    try:
        same = [p for p in parent.iterdir() if folded(p.name) == folded(path.name)]
    except (OSError, ValueError):
        same = []
    return same[0] if len(same) == 1 else path


def prepare_folder(folder: str | Path) -> Path:
    """The folder, `~` expanded, made and writable. Raises ValueError if it cannot be, before any
    work is done.
    """
    folder = expanded(folder)
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
    path = expanded(path)
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


def read_json(path: str | Path, remedy: str) -> Any:
    """The value in a JSON file, with or without a byte-order mark. Raises ValueError, with what to
    do, for one that is damaged.
    """
    path = expanded(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or no JSON; {remedy}") from error


def write_json(path: str | Path, value: object) -> Path:
    """Write a value as JSON, whole or not at all."""
    return write_file(path, json.dumps(value, indent=1) + "\n")

"""A folder of cells: each is computed once and kept in a file of its own, whole or not at all.

`study.json` says what the folder is of; `cells/` holds a file a cell. Killed at any moment, nothing
is lost but the cells under way.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import expanded, prepare_folder, read_json, write_file, write_whole
from .executor import run_cells

HEADER, CELLS = "study.json", "cells"
ANOTHER = "give another folder, or delete this one to begin anew"


class Content(NamedTuple):
    """What a cell comes to: facts, as JSON has them, and tensors by name."""

    facts: dict
    tensors: dict[str, Tensor] = {}


@dataclass(frozen=True)
class Store:
    """The cells of a study. identity: what they are of; about: what else is good to know."""

    folder: Path
    identity: dict
    about: dict

    @classmethod
    def begin(cls, path: str | Path, identity: dict, about: dict | None = None) -> Store:
        """The store in the folder `path`, which is made, or the one that was begun there. Raises
        ValueError if that is another study's.
        """
        folder = prepare_folder(path)
        (folder / CELLS).mkdir(exist_ok=True)
        identity = json.loads(json.dumps(identity))  # tuples become lists, as when read back
        if not (folder / HEADER).exists():
            header = {"identity": identity, "about": about or {}}
            write_file(folder / HEADER, json.dumps(header, ensure_ascii=False, indent=1) + "\n")
        store = cls.open(folder)
        for name, wanted in identity.items():
            found = store.identity.get(name)
            if found != wanted:
                raise ValueError(
                    f"{folder} was begun with {name} {_short(found, wanted)}, not "
                    f"{_short(wanted, found)}; a study goes on as it was begun: give another folder"
                )
        return store

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """The store that was begun in a folder. Raises ValueError if there is none."""
        file = expanded(path) / HEADER
        try:
            header = read_json(file, ANOTHER)
            return cls(file.parent, **header)
        except OSError:
            raise ValueError(f"no study in {file.parent}: it has no {HEADER}") from None
        except TypeError:
            raise ValueError(f"{file} is not of a study; {ANOTHER}") from None

    def load(self, k: int) -> Content | None:
        """Cell k; None if it is not there, is damaged, or belongs to another study."""
        try:
            with safe_open(self._file(k), "pt") as file:
                notes = file.metadata() or {}
                if notes.get("study") != self._mark:
                    return None
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
        except (OSError, SafetensorError):
            return None
        return Content(json.loads(notes["facts"]), tensors)

    def save(self, k: int, content: Content) -> None:
        """Keep cell k, whole or not at all."""
        notes = {"study": self._mark, "facts": json.dumps(content.facts)}
        # a network's pictures may lie in memory channels last, which the format does not know
        tensors = {name: tensor.contiguous() for name, tensor in content.tensors.items()}
        write_whole(self._file(k), lambda place: save_file(tensors, place, notes))

    def fill(
        self,
        cells: Sequence,
        compute: Callable[..., Content],
        executor=None,
        kept: Callable[[int], None] = lambda k: None,
    ) -> list[Content | None]:
        """Compute the cells that are missing, keeping each as it comes, and return all of them:
        None for those that Ctrl-C has left out, or that killed three workers; of these it warns.

        compute: from one of `cells` to its content. executor: see `study`; only this process
        writes, in the order of the cells. kept: called with a cell's number once it is kept. Raises
        ValueError if another study fills the folder.
        """

        def keep(k: int, content: Content) -> None:
            self.save(k, content)
            kept(k)

        left_out = []
        try:
            with FileLock(self.folder / CELLS / ".lock", timeout=0):
                missing = {k: cell for k, cell in enumerate(cells) if self.load(k) is None}
                left_out = run_cells(compute, missing, executor, keep)
        except Timeout:
            raise ValueError(
                f"{self.folder} is being written to by another study; wait for it, or begin in "
                "another folder"
            ) from None
        except KeyboardInterrupt:
            pass
        for k in left_out:
            warnings.warn(f"left out, as it killed every worker: {cells[k]}", stacklevel=3)
        return [self.load(k) for k in range(len(cells))]

    def _file(self, k: int) -> Path:
        return self.folder / CELLS / f"{k:05d}.safetensors"

    @property
    def _mark(self) -> str:
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _short(value: object, other: object) -> str:
    """A value in a message, of a dict what differs from the other alone."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {k: v for k, v in value.items() if other.get(k) != v}
    return textwrap.shorten(json.dumps(value, ensure_ascii=False), 200)

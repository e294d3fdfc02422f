"""What the measurements behind the lessons share: cells that are kept, and tables that say how they
were made.
"""

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from ..cameras import HELD_OUT, Camera
from ..files import read_json, write_json
from ..metrics import mean
from ..scene import Scene
from ..studies.store import Content, Store
from ..threads import one_thread

Workers = Annotated[
    int | None,
    typer.Option(help="Processes that share the work, one thread each; this one if not given."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="A part of the table, by its name here; the rows of the others stay."),
]
JUDGED = f"{len(HELD_OUT)} held-out cameras, 64 px"


@dataclass(frozen=True)
class Table:
    """The table that `python -m dsd_lab.course.NAME` makes, NAME.json beside this file.

    packages: whose versions it states.
    """

    name: str
    packages: Sequence[str] = ("torch", "dsd_lab")

    @property
    def path(self) -> Path:
        return Path(__file__).parent / f"{self.name}.json"

    def fill(
        self,
        folder: Path | None,
        identity: dict,
        cells: Sequence,
        compute: Callable[..., Content],
        workers: int | None = None,
    ) -> list[Content]:
        """What is made of cells, kept in `folder`; ends the command if Ctrl-C stops it.

        workers: processes that share the work, to which `compute` travels; this one if None.
        """
        store = Store.begin(folder or Path("results") / self.name, {"table": self.name} | identity)
        with tqdm(total=len(cells), disable=None) as bar:
            contents = store.fill(cells, compute, workers, lambda k: bar.update(k + 1 - bar.n))
        if None in contents:
            typer.echo("not complete; the same command goes on")
            raise typer.Exit(1)
        return contents

    def scenes(
        self,
        folder: Path | None,
        identity: dict,
        groups: Mapping[tuple[str, ...], Sequence[int]],
        distil: Callable[..., Scene],
        judge: Callable[..., dict],
        cameras: Sequence[Camera] = HELD_OUT,
        workers: int | None = None,
    ) -> list[dict]:
        """A row for each group of seeds: what `judge(*group, views)` says of how its scenes look
        from cameras, (seeds, V, 3, 64, 64) in [0, 1], and the seconds that one took.

        distil: makes a scene, `distil(*group, seed, progress)`.
        """

        cells = [(*group, seed) for group, seeds in groups.items() for seed in seeds]
        compute = partial(scene_views, distil, cameras)
        contents = iter(self.fill(folder, identity | {"cells": cells}, cells, compute, workers))
        rows = []
        for group, seeds in groups.items():
            scenes = [next(contents) for _ in seeds]
            views = torch.stack([content.tensors["views"] for content in scenes])
            seconds = mean(content.facts["seconds"] for content in scenes)
            rows.append(judge(*group, views) | {"seconds": seconds})
        return rows

    def write(self, facts: dict, **content) -> None:
        """Write the table: how it was made, and its content."""
        about = {
            "command": f"python -m dsd_lab.course.{self.name}",
            **facts,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            **{name: version(name) for name in self.packages},
        }
        write_json(self.path, {"about": about, **content})

    def load(self) -> dict:
        """The table: "about", which says what was run, and its content."""
        return read_json(self.path, f"`python -m dsd_lab.course.{self.name}` makes it anew")


@one_thread()
def scene_views(distil: Callable[..., Scene], cameras: Sequence[Camera], cell: tuple) -> Content:
    """How the scene of a cell looks from cameras, and the seconds that it took; see
    `Table.scenes`.
    """
    began, last = time.perf_counter(), deque(maxlen=1)
    scene = distil(*cell, last.append)
    if not (last and last[0].finished):
        raise KeyboardInterrupt
    seconds = round(time.perf_counter() - began, 1)
    return Content({"seconds": seconds}, {"views": scene.images(cameras, 64).cpu()})

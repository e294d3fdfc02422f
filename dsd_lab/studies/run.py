"""A grid of experiments on any prior of pictures, on any executor: kept on disk as it comes, safe
to kill.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from tqdm import tqdm

from .. import __version__
from ..distill import distill
from ..draws import check_seeds
from ..files import expanded, write_file
from ..metrics import Samples, apart, distances, known_pictures
from ..priors import Prior
from ..sampling import ddim
from ..threads import one_thread
from ..worlds import PictureWorld
from .executor import sent, versions
from .grid import Cell, Grid, Setting, plan
from .store import HEADER, Content, Store

VERSION = 3  # of what a cell keeps
TABLE = "table.jsonl"


class Finished(NamedTuple):
    """A cell that is complete: what it is of and what it took, a seed, by which versions, its
    pictures (n, 3, H, W) in [0, 1], and what is measured of them.
    """

    method: str
    prompt: str
    settings: dict
    evaluations: float
    seconds: float
    versions: dict
    images: Tensor
    samples: Samples


@dataclass(frozen=True)
class Study:
    """What a study's folder holds: what it is, and the cells that are complete, in order."""

    identity: dict
    about: dict
    cells: list[Finished]

    @property
    def seeds(self) -> list[int]:
        return self.identity["seeds"]

    @property
    def finished(self) -> bool:
        return len(self.cells) == self.about["cells"]

    @property
    def rows(self) -> list[dict]:
        """A row for each seed of each cell, as JSON has them."""
        return [
            {"method": c.method, "prompt": c.prompt, "seed": seed, "settings": c.settings}
            | {
                name: None if (values := getattr(c.samples, name)) is None else values[i].item()
                for name in ("nearest", "distance", "agreement", "same_mode")
            }
            | {"evaluations": c.evaluations, "seconds": round(c.seconds, 5)}
            | {"versions": c.versions}
            for c in self.cells
            for i, seed in enumerate(self.seeds)
        ]


def study(
    prior: Prior, grid: Grid, path: str | Path, *, executor=None, progress: bool = True
) -> Study:
    """Run what a grid still lacks in the folder `path`, and return what is there.

    The folder holds `study.json`, which says what the study is, `cells/`, a file for a method on a
    prompt at a setting, with all seeds in one batch, and `table.jsonl`, a row a seed, written at
    the end. Killed at any moment and called again with the same grid, it goes on: no cell is
    computed twice. Ctrl-C ends it after the step under way; that cell is then lost, and `finished`
    of what is returned is False. All numbers are of the pictures as they are kept, in 8 bits.

    executor: None for this process; a number of processes to spawn; a Dask client; or an object
    with `submit` as in `concurrent.futures`. Numbers do not depend on it: each cell runs on one
    thread (a network of more than 50 million parameters, in this process, on as many as you
    allow), and only this process writes. A prior of `load_prior` travels by name, any other with
    each cell. A cell whose worker dies is tried again; one that kills three (with Dask, as many as
    its scheduler allows) is left out with a warning, and the same call tries it anew.
    progress: a bar. Raises ValueError for a folder of another version, grid or prior, for one that
    is being written to, and, as TypeError does, for a grid or an executor that cannot be;
    ConnectionError for an executor that is gone.
    """
    cells, folder = plan(prior, grid), expanded(path)
    if (folder / TABLE).exists() and not (folder / HEADER).exists():
        raise ValueError(f"{folder} holds a {TABLE} of another version; give another folder")
    store = Store.begin(folder, *_header(prior, grid, cells))
    how = {"seeds": store.identity["seeds"]}
    with tqdm(total=len(cells), disable=not progress, leave=False) as bar:
        if executor is None:  # then the bar shows steps too

            def show(run):
                bar.set_postfix_str(f"step {run.index}", refresh=run.index % 20 == 0)

            compute = partial(compute_cell, lambda: prior, **how, progress=show)
        else:
            compute = partial(compute_cell, sent(prior), **how)

        def kept(k):
            bar.update(k + 1 - bar.n)
            bar.set_description(str(cells[min(k + 1, len(cells) - 1)]))

        store.fill(cells, compute, executor, kept)
    done = read(folder)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in done.rows]
    write_file(folder / TABLE, "".join(lines))
    return done


def compute_cell(
    load: Callable[[], Prior], cell: Cell, seeds: Sequence[int], progress: Callable | None = None
) -> Content:
    """Run one cell. load: gives the prior. progress: called with the run after each step. Raises
    KeyboardInterrupt if Ctrl-C has stopped it.
    """
    prior = load()
    with one_thread(prior.unet):
        return _computed(prior, cell, seeds, progress)


def _computed(prior: Prior, cell: Cell, seeds: Sequence[int], progress: Callable | None) -> Content:
    began, before, cond = time.perf_counter(), prior.evaluations, prior.condition(cell.prompt)
    if cell.method is None:
        images = ddim(prior, prior.noise(seeds), cond, **cell.settings).images
    else:
        settings = {name: value for name, value in cell.settings.items() if name != "cfg"}
        run = distill(prior, cond, cell.method, seeds, **settings).finish(progress)
        if not run.finished:
            raise KeyboardInterrupt
        images = run.images
    facts = {
        "method": cell.name,
        "prompt": cell.prompt,
        "settings": cell.settings,
        "reference": cell.reference,
        "evaluations": (prior.evaluations - before) / len(seeds),
        "seconds": (time.perf_counter() - began) / len(seeds),
    }
    pixels = (images.detach().cpu() * 255).round().byte()
    pictures = known_pictures(prior, cell.prompt)
    if pictures is None:
        return Content(facts, {"images": pixels})
    distance, nearest = distances(pixels.float() / 255, pictures).min(1)
    tensors = {"images": pixels, "distance": distance, "nearest": nearest}
    return Content(facts | {"pictures": len(pictures)}, tensors)


def read(path: str | Path) -> Study:
    """A study's folder as it is. Raises ValueError if it holds none."""
    store = Store.open(path)
    contents = [store.load(k) for k in range(store.about["cells"])]
    cells = []
    for content in filter(None, contents):
        place = content.facts["reference"]
        if place is None or contents[place] is not None:
            cells.append(_finished(content, None if place is None else contents[place]))
    return Study(store.identity, store.about, cells)


def _finished(content: Content, reference: Content | None) -> Finished:
    facts = content.facts
    nearest = content.tensors.get("nearest")
    images = content.tensors["images"].float() / 255
    agreement = same = None
    if reference is not None:
        agreement = apart(images, reference.tensors["images"].float() / 255)
        same = None if nearest is None else nearest == reference.tensors["nearest"]
    samples = Samples(
        between=distances(images, images),
        nearest=nearest,
        distance=content.tensors.get("distance"),
        agreement=agreement,
        same_mode=same,
        pictures=facts.get("pictures"),
    )
    names = ("method", "prompt", "settings", "evaluations", "seconds", "versions")
    return Finished(images=images, samples=samples, **{name: facts[name] for name in names})


def _header(prior: Prior, grid: Grid, cells: Sequence[Cell]) -> tuple[dict, dict]:
    """What a study is, and what else is good to know."""
    world, data = prior.world, None
    if isinstance(world, PictureWorld):
        content = world.pixels.numpy().tobytes() + world.label.numpy().tobytes()
        data = hashlib.blake2b(content, digest_size=16).hexdigest()
    identity = {
        "table": "dsd_lab study",
        "version": VERSION,
        "dsd_lab": __version__,
        "prior": {**prior.identity(), "data": data},
        "methods": {
            name: {"class": type(m).__name__, **asdict(m)} for name, m in grid.methods.items()
        },
        "prompts": list(dict.fromkeys(cell.prompt for cell in cells)),
        "seeds": check_seeds(grid.seeds),
        "settings": [asdict(Setting.of(s)) for s in grid.settings],
        "ddim_steps": grid.ddim_steps,
    }
    return identity, {
        "cells": len(cells),
        "credit": world.credit if world is not None else "",
        "packages": versions(),
    }

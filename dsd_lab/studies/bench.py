"""How long things take here: `python -m dsd_lab.bench`, or one part of it, `python -m dsd_lab.bench
cells`. Not a test: machines differ, ratios should not.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer

from .. import DSD, SDS, DSDStar, ddim, distill_images, load_prior
from ..checks import choice
from ..distill import SCENE_DSD, distill_scene
from .executor import opened
from .grid import Grid, Setting
from .run import study
from .store import Content, Store

REPEATS = 3


def timed(work: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each job, in turn, so that a drift of the machine's speed hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(REPEATS):
        for name, job in work.items():
            began = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - began)
    return times


def report(
    title: str, times: Mapping[str, list[float]], unit: str = "s", factor: float = 1
) -> None:
    """Print the medians, and how they compare with SDS."""
    threads = torch.get_num_threads()
    print(f"\n{title}; {threads} threads; median of {REPEATS}")
    base = next(median(seconds) for name, seconds in times.items() if name.startswith("SDS"))
    for name, seconds in times.items():
        low, middle, high = (factor * f(seconds) for f in (min, median, max))
        ratio = median(seconds) / base
        print(f"{name:<36} {middle:8.2f} {unit}   {ratio:5.2f} of SDS   ({low:.2f} to {high:.2f})")


def pictures(seeds: int = 16, steps: int = 300) -> None:
    """DDIM and each method on "a tree", 64x64, all pictures as the unconditional set."""
    prior = load_prior("icons")
    cond = prior.condition("a tree")

    def job(method, steps=steps):
        return lambda: distill_images(prior, "a tree", method, range(seeds), steps)

    job(SDS(), 20)()  # threads and caches warm
    methods = (SDS(), DSD(), DSD(form="reference"), DSD(form="x0"), DSD(snap=True))
    work = {str(method): job(method) for method in methods}
    work["DDIM, 50 steps"] = lambda: ddim(prior, prior.noise(range(seeds)), cond)
    work["DSD*, 50 steps"] = job(DSDStar(), 50)
    title = f"{len(prior.world)} pictures of 64x64, {seeds} seeds, {steps} steps"
    report(title, timed(work))


def scenes(steps: int = 40) -> None:
    """A step of SDS and of DSD on a scene, asking anew at each step and every fourth; and its
    beginning, at which DSD asks for the paths of all its views.
    """
    prior, work, beginnings = load_prior("toybox"), {}, {}
    for refresh in (1, 4):
        for name, method in (("SDS", SDS()), ("DSD", SCENE_DSD)):
            label = f"{name}, a target held for {refresh} steps"

            def begin(method=method, refresh=refresh):
                return distill_scene(prior, "a mushroom", method, 0, 400, refresh=refresh)

            beginnings[name] = lambda begin=begin: begin().stage.state
            run = begin()
            for _ in range(40):  # until empty space is skipped
                next(run)
            work[label] = lambda run=run: [next(run) for _ in range(steps)]
    report("a scene's step: 4 views of 32x32, 24 cameras", timed(work), "ms", 1e3 / steps)
    report("its beginning", timed(beginnings))


def network(batch: int = 16, calls: int = 20) -> None:
    """A prediction of `icons-mini`."""
    prior = load_prior("icons-mini")
    x, cond = prior.noise(range(batch)), prior.condition(prior.prompts[0])
    times = timed({"icons-mini": lambda: [prior.predict(x, 500, cond) for _ in range(calls)]})
    each = 1e3 * median(times["icons-mini"]) / (2 * calls * batch)  # conditional and not
    print(f"\nicons-mini: {each:.1f} ms a picture and prediction, batch {batch}")


def cells(count: int = 1000) -> None:
    """What a study adds to each of many small cells, and how much faster two processes are than
    one: on two idle cores.
    """
    print(f"\n{count} empty cells")
    for workers in (None, 1, 2):
        with opened(workers) as engine, TemporaryDirectory() as folder:
            Store.begin(Path(folder, "begun"), {}).fill(range(workers or 1), empty, engine)
            began, store = time.perf_counter(), Store.begin(Path(folder, "timed"), {})
            store.fill(range(count), empty, engine)
            each = 1e3 * (time.perf_counter() - began) / count
        print(f"{workers or 'no'} processes: {each:.1f} ms a cell")
    prior, seconds = load_prior("icons", size=32), {}
    for workers in (1, 2):
        with opened(workers) as engine, TemporaryDirectory() as folder:
            for name, steps in (("begun", 1), ("timed", 100)):
                settings = [Setting(steps=steps)]
                grid = Grid({"SDS": SDS(), "DSD": DSD()}, prior.prompts[:8], range(8), settings)
                began = time.perf_counter()
                study(prior, grid, Path(folder, name), executor=engine, progress=False)
            seconds[workers] = time.perf_counter() - began
    print(
        f"24 cells of icons, 32 px: {seconds[1]:.1f} s on one process, {seconds[2]:.1f} s on two, "
        f"{seconds[1] / seconds[2]:.2f} times as fast"
    )


def empty(_: int) -> Content:
    """A cell without work."""
    return Content({})


PARTS = {"pictures": pictures, "network": network, "scenes": scenes, "cells": cells}


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; all.")] = None,
) -> None:
    """Time all of it, or the parts that are named."""
    for name in [choice("part", name, PARTS) for name in parts or PARTS]:
        PARTS[name]()

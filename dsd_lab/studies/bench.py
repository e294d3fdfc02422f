"""How long things take here: `python -m dsd_lab.bench`. Not a test: machines differ, ratios should
not.
"""

from __future__ import annotations

import statistics
import time

import torch

from .. import DSD, SDS, DSDStar, ddim, distill_images, load_prior
from ..distill import distill_scene
from ..distill.scenes import SCENE_DSD
from ..minis.exams import seconds_a_prediction


def scenes(steps: int = 40, repeats: int = 3) -> None:
    """Time a step of SDS and of DSD on a scene, 32 px and 4 views, asking anew at each step and
    every fourth.

    Filling the bank, which DSD does once for all its views at a stage's beginning, is told apart.
    """
    prior = load_prior("toybox")
    times: dict[tuple[str, int], list[float]] = {}
    filling: dict[str, list[float]] = {}
    kept: dict[str, int] = {}
    for _ in range(repeats):
        for refresh in (1, 4):
            for name, method in (("SDS", SDS()), ("DSD", SCENE_DSD)):
                began = time.perf_counter()
                run = distill_scene(prior, "a mushroom", method, 0, 400, refresh=refresh)
                filling.setdefault(name, []).append(time.perf_counter() - began)
                kept[name] = run.stage.state.nbytes
                for _ in range(40):  # until empty space is skipped
                    next(run)
                began = time.perf_counter()
                for _ in range(steps):
                    next(run)
                times.setdefault((name, refresh), []).append((time.perf_counter() - began) / steps)
    print(
        f"\nscenes: 4 views of 32x32 a step, 24 cameras, {torch.get_num_threads()} threads; median of {repeats}"
    )
    for refresh in (1, 4):
        base = statistics.median(times["SDS", refresh])
        for name in ("SDS", "DSD"):
            median = statistics.median(times[name, refresh])
            print(
                f"{name}, a target held for {refresh} steps: {1e3 * median:5.1f} ms a step   {median / base:5.2f} of SDS"
            )
    print(
        "beginning, with the paths of all views: "
        + ", ".join(
            f"{name} {statistics.median(seconds):.2f} s, {kept[name] / 1e6:.1f} MB kept"
            for name, seconds in filling.items()
        )
    )


def networks(batch: int = 16) -> None:
    """Time a prediction of `icons-mini`."""
    seconds = seconds_a_prediction(load_prior("icons-mini"), batch)
    print(f"\nicons-mini: {1e3 * seconds:.1f} ms a picture and prediction, batch {batch}")


def pictures(seeds: int = 16, steps: int = 300, repeats: int = 3) -> None:
    """Time DDIM and each method on "a tree", 64x64, all pictures as the unconditional set, in turn,
    `repeats` times.
    """
    prior = load_prior("icons")
    cond = prior.condition("a tree")
    work = {"DDIM, 50 steps": lambda: ddim(prior, prior.noise(range(seeds)), cond)}
    for method in (SDS(), DSD(), DSD(form="reference"), DSD(form="x0"), DSD(snap=True)):
        work[str(method)] = lambda method=method: distill_images(
            prior, "a tree", method, range(seeds), steps
        )
    work["DSD*, 50 steps"] = lambda: distill_images(prior, "a tree", DSDStar(), range(seeds), 50)
    times = {name: [] for name in work}
    distill_images(prior, "a tree", SDS(), range(seeds), 20)  # threads and caches warm
    for _ in range(repeats):  # in turn, so that a drift of the machine's speed hits all alike
        for name, job in work.items():
            began = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - began)
    print(
        f"{len(prior.world)} pictures of 64x64, {seeds} seeds, {steps} steps, {torch.get_num_threads()} threads; "
        f"median of {repeats}"
    )
    base = statistics.median(times["SDS"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(
            f"{name:<24} {median:6.2f} s   {median / base:5.2f} of SDS   ({min(seconds):.2f} to {max(seconds):.2f})"
        )


def main() -> None:
    """All of it."""
    pictures()
    networks()
    scenes()

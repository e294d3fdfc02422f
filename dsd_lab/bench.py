"""How long things take here: `python -m dsd_lab.bench`. Not a test: machines differ, ratios should not."""

from __future__ import annotations

import statistics
import time

import torch

from . import DSD, SDS, DSDStar, ddim, distill_images, load_prior


def main(seeds: int = 16, steps: int = 300, repeats: int = 3) -> None:
    """Time DDIM and each method on "a tree", 64x64, all pictures as the unconditional set, in turn, `repeats` times."""
    prior = load_prior("icons")
    cond = prior.condition("a tree")
    work = {"DDIM, 50 steps": lambda: ddim(prior, prior.noise(range(seeds)), cond)}
    for method in (SDS(), DSD(), DSD(form="reference"), DSD(form="x0"), DSD(snap=True)):
        work[str(method)] = lambda method=method: distill_images(prior, "a tree", method, range(seeds), steps)
    work["DSD*, 50 steps"] = lambda: distill_images(prior, "a tree", DSDStar(), range(seeds), 50)
    times = {name: [] for name in work}
    distill_images(prior, "a tree", SDS(), range(seeds), 20)  # threads and caches warm
    for _ in range(repeats):  # in turn, so that a drift of the machine's speed hits all alike
        for name, job in work.items():
            began = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - began)
    print(f"{len(prior.world)} pictures of 64x64, {seeds} seeds, {steps} steps, {torch.get_num_threads()} threads; "
          f"median of {repeats}")
    base = statistics.median(times["SDS"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:<24} {median:6.2f} s   {median / base:5.2f} of SDS   ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()

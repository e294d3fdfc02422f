"""The few lines that compose the rooms: from a prompt and seeds to pictures, and to a comparison of methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .distill import Run, distill
from .draws import check_seeds
from .methods import DSDStar, Method
from .metrics import Report, evaluate
from .priors import Prior
from .sampling import ddim


def distill_images(prior: Prior, prompt: str | Sequence[str], method: Method, seeds: Sequence[int], steps: int = 300, *,
                   negative: str | Sequence[str] | None = None, progress: Callable[[Run], None] | None = None,
                   **settings) -> Run:
    """Distil one picture a seed and return the finished run: `run.images` (B, 3, H, W) in [0, 1].

    prompt: one for all seeds, or one a seed. settings: as in `distill`. progress: called with the run after each step.
    Ctrl-C returns what there is (`run.finished` tells). Raises TypeError for a prior of points, ValueError for
    anything that cannot be.
    """
    if len(prior.shape) != 3:
        raise TypeError(f"distill_images needs a prior of pictures; {prior.name} has items of shape {prior.shape}: use distill")
    return distill(prior, prior.condition(prompt, negative), method, seeds, steps, **settings).finish(progress)


@dataclass(frozen=True)
class Result:
    """One method on one prompt: images (B, 3, H, W), its report, and what it took.

    evaluations: predictions an item, in all. settings: start, optimiser, rate, ... as they were used.
    """

    images: Tensor
    report: Report
    evaluations: float
    seconds: float
    settings: dict
    finished: bool = True


def compare(prior: Prior, prompt: str, methods: Mapping[str, Method], seeds: Sequence[int], steps: int = 300, *,
            cfg: float = 7.5, ddim_steps: int = 50, progress: Callable[[str, Run], None] | None = None,
            **settings) -> dict[str, Result]:
    """DDIM and each method from the same seeds, measured alike: results by name, "DDIM" first.

    methods: by the name to show; their own cfg counts. steps: of every method but DSD*, which takes DDIM's.
    settings: as in `distill`, for all. progress: called with the name and the run after each step.
    Ctrl-C ends the comparison after the step under way: what it returns then has a result with finished=False.
    """
    def measured(work):
        before, began = prior.evaluations, time.perf_counter()
        done = work()
        return done, (prior.evaluations - before) / len(seeds), time.perf_counter() - began

    if "DDIM" in methods:
        raise ValueError('"DDIM" names the reference; give the method another name')
    seeds, cond = check_seeds(seeds), prior.condition(prompt)
    path, evaluations, seconds = measured(lambda: ddim(prior, prior.noise(seeds), cond, ddim_steps, cfg))
    reference = path.images
    results = {"DDIM": Result(reference, evaluate(reference, prior, prompt), evaluations, seconds,
                              {"steps": ddim_steps, "cfg": cfg})}
    for name, method in methods.items():
        count = ddim_steps if isinstance(method, DSDStar) else steps
        watch = (lambda run, name=name: progress(name, run)) if progress else None
        run, evaluations, seconds = measured(
            lambda: distill_images(prior, prompt, method, seeds, count, progress=watch, **settings))  # noqa: B023
        report = evaluate(run.images, prior, prompt, reference)
        results[name] = Result(run.images, report, evaluations, seconds, run.settings, run.finished)
        if not run.finished:
            break
    return results

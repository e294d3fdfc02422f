"""The measurements of lesson 05 that take too long for a notebook: `python -m dsd_lab.course.mini`.

SDS and DSD, its forms, and held targets on `icons-mini`, on prompts that no setting was chosen on.
What they come to is written to mini.json beside this file, with the command, versions and seconds.
"""

import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..command import run_module
from ..methods import DSD, SDS, Method
from ..metrics import clipped, distances, mean, mean_pairwise, saturation
from ..priors import load_prior
from ..studies.store import Content
from ..tasks import Result, compare
from ..threads import one_thread
from .measured import Table, Workers

TABLE, PRIOR = Table("mini", ("torch", "diffusers", "dsd_lab")), "icons-mini"
PROMPTS = ["a hamburger", "a dragon", "an apple"]
SEEDS, STEPS, CFG = range(8), 200, 4.0
METHODS = {
    "SDS": SDS(cfg=CFG),
    "DSD": DSD(cfg=CFG),
    "DSD, 10 nodes": DSD(cfg=CFG, spacing=100),
    "DSD x0": DSD(cfg=CFG, form="x0"),
    "DSD reference": DSD(cfg=CFG, form="reference"),
}
HELD = (1, 5)  # steps for which a target is held


def measure(
    folder: Annotated[Path | None, typer.Argument(help="Where the rows are kept.")] = None,
    workers: Workers = None,
) -> None:
    """Run what is still missing and write mini.json."""
    prior = load_prior(PRIOR)
    cells = [("DDIM", 1), *((name, refresh) for refresh in HELD for name in held(refresh))]
    facts = {
        "prior": prior.name,
        "prompts": PROMPTS,
        "seeds": len(SEEDS),
        "steps": STEPS,
        "cfg": CFG,
    }
    identity = facts | {"methods": {name: str(method) for name, method in METHODS.items()}}
    rows = [content.facts for content in TABLE.fill(folder, identity, cells, compute, workers)]
    facts["seconds"] = round(sum(row.pop("seconds") for row in rows))
    for row in rows:
        row.pop("versions", None)  # the table states them once
    data = [prior.world.images(prompt) for prompt in PROMPTS]
    figures_of_data = {
        "saturation": saturation(torch.cat(data)),
        "clipped": clipped(torch.cat(data)),
        "pairwise": mean(mean_pairwise(distances(part, part)) for part in data),
    }
    TABLE.write(facts, data=figures_of_data, rows=rows)


@one_thread()
def compute(cell: tuple[str, int]) -> Content:
    """One row: a method, or DDIM, on all prompts in one batch."""
    prior, (name, refresh), began = load_prior(PRIOR), cell, time.perf_counter()
    methods = {} if name == "DDIM" else {name: METHODS[name]}
    compared = compare(prior, PROMPTS, methods, SEEDS, STEPS, cfg=CFG, refresh=refresh)
    results = [by_method[name] for by_method in compared.values()]
    if not results[0].finished:
        raise KeyboardInterrupt
    row = {"method": name, "refresh": refresh, **figures(results)}
    return Content(row | {"seconds": time.perf_counter() - began})


def held(refresh: int) -> dict[str, Method]:
    """The methods whose targets are held for so many steps; the ode form steps by whole targets and
    has nothing to hold.
    """
    return {
        name: method
        for name, method in METHODS.items()
        if refresh == 1 or method.defaults.optimizer != "plain"
    }


def figures(results: list[Result]) -> dict:
    """One method's figures, averaged over its results of several prompts."""
    reports = [result.report for result in results]
    return {
        "distance": mean(r.distance.value for r in reports),
        "pairwise": mean(r.pairwise.value for r in reports),
        "agreement": mean(r.agreement.value if r.agreement else 0.0 for r in reports),
        "saturation": mean(saturation(result.images) for result in results),
        "clipped": mean(clipped(result.images) for result in results),
        "evaluations": mean(result.evaluations for result in results),
        "settings": results[0].settings,
    }


load = TABLE.load

if __name__ == "__main__":
    run_module(measure)

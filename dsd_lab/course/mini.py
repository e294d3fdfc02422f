"""The measurements of lesson 05 that take too long for a notebook: `python -m dsd_lab.course.mini`.

SDS and DSD, its forms, and held targets on `icons-mini`, on prompts that no setting was chosen on.
What they come to is written to mini.json beside this file, with the command, versions and seconds.
"""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from ..files import write_file
from ..methods import DSD, SDS, Method
from ..metrics.pictures import clipped, distances, mean_pairwise, saturation
from ..priors import load_prior
from ..tasks import Result, compare

TABLE = Path(__file__).parent / "mini.json"
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


def measure() -> None:
    """Run everything and write mini.json."""
    prior, rows, began = load_prior("icons-mini"), [], time.perf_counter()
    data = [prior.world.images(prompt) for prompt in PROMPTS]
    pictures = torch.cat(data)
    for refresh in HELD:
        methods = held(refresh)
        with tqdm(total=STEPS * len(methods), disable=None) as bar:
            results = compare(
                prior,
                PROMPTS,
                methods,
                SEEDS,
                STEPS,
                cfg=CFG,
                refresh=refresh,
                progress=lambda name, run, bar=bar: bar.update(),
            )
        for name in results[PROMPTS[0]]:
            if name != "DDIM" or refresh == 1:
                rows.append(
                    {
                        "method": name,
                        "refresh": refresh,
                        **figures([results[prompt][name] for prompt in PROMPTS]),
                    }
                )
    about = {
        "command": "python -m dsd_lab.course.mini",
        "prior": "icons-mini",
        "prompts": PROMPTS,
        "seeds": len(SEEDS),
        "steps": STEPS,
        "cfg": CFG,
        "cores": os.cpu_count(),
        "seconds": round(time.perf_counter() - began),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "dsd_lab")},
    }
    known = {
        "saturation": saturation(pictures),
        "clipped": clipped(pictures),
        "pairwise": sum(mean_pairwise(distances(part, part)) for part in data) / len(data),
    }
    write_file(TABLE, json.dumps({"about": about, "data": known, "rows": rows}, indent=1) + "\n")


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

    def mean(values):
        values = list(values)
        return sum(values) / len(values)

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


def load() -> dict:
    """mini.json: {"about", "data", "rows"}: what was run, the pictures' own figures, and a row for
    each method.
    """
    return json.loads(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    measure()

"""The measurements of lesson 05 that take too long for a notebook: `python -m dsd_lab.course.mini`.

SDS and DSD, its forms, and held targets on `icons-mini`, on prompts that no setting was chosen on. What they come to is
written to mini.json beside this file, with the command, versions and seconds.
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

from ..methods import DSD, SDS
from ..metrics import clipped, distances, mean_pairwise, saturation
from ..priors import load_prior
from ..report import write_file
from ..tasks import compare

TABLE = Path(__file__).parent / "mini.json"
PROMPTS = ["a hamburger", "a dragon", "an apple"]
SEEDS, STEPS, CFG = range(8), 200, 4.0
REFERENCE = {"form": "reference"}
RUNS = {  # method, refresh
    "SDS": (SDS, {}, 1), "SDS, held 5": (SDS, {}, 5),
    "DSD": (DSD, {}, 1), "DSD x0": (DSD, {"form": "x0"}, 1), "DSD x0, held 5": (DSD, {"form": "x0"}, 5),
    "DSD reference": (DSD, REFERENCE, 1), "DSD reference, held 5": (DSD, REFERENCE, 5),
}


def measure() -> None:
    """Run everything and write mini.json."""
    prior, rows, began = load_prior("icons-mini"), [], time.perf_counter()
    data = [prior.world.images(prompt) for prompt in PROMPTS]
    pictures = torch.cat(data)
    for label, (kind, settings, refresh) in RUNS.items():
        with tqdm(total=STEPS, desc=label, disable=None) as bar:
            results = compare(prior, PROMPTS, {label: kind(cfg=CFG, **settings)}, SEEDS, STEPS, cfg=CFG, refresh=refresh,
                              progress=lambda name, run, bar=bar: bar.update())
        for name in ("DDIM", label) if not rows else (label,):
            own = [results[prompt][name] for prompt in PROMPTS]
            mean = lambda read, own=own: sum(map(read, own)) / len(own)  # noqa: E731
            rows.append({"method": name, "refresh": refresh if name == label else None,
                         "distance": mean(lambda r: r.report.distance.value), "pairwise": mean(lambda r: r.report.pairwise.value),
                         "agreement": mean(lambda r: r.report.agreement.value) if name == label else 0.0,
                         "saturation": mean(lambda r: saturation(r.images)), "clipped": mean(lambda r: clipped(r.images)),
                         "evaluations": mean(lambda r: r.evaluations), "settings": own[0].settings})
    about = {"command": "python -m dsd_lab.course.mini", "prior": "icons-mini", "prompts": PROMPTS, "seeds": len(SEEDS),
             "steps": STEPS, "cfg": CFG, "cores": os.cpu_count(), "seconds": round(time.perf_counter() - began),
             "python": platform.python_version(), **{name: version(name) for name in ("torch", "diffusers", "dsd_lab")}}
    known = {"saturation": saturation(pictures), "clipped": clipped(pictures),
             "pairwise": sum(mean_pairwise(distances(part, part)) for part in data) / len(data)}
    write_file(TABLE, json.dumps({"about": about, "data": known, "rows": rows}, indent=1) + "\n")


def load() -> dict:
    """mini.json: {"about", "data", "rows"}: what was run, the pictures' own figures, and a row for each method."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    measure()

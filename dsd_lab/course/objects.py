"""The measurements of lesson 07 that take too long for a notebook: `python -m dsd_lab.course.objects`.

Text to 3-D on the exact prior `toybox`, several seeds of each method, on prompts that no setting was chosen on. Each object
is kept as it comes, so the command can be stopped and goes on. What they come to is written to objects.json beside this
file, with the command, versions and seconds.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from ..cameras import HELD_OUT
from ..distill_scene import SCENE_DSD
from ..methods import ASD, DSD, SDI, SDS, ConsistentODE
from ..metrics_scene import judge_views
from ..priors import load_prior
from ..report import slug, write_file
from ..scene import Scene
from ..tasks import text_to_3d

TABLE = Path(__file__).parent / "objects.json"
PROMPTS, STEPS = ["a chair", "a dragon"], 400
SEEDS, FEWER = range(8), range(4)  # fewer for what only shows why the defaults are what they are
RUNS = {  # method, refresh (steps for which a target is held), seeds
    "SDS": (SDS(), 4, SEEDS), "DSD": (SCENE_DSD, 4, SEEDS), "ASD": (ASD(), 4, SEEDS),
    "ConsistentODE": (ConsistentODE(), 4, SEEDS), "SDI": (SDI(t_first=0.1), 4, SEEDS),
    "SDS, not held": (SDS(), 1, FEWER), "DSD, not held": (SCENE_DSD, 1, FEWER),
    "DSD ode": (DSD(), 4, FEWER), "DSD reference": (DSD(form="reference"), 4, FEWER),
}


def measure(folder: Annotated[Path, typer.Argument(help="Where the objects are kept.")] = Path("results/objects")) -> None:
    """Make what is still missing, judge everything, and write objects.json."""
    prior, rows = load_prior("toybox"), []
    folder.mkdir(parents=True, exist_ok=True)
    cells = [(prompt, label, seed) for label in RUNS for prompt in PROMPTS for seed in RUNS[label][2]]
    seconds: dict[tuple[str, str], list[float]] = {}
    for prompt, label, seed in tqdm(cells, disable=None):
        file = folder / f"{slug(prompt)}-{slug(label)}-{seed}.safetensors"
        note = file.with_suffix(".seconds")
        if not note.is_file():
            method, refresh, _ = RUNS[label]
            began = time.perf_counter()
            text_to_3d(prior, prompt, method, seed, STEPS, refresh=refresh).save(file)
            write_file(note, f"{time.perf_counter() - began:.1f}")
        seconds.setdefault((prompt, label), []).append(float(note.read_text()))
    for prompt in PROMPTS:
        for label, (method, refresh, seeds) in RUNS.items():
            files = [folder / f"{slug(prompt)}-{slug(label)}-{seed}.safetensors" for seed in seeds]
            views = torch.stack([Scene.load(file).images(HELD_OUT, 64) for file in files])
            report = judge_views(views, prior.world, prompt)
            own = seconds[prompt, label]
            rows.append({"prompt": prompt, "method": label, "settings": str(method), "refresh": refresh, **asdict(report),
                         "seconds": sum(own) / len(own)})
    about = {"command": "python -m dsd_lab.course.objects", "prior": "toybox, 64 px, 24 cameras", "steps": STEPS,
             "judged": f"{len(HELD_OUT)} held-out cameras, 64 px", "cores": os.cpu_count(),
             "threads": torch.get_num_threads(), "python": platform.python_version(),
             **{name: version(name) for name in ("torch", "dsd_lab")}}
    write_file(TABLE, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def load() -> dict:
    """objects.json: {"about", "rows"}: what was run, and a row for each prompt and method."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    typer.run(measure)

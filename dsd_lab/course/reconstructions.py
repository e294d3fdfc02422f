"""Reconstruction from one picture, measured: `python -m dsd_lab.course.reconstructions`.

On the exact priors of new views, the one that denoises each view alone and the joint one, several
seeds of each method, from pictures that leave three objects open, and from one of a toy that the
priors do not know. No setting was chosen on these. Each scene is kept as it comes, so the command
can be stopped and goes on. What they come to is written to reconstructions.json beside this file,
with the command, versions and seconds.
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

from ..cameras import HELD_OUT, Camera
from ..files import slug, write_file
from ..inputs import InputView, input_view
from ..methods import ASD, SDI, SDS, ConsistentODE
from ..metrics.scenes import judge_reconstructions
from ..priors import NovelViewSet, load_prior
from ..scene import Scene
from ..tasks import NOVEL_VIEW_DSD, image_to_3d
from ..worlds import Toys, make_toys, render

TABLE = Path(__file__).parent / "reconstructions.json"
CAMERA, STEPS, CFG = Camera(0, 20), 300, NOVEL_VIEW_DSD.cfg
TWINS = {
    "a house": ("house", 10),
    "a mug": ("mug", 11),
}  # kind and seed of three toys with one front
UNKNOWN = {"a chair that is not in the set": ("chair", 100)}
PRIORS = {"each view alone": "toybox-novel-view", "all views jointly": "toybox-novel-view-joint"}
NETWORK = {
    "a network": "toybox-novel-view-mini"
}  # which knows no set, and is only asked about the unknown
RUNS = {  # and how many seeds
    "SDS": (SDS(cfg=CFG), 8),
    "DSD": (NOVEL_VIEW_DSD, 8),
    "ASD": (ASD(cfg=CFG), 2),
    "ConsistentODE": (ConsistentODE(cfg=CFG), 2),
    "SDI": (SDI(cfg=CFG, t_first=0.1), 2),
}
UNKNOWN_SEEDS = 2


def picture(prior: NovelViewSet, name: str) -> tuple[InputView, Toys]:
    """A picture of the study, and the toys that it may show: those that the prior cannot tell apart
    from it, or the true one.
    """
    if name in UNKNOWN:
        toy = make_toys(*([part] for part in UNKNOWN[name]))
        return input_view(
            render(toy, [CAMERA], prior.picture_size).rgb[0, 0], CAMERA, prior.picture_size
        ), toy
    kind, seed = TWINS[name]
    toys = make_toys([kind] * 3, [seed] * 3, [0, 1, 2])
    view = input_view(
        render(toys.subset(0), [CAMERA], prior.picture_size).rgb[0, 0], CAMERA, prior.picture_size
    )
    return view, prior.world.toys.subset(prior.answers(view))


def measure(
    folder: Annotated[Path, typer.Argument(help="Where the scenes are kept.")] = Path(
        "results/reconstructions"
    ),
) -> None:
    """Make what is still missing, judge everything, and write reconstructions.json."""
    rows, made, known = [], {}, PRIORS | NETWORK
    cells = [
        (views, name, label, seed)
        for views in PRIORS
        for label, (_, seeds) in RUNS.items()
        for name in TWINS
        for seed in range(seeds)
    ]
    cells += [
        (views, name, label, seed)
        for views in known
        for name in UNKNOWN
        for label in ("SDS", "DSD")
        for seed in range(UNKNOWN_SEEDS)
    ]
    shown = {name: picture(load_prior("toybox-novel-view"), name) for name in (*TWINS, *UNKNOWN)}
    for views, name, label, seed in tqdm(cells, disable=None):
        file = folder / known[views] / f"{slug(name)}-{slug(label)}-{seed}.safetensors"
        note = file.with_suffix(".seconds")
        if not note.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            prior, began = load_prior(known[views]), time.perf_counter()
            image_to_3d(prior, shown[name][0], RUNS[label][0], seed, STEPS).save(file)
            write_file(note, f"{time.perf_counter() - began:.1f}")
        made.setdefault((views, name, label), []).append((file, float(note.read_text())))
    for (views, name, label), own in made.items():
        report = judge_reconstructions([Scene.load(file) for file, _ in own], *shown[name])
        rows.append(
            {
                "picture": name,
                "prior": views,
                "method": label,
                "settings": str(RUNS[label][0]),
                **asdict(report),
                "seconds": sum(seconds for _, seconds in own) / len(own),
            }
        )
    about = {
        "command": "python -m dsd_lab.course.reconstructions",
        "priors": known,
        "camera": str(CAMERA),
        "steps": STEPS,
        "judged": f"{len(HELD_OUT)} held-out cameras, 64 px",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "dsd_lab")},
    }
    write_file(TABLE, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def load() -> dict:
    """reconstructions.json: {"about", "rows"}: what was run, and a row for each picture, prior and
    method.
    """
    return json.loads(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    typer.run(measure)

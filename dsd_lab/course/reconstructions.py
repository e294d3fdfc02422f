"""Reconstruction from one picture, measured: `python -m dsd_lab.course.reconstructions`.

On the exact priors of new views, the one that denoises each view alone and the joint one, several
seeds of each method, from pictures that leave three objects open, and from one of a toy that the
priors do not know. No setting was chosen on these. Each scene is kept as it comes, so the command
can be stopped and goes on. What they come to is written to reconstructions.json beside this file,
with the command, versions and seconds. `--only "a network"` makes the rows of one prior anew.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..cameras import HELD_OUT, Camera
from ..checks import choice
from ..command import run_module
from ..inputs import InputView, input_view
from ..methods import ASD, SDI, SDS, ConsistentODE
from ..metrics import judge_reconstructed_views
from ..priors import NovelViewSet, load_prior
from ..scene import Scene
from ..tasks import NOVEL_VIEW_DSD, image_to_3d
from ..worlds import Toys, make_toys, render
from .measured import JUDGED, Only, Table, Workers

TABLE = Table("reconstructions")
CAMERA, STEPS, CFG = Camera(0, 20), 300, NOVEL_VIEW_DSD.cfg
# kind and seed of three toys with one front
TWINS = {"a house": ("house", 10), "a mug": ("mug", 11)}
UNKNOWN = {"a chair that is not in the set": ("chair", 100)}
PRIORS = {"each view alone": "toybox-novel-view", "all views jointly": "toybox-novel-view-joint"}
# which knows no set, and is only asked about the unknown
NETWORK = {"a network": "toybox-novel-view-mini"}
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
    (kind, seed), size = (TWINS | UNKNOWN)[name], prior.picture_size
    backs = [0, 1, 2] if name in TWINS else [None]
    toys = make_toys([kind] * len(backs), [seed] * len(backs), backs)
    view = input_view(render(toys.subset(0), [CAMERA], size).rgb[0, 0], CAMERA, size)
    return view, prior.world.toys.subset(prior.answers(view)) if name in TWINS else toys


def distil(
    views: dict[str, InputView], prior: str, name: str, label: str, seed: int, progress: Callable
) -> Scene:
    """One scene of a picture of the study."""
    model, method = load_prior((PRIORS | NETWORK)[prior]), RUNS[label][0]
    return image_to_3d(model, views[name], method, seed, STEPS, progress=progress)


def measure(
    folder: Annotated[Path | None, typer.Argument(help="Where the scenes are kept.")] = None,
    only: Only = None,
    workers: Workers = None,
) -> None:
    """Make what is still missing, judge everything, and write reconstructions.json."""
    wanted = [choice("prior", name, PRIORS | NETWORK) for name in only or PRIORS | NETWORK]
    pictures = {n: picture(load_prior("toybox-novel-view"), n) for n in (*TWINS, *UNKNOWN)}
    views = {name: view for name, (view, _) in pictures.items()}
    truth = {name: render(toys, HELD_OUT, 64).rgb for name, (_, toys) in pictures.items()}

    def judge(prior, name, label, seen):
        about = {"picture": name, "prior": prior, "method": label, "settings": str(RUNS[label][0])}
        held_out, shown = seen[:, :-1], seen[:, -1]
        return about | asdict(judge_reconstructed_views(held_out, shown, views[name], truth[name]))

    groups = {(p, n, m): range(RUNS[m][1]) for p in PRIORS for m in RUNS for n in TWINS}
    groups |= {
        (prior, name, label): range(UNKNOWN_SEEDS)
        for prior in PRIORS | NETWORK
        for name in UNKNOWN
        for label in ("SDS", "DSD")
    }
    groups = {group: seeds for group, seeds in groups.items() if group[0] in wanted}
    identity = {"steps": STEPS, "runs": {label: str(method) for label, (method, _) in RUNS.items()}}
    cameras = (*HELD_OUT, CAMERA)
    made = partial(distil, views)
    rows = TABLE.scenes(folder, identity, groups, made, judge, cameras, workers)
    facts = {"priors": PRIORS | NETWORK, "camera": str(CAMERA), "steps": STEPS, "judged": JUDGED}
    kept = load()["rows"] if only and TABLE.path.exists() else []
    TABLE.write(facts, rows=[row for row in kept if row["prior"] not in wanted] + rows)


load = TABLE.load

if __name__ == "__main__":
    run_module(measure)

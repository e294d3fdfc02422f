"""The measurements of lesson 04 that take too long for a notebook: `python -m
dsd_lab.course.family`.

Three studies on `icons` at 32 px, on prompts that no setting was chosen on; what they sum up to,
and what the judge says of the family, is written to family.json beside this file, with the command,
versions and seconds. The studies' folders are kept where the command is told, so it can be stopped
and goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from ..checks import choice
from ..command import run_module
from ..methods import ASD, DSD, SDS, VARIANTS
from ..metrics import Estimate, JudgeNetwork, kid, load_judge, precision_recall
from ..metrics.sets import FEWEST
from ..priors import Prior, load_prior
from ..studies import Grid, Setting, Study, Summary, study, summarise
from ..worlds import PictureWorld
from .measured import Only, Table, Workers

TABLE = Table("family")
PROMPTS = [
    "a hamburger",
    "a dragon",
    "an apple",
    "a castle",
    "a cat",
    "a dog",
    "a car",
    "a bird",
    "a fish",
    "a flower",
    "a house",
    "a rocket",
]

FAMILY = {v.label: v.make() for v in VARIANTS.values() if not v.kind.needs_source}
REFERENCE = {"form": "reference"}
SWITCHES = {
    "ASD": ASD(),
    "ASD, t falls": DSD(**REFERENCE, noise="random"),
    "DSD reference": DSD(**REFERENCE),
    "DSD reference, equal guidance": DSD(**REFERENCE, reference_cfg=7.5),
    "DSD": DSD(),
    **{f"reference guidance {c:g}": DSD(**REFERENCE, reference_cfg=c) for c in (2.0, 4.0)},
    **{f"shift {s:g}": DSD(**REFERENCE, shift=s) for s in (0.0, 0.05, 0.2, 0.4)},
    "linear, reference": DSD(**REFERENCE, anneal="linear"),
    "linear, ode": DSD(anneal="linear"),
    **{f"spacing {s}": DSD(spacing=s) for s in (300, 200, 50, 20)},
    **{f"t_min {t:g}, ode": DSD(t_min=t) for t in (0.1, 0.2, 0.32, 0.5)},
    **{f"t_min {t:g}, reference": DSD(**REFERENCE, t_min=t) for t in (0.02, 0.1, 0.2, 0.5)},
}
GUIDANCE = (1.0, 3.0, 7.5, 15.0, 30.0, 100.0)

GRIDS = {
    "family": Grid(FAMILY, PROMPTS, list(range(16))),
    "switches": Grid(SWITCHES, PROMPTS[:6], list(range(8))),
    "guidance": Grid(
        {"SDS": SDS(), "DSD": DSD()},
        PROMPTS[:6],
        list(range(8)),
        [Setting(cfg=c) for c in GUIDANCE],
    ),
}


def measure(
    folder: Annotated[Path, typer.Argument(help="Where the studies are kept.")] = Path(
        "results/family"
    ),
    only: Only = None,
    workers: Workers = None,
) -> None:
    """Run the three studies, or what they still lack, and write family.json."""
    prior = load_prior("icons", size=32)
    run(TABLE, "icons, 32 px", prior, GRIDS, ["family"], folder, only, workers)


def run(
    table: Table,
    about: str,
    prior: Prior,
    grids: Mapping[str, Grid],
    judging: Sequence[str],
    folder: Path,
    only: Sequence[str] | None = None,
    workers: int | None = None,
) -> None:
    """Run studies on a prior of drawings, those in `only` or all, and write their table after each.

    judging: the studies whose samples the judge sees, too.
    """
    wanted = [choice("study", name, grids) for name in only or grids]
    judge, content = load_judge("icons"), table.load() if only and table.path.exists() else {}
    for name in wanted:
        done = study(prior, grids[name], folder / name, executor=workers)
        if not done.finished:
            typer.echo("not complete; the same command goes on")
            raise typer.Exit(1)
        by = judge if name in judging else None
        content[name] = [asdict(s) for s in summarise(folder / name, by)]
        if by:
            content[of_judged(name)] = judged(done, prior.world, by)
        # in all calls, if it was stopped between
        rows = [row for name in grids for row in content.get(name, ())]
        seconds = sum(row["seconds"] * row["prompts"] * row["seeds"] for row in rows)
        content.pop("about", None)
        table.write({"prior": about, "seconds": round(seconds)}, **content)


def of_judged(name: str) -> str:
    """Under which name a table has what the judge says of a study."""
    return "judged" if name == "family" else f"{name}, judged"


def judged(done: Study, world: PictureWorld, judge: JudgeNetwork) -> dict[str, dict[str, Estimate]]:
    """Each method's samples of all prompts together against all drawings of these prompts, in the
    judge's features: unbiased KID and, of enough samples, precision and recall, with their
    intervals.
    """
    data = torch.cat([*map(world.images, done.identity["prompts"])])
    images: dict[str, list[Tensor]] = {}
    for cell in done.cells:
        images.setdefault(cell.method, []).append(cell.images)
    found = {}
    for method, parts in images.items():
        samples = torch.cat(parts)
        found[method] = {"kid": kid(samples, data, whole=True, features=judge.features)}
        if min(len(samples), len(data)) >= FEWEST:
            found[method] |= precision_recall(samples, data, features=judge.features)._asdict()
    return found


def load(table: Table = TABLE) -> dict:
    """A table: {"about": ..., for each study its `Summary`s by label, best first, and "judged": for
    each method of the family what `judged` returns}.
    """
    content = table.load()
    found = {name: content.pop(name) for name in [*content] if name.endswith("judged")}

    def estimates(row):
        return {k: Estimate(*v) if isinstance(v, list) else v for k, v in row.items()}

    return {
        "about": content.pop("about"),
        **{name: {m: estimates(row) for m, row in rows.items()} for name, rows in found.items()},
        **{
            name: {row["label"]: Summary(**estimates(row)) for row in rows}
            for name, rows in content.items()
        },
    }


if __name__ == "__main__":
    run_module(measure)

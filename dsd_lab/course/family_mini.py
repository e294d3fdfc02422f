"""The family on a trained network: `python -m dsd_lab.course.family_mini`.

As `dsd_lab.course.family`, on `icons-mini` and with fewer steps: all methods, then a few of them
from more seeds, and FSD and CFD again with about as many evaluations as DSD.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..command import run_module
from ..priors import load_prior
from ..studies import Grid, Setting
from .family import FAMILY, PROMPTS, run
from .family import load as load_table
from .measured import Only, Table, Workers

TABLE = Table("family_mini", ("torch", "diffusers", "dsd_lab"))
STEPS, CFG = 100, 4.0
WIDE = ("SDS", "FSD", "CFD", "DSD", "VSD")


def grid(names, prompts: int, seeds: int, steps: int = STEPS) -> Grid:
    """Methods of the family on the first of its prompts."""
    methods = {name: FAMILY[name] for name in names}
    return Grid(methods, PROMPTS[:prompts], list(range(seeds)), [Setting(cfg=CFG, steps=steps)])


GRIDS = {
    "wide": grid(WIDE, 6, 16),
    "equal evaluations": grid(("FSD", "CFD"), 6, 16, 3 * STEPS),
    "family": grid(FAMILY, 4, 8),
}


def measure(
    folder: Annotated[Path, typer.Argument(help="Where the studies are kept.")] = Path(
        "results/family_mini"
    ),
    only: Only = None,
    workers: Workers = None,
) -> None:
    """Run the studies, or what they still lack, and write family_mini.json."""
    prior = load_prior("icons-mini")
    run(TABLE, "icons-mini, 64 px", prior, GRIDS, [*GRIDS], folder, only, workers)


def load() -> dict:
    """family_mini.json, as `dsd_lab.course.family.load` reads its own."""
    return load_table(TABLE)


if __name__ == "__main__":
    run_module(measure)

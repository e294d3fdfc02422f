"""What a study runs: every method on every prompt at every setting, with all seeds in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from ..checks import choice
from ..distill import check_settings
from ..draws import check_seeds
from ..methods import Method
from ..priors import Prior

REFERENCE = "DDIM"


@dataclass(frozen=True)
class Setting:
    """How a cell is run: None leaves it to the method. The DDIM that a cell is compared with has
    its cfg.
    """

    cfg: float | None = None
    steps: int = 300
    lr: float | None = None
    start: str | None = None
    optimizer: str | None = None
    refresh: int = 1

    @classmethod
    def of(cls, values: Setting | Mapping) -> Setting:
        """A setting from a mapping too. Raises ValueError for a name that is no setting."""
        if isinstance(values, Setting):
            return values
        for name in values:
            choice("setting", name, [f.name for f in fields(cls)])
        return cls(**values)


@dataclass(frozen=True)
class Grid:
    """Every method, by the name to show, on every prompt with all seeds at every setting; DDIM
    beside them.

    settings: `Setting`s, or mappings such as {"cfg": 20, "steps": 100}. ddim_steps: of DDIM and of
    DSD*.
    """

    methods: Mapping[str, Method]
    prompts: Sequence[str]
    seeds: Sequence[int]
    settings: Sequence[Setting | Mapping] = (Setting(),)
    ddim_steps: int = 50


class Cell(NamedTuple):
    """One batch of a study; method None is DDIM. settings: as they are used. reference: the cell of
    its DDIM.
    """

    name: str
    prompt: str
    method: Method | None
    settings: dict
    reference: int | None

    def __str__(self):
        return f"{self.name}, {self.prompt}, cfg {self.settings['cfg']:g}"


def plan(prior: Prior, grid: Grid) -> list[Cell]:
    """The cells of a study, each DDIM before what is compared with it. Raises TypeError or
    ValueError for what cannot be.
    """
    _check(prior, grid)
    runs = [
        _run(name, method, setting, grid.ddim_steps)
        for setting in map(Setting.of, grid.settings)
        for name, method in grid.methods.items()
    ]
    cells: list[Cell] = []
    for prompt in dict.fromkeys(prior.resolve(p) for p in grid.prompts):
        reference: dict[float, int] = {}
        for name, method, settings in runs:
            cfg = settings["cfg"]
            if cfg not in reference:
                reference[cfg] = len(cells)
                ddim = {"cfg": cfg, "steps": grid.ddim_steps}
                cells.append(Cell(REFERENCE, prompt, None, ddim, None))
            cell = Cell(name, prompt, method, settings, reference[cfg])
            if cell not in cells:  # two settings may come to the same for a method
                cells.append(cell)
    return cells


def _run(name: str, method: Method, setting: Setting, ddim_steps: int) -> tuple[str, Method, dict]:
    """A method as a setting has it, and the settings that it is run with."""
    if not isinstance(method, Method):
        raise TypeError(f"{name} must be a method object such as dsd_lab.DSD(), got {method!r}")
    if method.needs_source:
        raise ValueError(
            f"{name} cannot be studied: {method.name} edits a given picture, it makes none from a "
            "prompt and a seed; leave it out"
        )
    steps = ddim_steps if method.takes_ddim_steps else setting.steps
    if not isinstance(setting.start, str | None):
        kind = type(setting.start).__name__
        raise TypeError(f"a study's start is a name (zeros, x0hat) or None, got {kind}")
    start, optimizer, lr = check_settings(
        method, steps, setting.start, setting.optimizer, setting.lr, setting.refresh
    )
    method = method if setting.cfg is None else replace(method, cfg=setting.cfg)
    used = {"cfg": float(method.cfg), "steps": steps, "lr": lr, "start": start}
    return name, method, used | {"optimizer": optimizer, "refresh": setting.refresh}


def _check(prior: Prior, grid: Grid) -> None:
    if len(prior.shape) != 3:
        raise TypeError(
            f"a study needs a prior of pictures; {prior.name} has items of shape {prior.shape}"
        )
    seeds = check_seeds(grid.seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the seeds repeat: {seeds}; a seed counts once in a study")
    for name, values, kind, text in (
        ("methods", grid.methods, Mapping, "mapping {name: method}"),
        ("prompts", grid.prompts, (list, tuple), "list"),
        ("settings", grid.settings, (list, tuple), "list"),
    ):
        if not isinstance(values, kind):
            raise TypeError(f"{name} must be a {text}, got {values!r}")
        if not values:
            raise ValueError(f"{name} is empty; give at least one")
    if REFERENCE in grid.methods:
        raise ValueError(f'"{REFERENCE}" names the reference; give the method another name')
    prior.schedule.timesteps(grid.ddim_steps)

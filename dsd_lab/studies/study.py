"""A grid of experiments on any prior of pictures: written to disk as it comes, safe to kill, summed
up at the end.

A study is a folder: `table.jsonl`, whose first line says what the study is and whose every further
line is one result, and `pictures/`, one file a cell (a method on a prompt at a setting, with all
seeds in one batch). A cell's file is written, whole, before its rows, and holds them too; the table
is always a beginning of the one that an undisturbed run writes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..distill.pictures import check_settings, distill
from ..draws import check_seeds
from ..files import file_names, prepare_folder, write_file
from ..methods import DDS, DSDStar, Method
from ..metrics.pictures import (
    RADIUS,
    Estimate,
    apart,
    bootstrap,
    distances,
    jackknife,
    mean_pairwise,
    modes_even,
    vendi,
)
from ..priors import ImageSet, Prior, check_cfg
from ..sampling import ddim
from ..worlds import PictureWorld

VERSION = 1  # of the table's form
TABLE, PICTURES, REFERENCE = "table.jsonl", "pictures", "DDIM"


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

    def __post_init__(self):
        if self.cfg is not None:
            object.__setattr__(self, "cfg", check_cfg(self.cfg))
        if not isinstance(self.start, (str, type(None))):
            raise TypeError(
                f"a study's start is a name (zeros, x0hat) or None, got {type(self.start).__name__}"
            )

    @classmethod
    def of(cls, values: Setting | Mapping) -> Setting:
        """A setting from a mapping too. Raises ValueError for a name that is no setting."""
        if isinstance(values, Setting):
            return values
        allowed = [f.name for f in fields(cls)]
        for name in values:
            if name not in allowed:
                raise ValueError(f'unknown setting "{name}"; allowed: {", ".join(allowed)}')
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

    def keys(self, seeds: Sequence[int]) -> list[dict]:
        """What its rows begin with."""
        return [
            {"method": self.name, "prompt": self.prompt, "seed": seed, "settings": self.settings}
            for seed in seeds
        ]


def plan(prior: Prior, grid: Grid) -> list[Cell]:
    """The cells of a study in the order in which they are run. Raises TypeError or ValueError for
    what cannot be.
    """
    if len(prior.shape) != 3:
        raise TypeError(
            f"a study needs a prior of pictures; {prior.name} has items of shape {prior.shape}"
        )
    seeds = check_seeds(grid.seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the seeds repeat: {seeds}; a seed counts once in a study")
    for what, values, kind in (
        ("methods", grid.methods, Mapping),
        ("prompts", grid.prompts, (list, tuple)),
        ("settings", grid.settings, (list, tuple)),
    ):
        if not isinstance(values, kind):
            raise TypeError(
                f"{what} must be a {'mapping {name: method}' if what == 'methods' else 'list'}, got {values!r}"
            )
        if not values:
            raise ValueError(f"{what} is empty; give at least one")
    if REFERENCE in grid.methods:
        raise ValueError(f'"{REFERENCE}" names the reference; give the method another name')
    prior.schedule.timesteps(grid.ddim_steps)
    wanted = []
    for setting in map(Setting.of, grid.settings):
        for name, method in grid.methods.items():
            if isinstance(method, DDS):
                raise ValueError(
                    f"{name} cannot be studied: DDS edits a given picture, it makes none from a prompt and a seed; "
                    "leave it out"
                )
            steps = grid.ddim_steps if isinstance(method, DSDStar) else setting.steps
            start, optimizer, lr = check_settings(
                method, steps, setting.start, setting.optimizer, setting.lr, setting.refresh
            )
            method = method if setting.cfg is None else replace(method, cfg=setting.cfg)
            wanted.append(
                (
                    name,
                    method,
                    {
                        "cfg": float(method.cfg),
                        "steps": steps,
                        "lr": lr,
                        "start": start,
                        "optimizer": optimizer,
                        "refresh": setting.refresh,
                    },
                )
            )
    cells: list[Cell] = []
    for prompt in dict.fromkeys(prior.resolve(p) for p in grid.prompts):
        at: dict[float, int] = {}
        for name, method, settings in wanted:
            cfg = settings["cfg"]
            if cfg not in at:
                at[cfg] = len(cells)
                cells.append(
                    Cell(REFERENCE, prompt, None, {"cfg": cfg, "steps": grid.ddim_steps}, None)
                )
            cell = Cell(name, prompt, method, settings, at[cfg])
            if cell not in cells[at[cfg] :]:  # two settings may come to the same for a method
                cells.append(cell)
    return cells


def study(prior: Prior, grid: Grid, path: str | Path, *, progress: bool = True) -> Study:
    """Run what a grid still lacks in the folder `path`, and return what is there.

    Killed at any moment and called again with the same grid, it goes on: no cell is computed twice,
    a torn last row is written anew, and the rows come out as if nothing had happened (all but their
    seconds). Ctrl-C ends it after the step under way; the cell is then lost, `finished` of what it
    returns is False. All numbers are of the pictures as they are kept, in 8 bits. progress: a bar.
    Raises ValueError for a table of another version, grid or prior, for one that is being written
    to, and, as TypeError does, for a grid that cannot be.
    """
    from tqdm import tqdm

    cells, folder = plan(prior, grid), prepare_folder(path)
    seeds = check_seeds(grid.seeds)
    (folder / PICTURES).mkdir(exist_ok=True)
    header = _header(prior, grid, cells)
    identity = {name: header[name] for name in ("version", "dsd_lab", "prior", "grid")}
    mark = hashlib.blake2b(_line(identity), digest_size=16).hexdigest()
    keys = [key for cell in cells for key in cell.keys(seeds)]
    steps = sum(cell.settings["steps"] for cell in cells)
    with (
        _table(folder / TABLE, header, keys) as (file, kept),
        tqdm(total=steps, disable=not progress, leave=False) as bar,
    ):
        for k, cell in enumerate(cells):
            bar.set_description(f"{cell.name}, {cell.prompt}", refresh=False)
            rows = _kept_rows(folder, k, mark, cell.keys(seeds))
            if rows is None:
                rows = _run(prior, cell, seeds, folder, k, mark, bar)
                if rows is None:
                    break
            else:
                bar.update(cell.settings["steps"])
            fresh = rows[max(0, kept - k * len(seeds)) :]
            file.write(b"".join(map(_line, fresh)))
            file.flush()
            os.fsync(file.fileno())
    return read(folder)


def _run(
    prior: Prior, cell: Cell, seeds: list[int], folder: Path, k: int, mark: str, bar
) -> list[dict] | None:
    """Compute a cell, keep its pictures and rows in its file, and return the rows; None after
    Ctrl-C.
    """
    began, before, cond = time.perf_counter(), prior.evaluations, prior.condition(cell.prompt)
    settings = cell.settings
    try:
        if cell.method is None:
            images = ddim(
                prior, prior.noise(seeds), cond, settings["steps"], settings["cfg"]
            ).images
            bar.update(settings["steps"])
        else:
            how = {name: settings[name] for name in ("start", "optimizer", "lr", "refresh")}
            run = distill(prior, cond, cell.method, seeds, settings["steps"], **how).finish(
                lambda run: bar.update(1)
            )
            if not run.finished:
                return None
            images = run.images
    except KeyboardInterrupt:
        return None
    evaluations, seconds = (
        (prior.evaluations - before) / len(seeds),
        (time.perf_counter() - began) / len(seeds),
    )
    pixels = (images.detach().cpu() * 255).round().byte()
    reference = None if cell.reference is None else _pictures(folder, cell.reference)
    rows = [
        key | numbers | {"evaluations": evaluations, "seconds": round(seconds, 5)}
        for key, numbers in zip(
            cell.keys(seeds),
            _numbers(prior, cell.prompt, pixels.float() / 255, reference),
            strict=True,
        )
    ]
    packed = io.BytesIO()
    np.savez_compressed(
        packed, images=pixels.numpy(), rows=np.array(json.dumps(rows)), study=np.array(mark)
    )
    write_file(_file(folder, k), packed.getvalue())
    return rows


def _numbers(prior: Prior, prompt: str, images: Tensor, reference: Tensor | None) -> list[dict]:
    """What is measured of each picture: its nearest picture of the prompt and how far, and the
    reference's, if they are known.
    """
    nothing = [None] * len(images)
    agreement = nothing if reference is None else apart(images, reference).tolist()
    distance, nearest, same = nothing, nothing, nothing
    if isinstance(world := getattr(prior, "world", None), PictureWorld):
        pictures = world.images(prompt)
        distance, nearest = (v.tolist() for v in distances(images, pictures).min(1))
        if reference is not None:
            same = [
                a == b
                for a, b in zip(
                    nearest, distances(reference, pictures).argmin(1).tolist(), strict=True
                )
            ]
    return [
        dict(zip(("nearest", "distance", "agreement", "same_mode"), values, strict=True))
        for values in zip(nearest, distance, agreement, same, strict=True)
    ]


# ---- on disk -------------------------------------------------------------------------------------


def _line(row: dict) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _file(folder: Path, k: int) -> Path:
    return folder / PICTURES / f"{k:05d}.npz"


def _pictures(folder: Path, k: int) -> Tensor:
    """The pictures of a cell: float32 (n, 3, H, W) in [0, 1]."""
    with np.load(_file(folder, k)) as kept:
        return torch.from_numpy(kept["images"]).float() / 255


def _kept_rows(folder: Path, k: int, mark: str, keys: list[dict]) -> list[dict] | None:
    """The rows in a cell's file, or None if there is none, it is damaged or belongs to another
    study.
    """
    try:
        with np.load(_file(folder, k)) as kept:
            if str(kept["study"]) != mark or len(kept["images"]) != len(keys):
                return None
            rows = json.loads(str(kept["rows"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return rows if [_key(row) for row in rows] == keys else None


def _key(row: dict) -> dict:
    return {name: row.get(name) for name in ("method", "prompt", "seed", "settings")}


def _header(prior: Prior, grid: Grid, cells: Sequence[Cell]) -> dict:
    """The table's first line: what the study is, and with what it was begun."""
    from .. import __version__

    prompts = list(dict.fromkeys(cell.prompt for cell in cells))
    about: dict = {"name": prior.name, "shape": prior.shape}
    world = getattr(prior, "world", None)
    known = isinstance(world, PictureWorld)
    if known:
        data = hashlib.blake2b(world.pixels.numpy().tobytes(), digest_size=16)
        data.update(world.label.numpy().tobytes())
        about |= {"data": data.hexdigest()}
    if isinstance(prior, ImageSet):
        about |= {"scale": prior.scale}
    header = {
        "table": "dsd_lab study",
        "version": VERSION,
        "dsd_lab": __version__,
        "prior": about,
        "grid": {
            "methods": {
                name: {"class": type(m).__name__, **asdict(m)} for name, m in grid.methods.items()
            },
            "prompts": prompts,
            "seeds": check_seeds(grid.seeds),
            "settings": [asdict(Setting.of(s)) for s in grid.settings],
            "ddim_steps": grid.ddim_steps,
        },
        "pictures": {p: len(world.index(p)) for p in prompts} if known else None,
        "rows": len(cells) * len(grid.seeds),
        "credit": world.credit if known else "",
        "packages": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    return json.loads(json.dumps(header))  # tuples become lists, as they are when read back


@contextmanager
def _table(path: Path, header: dict, keys: list[dict]):
    """(the table opened for appending, how many rows it keeps), without a torn last row. Raises
    ValueError if it is another's.
    """
    if not path.exists() or (
        b"\n" not in (begun := path.read_bytes()) and _line(header).startswith(begun)
    ):
        write_file(path, _line(header))
    with path.open("r+b") as file:
        _lock(file, path)
        found, rows, whole = _parse(path, file.read())
        _same(path, found, header)
        for number, (row, key) in enumerate(zip(rows, keys, strict=False), 2):
            if _key(row) != key:
                raise ValueError(
                    f"{path}, line {number}: a row out of place ({_key(row)}); restore the table, "
                    "or begin in another folder"
                )
        if len(rows) > len(keys):
            raise ValueError(
                f"{path} has {len(rows)} rows, the grid {len(keys)}; restore the table, or begin in another folder"
            )
        file.truncate(whole)
        file.seek(whole)
        yield file, len(rows)


def _lock(file, path: Path) -> None:
    """Raises ValueError if another process is writing to the table; the lock goes with the process
    that holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{path} is being written to by another study; wait for it, or begin in another folder"
        ) from None


def _parse(path: Path, content: bytes) -> tuple[dict, list[dict], int]:
    """Header, rows and the length in bytes of both; a last line that is torn is left out. Raises
    ValueError for other damage.
    """
    lines = content.split(b"\n")
    rows, whole = [], 0
    for number, line in enumerate(
        lines[:-1], 1
    ):  # what follows the last line's end is empty or torn
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
        except ValueError:
            if number > 1 and number == len(lines) - 1:
                break
            if number == 1:
                break
            raise ValueError(
                f"{path}, line {number} is damaged; restore the table, or begin in another folder"
            ) from None
        rows.append(row)
        whole += len(line) + 1
    if not rows or rows[0].get("table") != "dsd_lab study":
        raise ValueError(f"{path} is not a study's table; give another folder")
    if rows[0].get("version") != VERSION:
        raise ValueError(
            f"{path} is a table of version {rows[0].get('version')}, this is version {VERSION}; give another folder"
        )
    return rows[0], rows[1:], whole


def _same(path: Path, found: dict, wanted: dict) -> None:
    """Raises ValueError, saying what differs, unless a table belongs to this study."""
    here = [(name, found.get(name), wanted[name]) for name in ("dsd_lab", "prior", "pictures")]
    here += [
        (name, found.get("grid", {}).get(name), value) for name, value in wanted["grid"].items()
    ]
    for name, old, new in here:
        if old != new:
            raise ValueError(
                f"{path} was begun with {name} {_short(old)}, not {_short(new)}; a study goes on as it was begun: "
                "give another folder"
            )


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."


@dataclass(frozen=True)
class Study:
    """What a study's folder holds: its header, and its rows so far."""

    folder: Path
    header: dict
    rows: list[dict]

    @property
    def seeds(self) -> list[int]:
        return self.header["grid"]["seeds"]

    @property
    def finished(self) -> bool:
        return len(self.rows) == self.header["rows"]

    def cells(self) -> list[tuple[dict, list[dict], Tensor]]:
        """The cells that are complete: (key without the seed, rows, pictures (n, 3, H, W) in [0,
        1]), in order.
        """
        n = len(self.seeds)
        return [
            (
                {k: v for k, v in _key(self.rows[k * n]).items() if k != "seed"},
                self.rows[k * n : (k + 1) * n],
                _pictures(self.folder, k),
            )
            for k in range(len(self.rows) // n)
        ]


def read(path: str | Path) -> Study:
    """A study's folder as it is; a torn last row is left out. Raises ValueError if it holds no
    table of this version.
    """
    table = Path(path) / TABLE
    if not table.is_file():
        raise ValueError(f"no study in {path}: it has no {TABLE}")
    header, rows, _ = _parse(table, table.read_bytes())
    return Study(Path(path), header, rows)


# ---- summed up -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """One method at one setting, over the prompts that it has finished.

    Means over prompts of what `Report` says of one, vendi of `vendi_score`, and relative: modes
    over DDIM's modes from the same seeds at the same cfg. Intervals are over seeds, stratified by
    prompt; nan below 3 seeds. None where there is nothing to tell. evaluations and seconds: a
    picture.
    """

    method: str
    settings: dict
    label: str
    prompts: int
    seeds: int
    modes: Estimate | None
    nearest: Estimate | None
    even: float | None
    relative: Estimate | None
    distance: Estimate | None
    outside: Estimate | None
    pairwise: Estimate | None
    vendi: Estimate
    agreement: Estimate | None
    same_mode: Estimate | None
    evaluations: float
    seconds: float


def stratified(
    parts: Sequence[Estimate], floor: float = 0.0, ceiling: float = math.inf
) -> Estimate:
    """The mean of independent estimates, one a prompt; each side of its interval is theirs added in
    quadrature.
    """
    value = sum(p.value for p in parts) / len(parts)
    low, high = (math.hypot(*(p.value - p[k] for p in parts)) / len(parts) for k in (1, 2))
    if math.isnan(low + high):
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, max(value - low, floor), min(value + high, ceiling))


def summarise(path: str | Path) -> list[Summary]:
    """Each method at each setting, best first: by modes, then distance; without known pictures by
    pairwise distance.
    """
    it = read(path)
    groups: dict[tuple[str, str], dict[str, tuple[list[dict], Tensor]]] = {}
    for key, rows, images in it.cells():
        groups.setdefault((key["method"], json.dumps(key["settings"])), {})[key["prompt"]] = (
            rows,
            images,
        )
    settings = [(name, json.loads(text)) for name, text in groups]
    counts, n = it.header["pictures"], len(it.seeds)
    everyone = torch.arange(n)

    def each(parts, statistic, **limits):
        """A statistic of the seeds of one prompt, for every prompt: parts (what it takes), one a
        prompt.
        """

        def one(part):
            if n < 3:
                return Estimate(statistic(part, everyone), math.nan, math.nan)
            return jackknife(lambda i: statistic(part, i), n, floor=-math.inf)

        return stratified([one(part) for part in parts], **limits)

    def mean(cells, value, **limits):
        """The mean of a value of each row; None if there is none."""
        columns = [[value(row) for row in rows] for rows, _ in cells]
        parts = [
            torch.tensor(column, dtype=torch.float64) for column in columns if column[0] is not None
        ]
        spread = [
            bootstrap(p) if n > 2 else Estimate(float(p.mean()), math.nan, math.nan) for p in parts
        ]
        return stratified(spread, **limits) if parts else None

    out = []
    for (name, used), by_prompt in zip(settings, groups.values(), strict=True):
        cells = list(by_prompt.values())
        between = [distances(images, images) for _, images in cells]
        modes = nearest = relative = outside = even = None
        if counts:
            reached = [_reached(rows) for rows, _ in cells]
            modes = each(reached, _count)
            nearest = each(
                [torch.tensor([row["nearest"] for row in rows]) for rows, _ in cells], _count
            )
            even = sum(modes_even(n, counts[p]) for p in by_prompt) / len(cells)
            outside = mean(cells, lambda row: row["distance"] > RADIUS, ceiling=1.0)
            other = next(
                group
                for (m, s), group in zip(settings, groups.values(), strict=True)
                if m == REFERENCE and s["cfg"] == used["cfg"]
            )
            relative = _ratio(reached, [_reached(other[p][0]) for p in by_prompt], n)
        out.append(
            Summary(
                method=name,
                settings=used,
                label=_label(name, used, [s for m, s in settings if m == name]),
                prompts=len(cells),
                seeds=n,
                modes=modes,
                nearest=nearest,
                even=even,
                relative=relative,
                distance=mean(cells, lambda row: row["distance"]),
                outside=outside,
                pairwise=each(between, lambda d, i: mean_pairwise(d[i][:, i])) if n > 1 else None,
                vendi=each(between, lambda d, i: vendi(d[i][:, i]), floor=1.0),
                agreement=mean(cells, lambda row: row["agreement"]),
                same_mode=mean(cells, lambda row: row["same_mode"], ceiling=1.0),
                evaluations=sum(rows[0]["evaluations"] for rows, _ in cells) / len(cells),
                seconds=sum(rows[0]["seconds"] for rows, _ in cells) / len(cells),
            )
        )
    if counts:
        return sorted(out, key=lambda s: (-s.modes.value, s.distance.value))
    return sorted(out, key=lambda s: -(s.pairwise.value if s.pairwise else 0))


def _reached(rows: Sequence[dict]) -> Tensor:
    """The mode each seed reaches, -1 for none: int64 (n,)."""
    return torch.tensor([row["nearest"] if row["distance"] <= RADIUS else -1 for row in rows])


def _count(reached: Tensor, i: Tensor) -> float:
    """How many modes the seeds at positions i reach."""
    return float(len(reached[i][reached[i] >= 0].unique()))


def _ratio(own: Sequence[Tensor], other: Sequence[Tensor], n: int) -> Estimate | None:
    """Modes of all prompts over another method's, with a jackknife interval that leaves a seed of a
    prompt out of both.
    """
    everyone = torch.arange(n)
    top, bottom = ([_count(r, everyone) for r in side] for side in (own, other))
    if not sum(bottom):
        return None
    value, variance = sum(top) / sum(bottom), 0.0
    if n < 3:
        return Estimate(value, math.nan, math.nan)
    for p in range(len(own)):
        rest = [everyone[everyone != i] for i in range(n)]
        ups, downs = (
            torch.tensor(
                [sum(whole) - whole[p] + _count(side[p], i) for i in rest], dtype=torch.float64
            )
            for whole, side in ((top, own), (bottom, other))
        )
        without = ups / downs.clamp(min=1)
        variance += float((n - 1) / n * (without - without.mean()).square().sum())
    return Estimate(
        value, max(value - 1.96 * math.sqrt(variance), 0.0), value + 1.96 * math.sqrt(variance)
    )


def _label(name: str, used: dict, group: Sequence[dict]) -> str:
    """The method's name, and those of its settings in which it is told from itself."""
    varied = [k for k in used if len({json.dumps(s[k]) for s in group}) > 1]
    return ", ".join(
        [
            name,
            *(
                f"{k} {used[k]:g}" if isinstance(used[k], float) else f"{k} {used[k]}"
                for k in varied
            ),
        ]
    )


def ranking(summaries: Sequence[Summary]) -> str:
    """The summaries as a table of text, in the order given, with their intervals."""

    def show(e, digits=3):
        if e is None:
            return "-"
        return f"{e.value:.{digits}f}" + (
            "" if math.isnan(e.low) else f" [{e.low:.{digits}f}, {e.high:.{digits}f}]"
        )

    def share(e):
        return (
            "-"
            if e is None
            else f"{e.value:.0%}" + ("" if math.isnan(e.low) else f" [{e.low:.0%}, {e.high:.0%}]")
        )

    rows = [
        (
            "",
            "",
            "prompts",
            "modes",
            "nearest",
            "even",
            "distance",
            "outside",
            "pairwise",
            "Vendi",
            "agreement",
            "same mode",
            "evaluations",
            "seconds",
        )
    ]
    rows += [
        (
            str(k),
            s.label,
            str(s.prompts),
            show(s.modes, 1),
            show(s.nearest, 1),
            "-" if s.even is None else f"{s.even:.1f}",
            show(s.distance),
            share(s.outside),
            show(s.pairwise),
            show(s.vendi, 1),
            show(s.agreement),
            share(s.same_mode),
            f"{s.evaluations:.0f}",
            f"{s.seconds:.2f}",
        )
        for k, s in enumerate(summaries, 1)
    ]
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [row[0].rjust(width[0]), row[1].ljust(width[1]), *map(str.rjust, row[2:], width[2:])]
        for row in rows
    )
    return "\n".join(map("  ".join, lines))


def figures(path: str | Path) -> dict:
    """A study's matplotlib figures by name: "plane" (distance against modes), "plane-pairwise", and
    a grid a prompt.

    Without known pictures the one plane shows agreement with DDIM against pairwise distance. A
    plane that has nothing to show is left out.
    """
    from ..viz.pictures import grid
    from ..viz.plane import Place, plane

    it, summaries = read(path), summarise(path)
    credit, out = it.header["credit"], {}

    def draw(name, x, y, x_label, y_label):
        places = [
            Place(s.label, getattr(s, x), getattr(s, y), s.method)
            for s in summaries
            if getattr(s, x) and getattr(s, y)
        ]
        prompts = len(it.header["grid"]["prompts"])
        title = f"Fidelity and diversity: {prompts} prompts, {len(it.seeds)} seeds, 95 % intervals over seeds"
        if places:
            out[name] = plane(places, x_label, y_label, title, credit)

    apart_label = "RMSE between seeds (pairwise distance)"
    if it.header["pictures"]:
        near = "RMSE to the nearest picture of the prompt (left is better)"
        draw(
            "plane",
            "distance",
            "relative",
            near,
            "modes reached, as a share of DDIM's from the same seeds",
        )
        if len(it.seeds) > 1:
            draw("plane-pairwise", "distance", "pairwise", near, apart_label)
    elif len(it.seeds) > 1:
        draw("plane", "agreement", "pairwise", "RMSE to DDIM from the same seed", apart_label)
    labels = {(s.method, json.dumps(s.settings)): s.label for s in summaries}
    rows: dict[str, dict[str, Tensor]] = {}
    for key, _, images in it.cells():
        rows.setdefault(key["prompt"], {})[labels[key["method"], json.dumps(key["settings"])]] = (
            images[:8]
        )
    for prompt, name in file_names(list(rows)).items():
        plain = [text.replace("$", r"\$") for text in (prompt, credit)]
        out[f"pictures-{Path(name).stem}"] = grid(rows[prompt], it.seeds[:8], *plain)
    return out

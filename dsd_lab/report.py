"""A comparison written to a folder: PNG grids, the numbers as JSON, and one HTML page that needs no other file."""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from .metrics import table
from .tasks import Result
from .viz.pictures import grid, png

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.6rem}h2{margin-top:2.4rem;font-size:1.25rem}img{max-width:100%;height:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13.5px}th,td{padding:.28rem .7rem;text-align:right}
th{border-bottom:1.5px solid #444}td{border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
.note{color:#666;font-size:13px}"""

COLUMNS = {
    "modes": "distinct pictures of the prompt reached, within 0.1 RMSE",
    "even": "the count that as many even draws would reach on average",
    "effective": "effective number of modes, exp(entropy), with its jackknife interval",
    "distance": "RMSE to the nearest picture of the prompt, with its bootstrap interval over seeds",
    "outside": "share of samples farther than 0.1 from every picture of the prompt",
    "pairwise": "RMSE between samples, with its jackknife interval",
    "agreement": "RMSE to DDIM's result from the same seed, with its bootstrap interval over seeds",
    "same mode": "share of seeds whose nearest picture is that of DDIM",
    "evaluations": "predictions by the prior, a seed",
}


def slug(prompt: str) -> str:
    """A file name for a prompt: "a hot dog" -> "a-hot-dog"."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-") or "prompt"


def deviations(results: Mapping[str, Result]) -> str:
    """How each method was run, in one line a method, since a comparison must say where the settings differ."""
    return "\n".join(f"{name}: " + ", ".join(f"{k} {v}" for k, v in result.settings.items()) for name, result in results.items())


def table_text(results: Mapping[str, Result]) -> str:
    """The table with what each method took."""
    lines = table({name: result.report for name, result in results.items()}).split("\n")
    extra = [f"{'evaluations':>12} {'seconds':>8}", *(f"{r.evaluations:>12.0f} {r.seconds:>8.1f}" for r in results.values())]
    return "\n".join(f"{line} {end}" for line, end in zip(lines, extra, strict=True))


def prepare_folder(folder: str | Path) -> Path:
    """The folder, made and writable. Raises ValueError if it cannot be, before any work is done."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f'cannot write to the folder "{folder}": {error.strerror or error}; choose another with --out') from error
    return folder


def write_file(path: Path, content: bytes | str) -> None:
    """Write to a temporary name and rename, so that a file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_report(folder: Path, comparisons: Mapping[str, Mapping[str, Result]], seeds: Sequence[int], settings: dict,
                 credit: str = "") -> Path:
    """Write PNG grids, results.json and report.html for comparisons {prompt: {method: result}}; returns the page."""
    sections = []
    for prompt, results in comparisons.items():
        picture = png(grid({name: r.images for name, r in results.items()}, seeds, prompt, credit))
        write_file(folder / f"{slug(prompt)}.png", picture)
        sections.append(_section(prompt, results, picture))
    about = {"python": platform.python_version(), **_versions(), **settings, "seeds": list(seeds)}
    numbers = {"about": about, "results": {prompt: {name: _numbers(r) for name, r in results.items()}
                                           for prompt, results in comparisons.items()}}
    write_file(folder / "results.json", json.dumps(numbers, indent=1) + "\n")
    legend = "".join(f"<dt><b>{escape(k)}</b></dt><dd>{escape(v)}</dd>" for k, v in COLUMNS.items())
    page = (f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>dsd_lab: a comparison</title><style>{STYLE}</style><h1>Score distillation, seed by seed</h1>"
            f"<p>Each column is a seed; all methods start from its noise. Intervals are 95 %.</p>{''.join(sections)}"
            f"<h2>What the columns say</h2><dl class=note>{legend}</dl><h2>How it was made</h2>"
            f"<p class=note>{escape(', '.join(f'{k} {v}' for k, v in about.items()))}</p><p class=note>{escape(credit)}</p></html>")
    write_file(folder / "report.html", page)
    return folder / "report.html"


def _versions() -> dict:
    from importlib.metadata import version

    return {name: version(name) for name in ("dsd_lab", "torch")}


def _numbers(result: Result) -> dict:
    report = {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in vars(result.report).items()}
    return {**report, "evaluations": result.evaluations, "seconds": round(result.seconds, 3), "settings": result.settings,
            "finished": result.finished}


def _section(prompt: str, results: Mapping[str, Result], picture: bytes) -> str:
    def interval(estimate, digits):
        return "-" if estimate is None else f"{estimate.value:.{digits}f} <span class=note>[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]</span>"
    rows = []
    for name, result in results.items():
        r = result.report
        same = "-" if r.same_mode is None else f"{r.same_mode:.0%}"
        cells = [escape(name) + ("" if result.finished else " (stopped early)"), f"{r.modes} of {r.pictures}", f"{r.modes_even:.1f}",
                 interval(r.effective_modes, 1), interval(r.distance, 3), f"{r.outside:.0%}", interval(r.pairwise, 3),
                 interval(r.agreement, 3), same, f"{result.evaluations:.0f}", f"{result.seconds:.1f}"]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("", *COLUMNS, "seconds"))
    image = base64.b64encode(picture).decode()
    return (f"<h2>{escape(prompt)}</h2><img alt='{escape(prompt)}: methods by seeds' src='data:image/png;base64,{image}'>"
            f"<table><tr>{head}</tr>{''.join(rows)}</table><p class=note>{escape(deviations(results)).replace(chr(10), '<br>')}</p>")

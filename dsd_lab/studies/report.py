"""A comparison written to a folder: PNG grids, the numbers as JSON, and one HTML page that needs no
other file.
"""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import torch

from .. import __version__
from ..files import file_names, write_file
from ..metrics.pictures import RADIUS, table
from ..tasks import Result
from ..viz.pictures import grid, png

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:74rem;margin:2.5rem auto;padding:0 1.5rem;color:#1d2129}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem}h2{font-size:1.35rem}
h2{margin:3rem 0 .8rem;padding-top:1rem;border-top:1px solid #d5d9e0}
.wide{overflow-x:auto}img{display:block;max-width:100%;height:auto;margin:0 auto 1.2rem}
table{border-collapse:collapse;width:100%;font-size:15px;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .6rem;text-align:right;vertical-align:top;white-space:nowrap}
th{font-weight:600;border-bottom:2px solid #1d2129}
td{border-bottom:1px solid #e3e6eb}td:first-child,th:first-child{text-align:left;font-weight:600}
tr:first-child+tr td{background:#f4f6f9}td span{display:block;font-size:12.5px;font-weight:400;color:#5b6472}
dl{display:grid;grid-template-columns:7rem 1fr;gap:.2rem 1.2rem}dt{font-weight:600}dd{margin:0}
.note,dl{font-size:14px;color:#444b57}footer{margin-top:3rem;font-size:13px;color:#5b6472}"""

COLUMNS = {
    "modes": f"distinct pictures of the prompt reached, each within {RADIUS} RMSE",
    "nearest": "distinct pictures of the prompt that are some sample's nearest, at any distance",
    "even": "how many distinct pictures as many even draws would reach on average",
    "effective": "effective number of nearest pictures, exp(entropy), with its jackknife interval",
    "distance": "RMSE to the nearest picture of the prompt, with its bootstrap interval over seeds",
    "outside": f"share of samples farther than {RADIUS} from every picture of the prompt",
    "pairwise": "RMSE between samples, with its jackknife interval",
    "agreement": "RMSE to DDIM's result from the same seed, with its bootstrap interval over seeds",
    "same mode": "share of seeds whose nearest picture is that of DDIM",
    "evaluations": "predictions by the prior, a seed",
    "seconds": "time for all seeds together",
}


def deviations(results: Mapping[str, Result]) -> str:
    """How each method was run, in one line a method, since a comparison must say where the settings
    differ.
    """
    return "\n".join(
        f"{name}: " + ", ".join(f"{k} {v}" for k, v in result.settings.items())
        for name, result in results.items()
    )


def table_text(results: Mapping[str, Result]) -> str:
    """The table with what each method took."""
    lines = table({name: result.report for name, result in results.items()}).split("\n")
    extra = [
        f"{'evaluations':>11}  seconds",
        *(f"{r.evaluations:>11.0f}  {r.seconds:>7.1f}" for r in results.values()),
    ]
    return "\n".join(f"{line}  {end}" for line, end in zip(lines, extra, strict=True))


def write_report(
    folder: Path,
    comparisons: Mapping[str, Mapping[str, Result]],
    seeds: Sequence[int],
    settings: dict,
    credit: str = "",
) -> Path:
    """Write PNG grids, results.json and report.html for comparisons {prompt: {method: result}};
    returns the page.
    """
    plain = [
        text.replace("$", r"\$") for text in (*comparisons, credit)
    ]  # no mathematics in a prompt or a credit
    grids = {
        prompt: png(grid({name: r.images for name, r in results.items()}, seeds, title, plain[-1]))
        for (prompt, results), title in zip(comparisons.items(), plain, strict=False)
    }
    about = {
        "python": platform.python_version(),
        "dsd_lab": __version__,
        "torch": torch.__version__,
        **settings,
        "seeds": list(seeds),
    }
    numbers = {
        "about": about,
        "results": {
            prompt: {name: _numbers(r) for name, r in results.items()}
            for prompt, results in comparisons.items()
        },
    }
    legend = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in COLUMNS.items())
    made = "".join(
        f"<dt>{escape(k)}</dt><dd>{escape(', '.join(map(str, v)) if isinstance(v, list) else str(v))}</dd>"
        for k, v in about.items()
    )
    sections = "".join(
        _section(prompt, results, grids[prompt]) for prompt, results in comparisons.items()
    )
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>dsd_lab: a comparison</title><style>{STYLE}</style><h1>Score distillation, seed by seed</h1>"
        f"<p>Each column of a grid is a seed, and all methods start from its noise. "
        f"Below a value stands its 95 % interval.</p>"
        f"{sections}<h2>What the columns say</h2><dl>{legend}</dl><h2>How it was made</h2><dl>{made}</dl>"
        f"<footer>{escape(credit)}</footer></html>\n"
    )
    for prompt, name in file_names(list(comparisons)).items():
        write_file(folder / name, grids[prompt])
    write_file(folder / "results.json", json.dumps(numbers, indent=1) + "\n")
    write_file(folder / "report.html", page)
    return folder / "report.html"


def _numbers(result: Result) -> dict:
    report = {
        k: v._asdict() if hasattr(v, "_asdict") else v for k, v in vars(result.report).items()
    }
    return {
        **report,
        "evaluations": result.evaluations,
        "seconds": round(result.seconds, 3),
        "settings": result.settings,
        "finished": result.finished,
    }


def _section(prompt: str, results: Mapping[str, Result], picture: bytes) -> str:
    def interval(estimate, digits):
        if estimate is None:
            return "-"
        return f"{estimate.value:.{digits}f}<span>{estimate.low:.{digits}f} to {estimate.high:.{digits}f}</span>"

    rows = []
    for name, result in results.items():
        r = result.report
        cells = [
            escape(name) + ("" if result.finished else "<span>stopped early</span>"),
            f"{r.modes} of {r.pictures}",
            str(r.nearest),
            f"{r.modes_even:.1f}",
            interval(r.effective_modes, 1),
            interval(r.distance, 3),
            f"{r.outside:.0%}",
            interval(r.pairwise, 3),
            interval(r.agreement, 3),
            "-" if r.same_mode is None else f"{r.same_mode:.0%}",
            f"{result.evaluations:.0f}",
            f"{result.seconds:.1f}",
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells))
    head = "".join(f"<th>{name}</th>" for name in ("method", *COLUMNS))
    image = base64.b64encode(picture).decode()
    return (
        f"<h2>{escape(prompt)}</h2><img alt='{escape(prompt)}: methods by seeds' src='data:image/png;base64,{image}'>"
        f"<div class=wide><table><tr>{head}{''.join(rows)}</table></div>"
        f"<p class=note><b>Settings</b><br>{escape(deviations(results)).replace(chr(10), '<br>')}</p>"
    )

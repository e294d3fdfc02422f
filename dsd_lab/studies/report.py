"""A comparison written to a folder: PNG grids, the numbers as JSON, and one HTML page that needs no
other file.
"""

import base64
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import torch

from .. import __version__
from ..files import file_names, write_file, write_json
from ..metrics import COSTS, Estimate, aligned, reported
from ..tasks import Result
from ..viz.pictures import grid, png
from ..viz.style import plain

Results = Mapping[str, Result]  # by method


def deviations(results: Results) -> list[str]:
    """How each method was run, in one line a method, since a comparison must say where the settings
    differ.
    """
    return [
        f"{name}: " + ", ".join(f"{k} {v}" for k, v in result.settings.items())
        for name, result in results.items()
    ]


def rows(results: Results) -> dict[str, dict[str, str]]:
    """What a table says of each method, by heading: its report and what it took."""
    measures = reported(result.report for result in results.values())
    return {
        name: {m.name: m.text(r.report) for m in measures} | {m.name: m.text(r) for m in COSTS}
        for name, r in results.items()
    }


def table_text(results: Results) -> str:
    """The table with what each method took."""
    return aligned(rows(results))


def write_report(
    folder: Path,
    comparisons: Mapping[str, Results],
    seeds: Sequence[int],
    settings: dict,
    credit: str = "",
) -> Path:
    """Write PNG grids, results.json and report.html for comparisons {prompt: {method: result}};
    returns the page.
    """
    about = {
        "python": platform.python_version(),
        "dsd_lab": __version__,
        "torch": torch.__version__,
        **settings,
        "seeds": list(seeds),
    }
    numbers = {
        prompt: {name: _numbers(r) for name, r in results.items()}
        for prompt, results in comparisons.items()
    }
    write_json(folder / "results.json", {"about": about, "results": numbers})
    grids = {}
    for prompt, name in file_names(comparisons).items():
        images = {method: result.images for method, result in comparisons[prompt].items()}
        grids[prompt] = png(grid(images, seeds, plain(prompt), plain(credit)))
        write_file(folder / name, grids[prompt])
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("dsd_lab.studies", "."), autoescape=True, trim_blocks=True
    )
    page = templates.get_template("report.html").render(
        comparisons=comparisons,
        grids={prompt: base64.b64encode(data).decode() for prompt, data in grids.items()},
        rows=rows,
        deviations=deviations,
        measures=(*reported(r.report for by in comparisons.values() for r in by.values()), *COSTS),
        about=about,
        credit=credit,
    )
    return write_file(folder / "report.html", page)


def _numbers(result: Result) -> dict:
    report = {
        k: v._asdict() if isinstance(v, Estimate) else v for k, v in vars(result.report).items()
    }
    return {
        **report,
        "evaluations": result.evaluations,
        "seconds": round(result.seconds, 3),
        "settings": result.settings,
        "finished": result.finished,
    }

"""The figures of a study, and of ablations."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ..files import file_names
from ..viz import style
from ..viz.pictures import grid
from ..viz.plane import Place, plane
from ..viz.style import COLOURS, plain
from .run import read
from .summary import Summary, summarise

AXES = {  # of planes
    "distance": "RMSE to the nearest picture of the prompt (left is better)",
    "relative": "modes reached, as a share of DDIM's from the same seeds",
    "pairwise": "RMSE between seeds (pairwise distance)",
    "agreement": "RMSE to DDIM from the same seed",
}
PANELS = {  # of ablations
    "relative": "modes, as a share of DDIM's",
    "distance": "distance to the nearest",
    "agreement": "RMSE to DDIM, seed by seed",
}


def figures(path: str | Path) -> dict[str, Figure]:
    """A study's matplotlib figures by name: "plane" (distance against modes), "plane-pairwise", and
    a grid a prompt.

    Without known pictures the one plane shows agreement with DDIM against pairwise distance. A
    plane that has nothing to show is left out.
    """
    study, summaries = read(path), summarise(path)
    credit, prompts = study.about["credit"], study.identity["prompts"]
    title = (
        f"Fidelity and diversity: {len(prompts)} prompts, {len(study.seeds)} seeds, "
        "95 % intervals over seeds"
    )
    measured = any(s.distance for s in summaries)
    planes = {"plane": ("distance", "relative"), "plane-pairwise": ("distance", "pairwise")}
    found = {}
    for name, (x, y) in planes.items() if measured else [("plane", ("agreement", "pairwise"))]:
        places = [
            Place(s.label, getattr(s, x), getattr(s, y), s.method)
            for s in summaries
            if getattr(s, x) and getattr(s, y)
        ]
        if places:
            found[name] = plane(places, AXES[x], AXES[y], title, credit)
    labels = {(s.method, json.dumps(s.settings)): s.label for s in summaries}
    rows: dict[str, dict[str, Tensor]] = {}
    for cell in study.cells:
        label = labels[cell.method, json.dumps(cell.settings)]
        rows.setdefault(cell.prompt, {})[label] = cell.images[:8]
    for prompt, name in file_names(rows, "").items():
        found[f"pictures-{name}"] = grid(
            rows[prompt], study.seeds[:8], plain(prompt), plain(credit)
        )
    return found


@style.theme()
def dots(groups: Mapping[str, Mapping[str, Summary]], credit: str = "") -> Figure:
    """Groups {what is varied: {setting: summary}} as dots with 95 % intervals over seeds, one panel
    a measure.

    Raises ValueError if there is nothing to show.
    """
    if not groups or not all(groups.values()):
        raise ValueError("nothing to show: give at least one group with at least one setting")
    rows = sum(len(group) + 1.2 for group in groups.values())
    figure = Figure(figsize=(9.6, 0.6 + 0.215 * rows))
    panels = style.dot_panels(figure, list(PANELS.values()))
    y, names = 0.0, {}  # by height
    for k, (title, group) in enumerate(groups.items()):
        names[y] = title
        for label, summary in group.items():
            y += 1
            names[y] = label
            for panel, name in zip(panels, PANELS, strict=True):
                if (estimate := getattr(summary, name)) is not None:
                    style.dot(panel, estimate, y, COLOURS[k % len(COLOURS)])
        y += 1.2
    panels[0].set_yticks(list(names), names.values())
    for tick in panels[0].get_yticklabels():
        tick.set_weight("bold" if tick.get_text() in groups else "normal")
    panels[0].set_ylim(y, -0.8)
    panels[0].axvline(1, color="0.6", lw=0.8, ls="--")
    for panel in panels:
        panel.set_xlim(left=0)
    figure.tight_layout(rect=(0, 0.25 / figure.get_figheight() if credit else 0, 1, 1))
    style.credit(figure, credit)
    return figure


@style.theme()
def forest(
    summaries: Sequence[Summary],
    groups: Mapping[str, str],
    reference: str = "DDIM",
    credit: str = "",
    measures: Mapping[str, str] = PANELS,
) -> Figure:
    """Methods as rows of dots with their 95 % intervals over seeds, best first as given, one panel
    a measure.

    groups: {label: what colours it}. reference: the label whose intervals are shaded; it is black.
    measures: {estimate of a `Summary`: the panel's title}. Raises ValueError if there is nothing to
    show.
    """
    if not summaries:
        raise ValueError("nothing to show: give at least one summary")
    figure = Figure(figsize=(9.6, 1.0 + 0.235 * len(summaries)))
    panels = style.dot_panels(figure, list(measures.values()))
    colours = dict(zip(dict.fromkeys(groups.values()), COLOURS, strict=False))
    for y, summary in enumerate(summaries):
        colour = colours[groups[summary.label]] if summary.label in groups else style.INK
        for panel, name in zip(panels, measures, strict=True):
            if (estimate := getattr(summary, name)) is not None:
                style.dot(panel, estimate, y, colour)
                if summary.label == reference:
                    panel.axvspan(estimate.low, estimate.high, color="0.85", zorder=0)
                    panel.axvline(estimate.value, color="0.6", lw=0.8, zorder=0)
    panels[0].set_yticks(range(len(summaries)), [s.label for s in summaries])
    panels[0].set_ylim(len(summaries) - 0.4, -0.6)
    for panel in panels:
        panel.set_xlim(left=-0.02 * panel.get_xlim()[1])
    keys = [Line2D([], [], marker="o", ls="", color=c, label=g) for g, c in colours.items()]
    figure.legend(handles=keys, loc="upper left", ncols=len(keys))
    inch = 1 / figure.get_figheight()
    figure.tight_layout(rect=(0, 0.25 * inch if credit else 0, 1, 1 - 0.3 * inch))
    style.credit(figure, credit)
    return figure

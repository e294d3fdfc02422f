"""Ablations as dots with their intervals: one row a setting, in groups, one column a measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:  # figures are below studies in the house: they only read what a summary holds
    from .study import Summary

MEASURES = {
    "relative": "modes, as a share of DDIM's",
    "distance": "distance to the nearest",
    "agreement": "RMSE to DDIM, seed by seed",
}
COLOURS = ("#4269d0", "#e4572e", "#2f8f43", "#a463f2", "#9c6b4e", "#0f8b8d", "#b8860b")


def dots(groups: Mapping[str, Mapping[str, Summary]], credit: str = "") -> Figure:
    """Groups {what is varied: {setting: summary}} as dots with 95 % intervals over seeds, one panel
    a measure.

    Raises ValueError if there is nothing to show.
    """
    if not groups or not all(groups.values()):
        raise ValueError("nothing to show: give at least one group with at least one setting")
    rows = sum(len(group) + 1.2 for group in groups.values())
    figure = Figure(figsize=(9.6, 0.6 + 0.215 * rows), dpi=100)
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    y, ticks, labels = 0.0, [], []
    for colour, (title, group) in zip(COLOURS * len(groups), groups.items(), strict=False):
        ticks.append(y)
        labels.append(title)
        for label, summary in group.items():
            y += 1
            ticks.append(y)
            labels.append(label)
            for panel, measure in zip(panels, MEASURES, strict=True):
                e = getattr(summary, measure)
                if e is not None:
                    bar = (
                        None
                        if math.isnan(e.low)
                        else [[max(e.value - e.low, 0)], [max(e.high - e.value, 0)]]
                    )
                    panel.errorbar(
                        e.value, y, xerr=bar, fmt="o", ms=5, color=colour, capsize=2, lw=1.2
                    )
        y += 1.2
    panels[0].set_yticks(ticks, labels, fontsize=8.5)
    for tick, label in zip(panels[0].get_yticklabels(), labels, strict=True):
        if label in groups:
            tick.set_weight("bold")
    panels[0].set_ylim(y, -0.8)
    for panel, title in zip(panels, MEASURES.values(), strict=True):
        panel.set_title(title, fontsize=9.5)
        panel.grid(axis="x", color="0.9")
        panel.tick_params(labelsize=8.5, length=0)
        panel.set_xlim(left=0)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    panels[0].axvline(1, color="0.6", lw=0.8, ls="--")
    figure.tight_layout()
    if credit:
        figure.subplots_adjust(bottom=figure.subplotpars.bottom + 0.25 / figure.get_figheight())
        figure.text(0.01, 0.06 / figure.get_figheight(), credit, fontsize=6.5, color="0.4")
    return figure

"""The fidelity-diversity plane: every method a labelled point with error bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from ..metrics.pictures import Estimate
from .pictures import text_width, wrap

# a method has one colour and one marker in every figure, its variants ("SDI cached") the same,
# hollow; others what is free
FAMILY = (
    "DDIM",
    "SDS",
    "DSD",
    "ASD",
    "SDI",
    "ConsistentODE",
    "FSD",
    "CFD",
    "DSD*",
    "VSD",
    "CSD",
    "NFSD",
    "ISM",
    "DDS",
)
COLOURS = (
    "#1d2129",
    "#4269d0",
    "#e4572e",
    "#2f8f43",
    "#a463f2",
    "#9c6b4e",
    "#d6569a",
    "#0f8b8d",
    "#b8860b",
    "#5f6b7a",
    "#7a2e8d",
    "#7a8b1f",
    "#2b6c99",
    "#a33b3b",
)
MARKERS = "osD^vPX*hp<>d8"
SIZE, AXES = (8.4, 6.2), (0.8, 0.75, 7.35, 4.85)  # inches; left, bottom, width, height
POINTS, LINE, CLEAR = (
    9,
    0.17,
    0.07,
)  # of a label: font size, height in inches, inches kept free around a marker


class Place(NamedTuple):
    """A point of the plane, each coordinate with its interval (nan where it has none)."""

    label: str
    x: Estimate
    y: Estimate
    family: str = ""  # whose colour and marker; the label if empty


def plane(
    places: Sequence[Place], x_label: str, y_label: str, title: str = "", credit: str = ""
) -> Figure:
    """Places with their error bars and names; names keep clear of each other and of the markers.

    Raises ValueError if there is nothing to show.
    """
    if not places:
        raise ValueError("nothing to show: give at least one place")
    figure = Figure(figsize=SIZE, dpi=110)
    left, bottom, width, height = AXES
    axes = figure.add_axes((left / SIZE[0], bottom / SIZE[1], width / SIZE[0], height / SIZE[1]))
    x_limits, y_limits = (
        _limits([v for p in places for v in p[k] if math.isfinite(v)]) for k in (1, 2)
    )
    axes.set(xlim=x_limits, ylim=y_limits)
    axes.set_xlabel(x_label, fontsize=10)
    axes.set_ylabel(y_label, fontsize=10)
    axes.tick_params(labelsize=8.5)
    axes.grid(color="#e3e6eb", lw=0.8)
    axes.set_axisbelow(True)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    looks = looks_of([p.family or p.label for p in places])
    for p in places:
        colour, marker, hollow = looks[p.family or p.label]
        face = (
            dict(mfc="white", mec=colour, mew=1.6, ms=6.2)
            if hollow
            else dict(mec="white", mew=0.8, ms=7)
        )
        axes.errorbar(
            p.x.value,
            p.y.value,
            xerr=_bar(p.x),
            yerr=_bar(p.y),
            fmt=marker,
            color=colour,
            elinewidth=1.1,
            **face,
        )

    def inches(x, y):
        return (
            (x - x_limits[0]) / (x_limits[1] - x_limits[0]) * width,
            (y - y_limits[0]) / (y_limits[1] - y_limits[0]) * height,
        )

    points = [inches(p.x.value, p.y.value) for p in places]
    bars = [
        (*inches(lo, p.y.value), *inches(hi, p.y.value))
        for p in places
        for _, lo, hi in [p.x]
        if math.isfinite(lo + hi)
    ]
    bars += [
        (*inches(p.x.value, lo), *inches(p.x.value, hi))
        for p in places
        for _, lo, hi in [p.y]
        if math.isfinite(lo + hi)
    ]
    names = [p.label.replace("$", r"\$") for p in places]
    boxes = place_labels(
        points, [text_width(name, POINTS) + 0.04 for name in names], bars, (width, height)
    )
    for (x, y), (x0, y0, x1, y1), name in zip(points, boxes, names, strict=True):
        end = min(max(x, x0), x1), min(max(y, y0), y1)
        if math.dist((x, y), end) > 0.16:
            axes.plot(
                *zip((x / width, y / height), (end[0] / width, end[1] / height), strict=True),
                color="#8a93a6",
                lw=0.7,
                transform=axes.transAxes,
                zorder=1,
            )
        axes.text(
            (x0 + x1) / 2 / width,
            (y0 + y1) / 2 / height,
            name,
            fontsize=POINTS,
            ha="center",
            va="center_baseline",
            color="#1d2129",
            transform=axes.transAxes,
            zorder=5,
        )
    figure.text(
        left / SIZE[0],
        1 - 0.12 / SIZE[1],
        "\n".join(wrap(title.replace("$", r"\$"), 11, SIZE[0] - left - 0.2, "bold")),
        fontsize=11,
        va="top",
        weight="bold",
    )
    figure.text(
        0.1 / SIZE[0],
        0.07 / SIZE[1],
        "\n".join(wrap(credit.replace("$", r"\$"), 6.5, SIZE[0] - 0.2)),
        fontsize=6.5,
        va="bottom",
        color="0.4",
    )
    return figure


def looks_of(names: Sequence[str]) -> dict[str, tuple[str, str, bool]]:
    """Colour, marker and whether hollow of each name: a known method's own, whoever else is shown;
    for others the free ones.
    """
    known = {
        name: FAMILY.index(name.split(" ")[0]) for name in names if name.split(" ")[0] in FAMILY
    }
    free = [k for k in range(len(COLOURS)) if k not in known.values()] or list(range(len(COLOURS)))
    others = [name for name in dict.fromkeys(names) if name not in known]
    index = known | {name: free[-1 - i % len(free)] for i, name in enumerate(others)}
    return {
        name: (COLOURS[k], MARKERS[k], name in known and name not in FAMILY)
        for name, k in index.items()
    }


def place_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    bars: Sequence[tuple[float, ...]],
    size: tuple[float, float],
) -> list[tuple[float, float, float, float]]:
    """A box (x0, y0, x1, y1) for each point's label: near it, clear of other labels and markers
    and, if it can be, of bars.

    points: in inches, on axes of size (width, height). bars: segments (x0, y0, x1, y1).
    """
    marks = [(x - CLEAR, y - CLEAR, x + CLEAR, y + CLEAR) for x, y in points]
    lines = [(x0 - 0.01, y0 - 0.01, x1 + 0.01, y1 + 0.01) for x0, y0, x1, y1 in bars]
    placed: dict[int, tuple[float, float, float, float]] = {}

    def cost(box, far):
        out = (
            max(0, -box[0]) + max(0, -box[1]) + max(0, box[2] - size[0]) + max(0, box[3] - size[1])
        )
        hard = sum(_overlap(box, other) for other in (*placed.values(), *marks))
        soft = sum(_overlap(box, line) > 0 for line in lines)
        return 1000 * (out + hard) + 0.12 * soft + far

    for i in sorted(
        range(len(points)), key=lambda i: sum(min(math.dist(points[i], q), 1) for q in points)
    ):  # most crowded first
        x, y = points[i]
        tries = []
        for far in (0.0, 0.08, 0.18, 0.3, 0.45, 0.65, 0.9, 1.2, 1.6):
            for k in range(24):
                a = 2 * math.pi * k / 24
                cx = (
                    x
                    + math.cos(a) * (CLEAR + far)
                    + max(-1, min(1, 1.6 * math.cos(a))) * widths[i] / 2
                )
                cy = y + math.sin(a) * (CLEAR + far) + math.sin(a) * LINE / 2
                box = (cx - widths[i] / 2, cy - LINE / 2, cx + widths[i] / 2, cy + LINE / 2)
                tries.append((cost(box, far), len(tries), box))
        placed[i] = min(tries)[2]
    return [placed[i] for i in range(len(points))]


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    return low - room, high + room


def _bar(e: Estimate) -> list[list[float]] | None:
    return (
        [[max(e.value - e.low, 0)], [max(e.high - e.value, 0)]]
        if math.isfinite(e.low + e.high)
        else None
    )

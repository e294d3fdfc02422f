"""The fidelity-diversity plane: every method a labelled point with error bars."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..metrics import Estimate
from . import style
from .style import FAINT, INK, SIZES, looks_of, plain, text_width

SIZE, BOX = (8.4, 6.2), (0.8, 0.75, 7.35, 4.85)  # inches; left, bottom, width, height of the axes
# inches: height of a label, kept free around a marker, and between two labels of one line
LINE, CLEAR, GAP = 0.17, 0.07, 0.12


class Place(NamedTuple):
    """A point of the plane, each coordinate with its interval (nan where it has none)."""

    label: str
    x: Estimate
    y: Estimate
    family: str = ""  # whose colour and marker; the label if empty


@style.theme()
def plane(
    places: Sequence[Place], x_label: str, y_label: str, title: str = "", credit: str = ""
) -> Figure:
    """Places with their error bars and names; names keep clear of each other and of the markers.

    Raises ValueError if there is nothing to show.
    """
    if not places:
        raise ValueError("nothing to show: give at least one place")
    figure, (left, bottom, width, height) = Figure(figsize=SIZE), BOX
    axes = figure.add_axes((left / SIZE[0], bottom / SIZE[1], width / SIZE[0], height / SIZE[1]))
    axes.set(xlim=_limits(p.x for p in places), xlabel=x_label)
    axes.set(ylim=_limits(p.y for p in places), ylabel=y_label)
    looks = looks_of(p.family or p.label for p in places)
    for p in places:
        _mark(axes, p, *looks[p.family or p.label])
    _name(axes, places)
    style.title(figure, plain(title), left, 0.12)
    style.credit(figure, plain(credit))
    return figure


def _mark(axes: Axes, place: Place, colour: str, marker: str, hollow: bool) -> None:
    face = {"mec": "white", "mew": 0.8, "ms": 7}
    if hollow:
        face = {"mfc": "white", "mec": colour, "mew": 1.6, "ms": 6.2}
    bars = {"xerr": place.x.bar, "yerr": place.y.bar, "elinewidth": 1.1}
    axes.errorbar(place.x.value, place.y.value, fmt=marker, color=colour, **bars, **face)


def _name(axes: Axes, places: Sequence[Place]) -> None:
    """Write the places' labels, with a line to those that are not next to their marker."""
    width, height = BOX[2:]
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()

    def inches(x, y):
        return (x - x_low) / (x_high - x_low) * width, (y - y_low) / (y_high - y_low) * height

    points, bars = [inches(p.x.value, p.y.value) for p in places], []
    for _, (x, left, right), (y, low, high), _ in places:
        bars += [(*inches(left, y), *inches(right, y)), (*inches(x, low), *inches(x, high))]
    bars = [bar for bar in bars if math.isfinite(sum(bar))]
    names = [plain(p.label) for p in places]
    widths = [text_width(name, SIZES["label"]) + GAP for name in names]
    to_axes = {"transform": axes.transAxes}
    for (x, y), (x0, y0, x1, y1), name in zip(
        points, place_labels(points, widths, bars, (width, height)), names, strict=True
    ):
        end = min(max(x, x0), x1), min(max(y, y0), y1)
        if math.dist((x, y), end) > 0.16:
            line = (x / width, end[0] / width), (y / height, end[1] / height)
            axes.plot(*line, color=FAINT, lw=0.7, zorder=1, **to_axes)
        middle = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
        how = {"ha": "center", "va": "center_baseline", "color": INK, "zorder": 5}
        axes.text(*middle, name, fontsize=SIZES["label"], **how, **to_axes)


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
        out = sum(max(0, -edge) for edge in (box[0], box[1], size[0] - box[2], size[1] - box[3]))
        hard = sum(_overlap(box, other) for other in (*placed.values(), *marks))
        soft = sum(_overlap(box, line) > 0 for line in lines)
        return 1000 * (out + hard) + 0.12 * soft + far

    def crowd(i):
        return sum(min(math.dist(points[i], q), 1) for q in points)

    for i in sorted(range(len(points)), key=crowd):  # most crowded first
        (x, y), half, tries = points[i], widths[i] / 2, []
        for far in (0.0, 0.08, 0.18, 0.3, 0.45, 0.65, 0.9, 1.2, 1.6):
            for k in range(24):
                cos, sin = math.cos(math.pi * k / 12), math.sin(math.pi * k / 12)
                cx = x + cos * (CLEAR + far) + max(-1, min(1, 1.6 * cos)) * half
                cy = y + sin * (CLEAR + far) + sin * LINE / 2
                box = (cx - half, cy - LINE / 2, cx + half, cy + LINE / 2)
                tries.append((cost(box, far), len(tries), box))
        placed[i] = min(tries)[2]
    return [placed[i] for i in range(len(points))]


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _limits(estimates: Iterable[Estimate]) -> tuple[float, float]:
    """The least and the greatest of values and intervals, with some room."""
    values = [value for estimate in estimates for value in estimate if math.isfinite(value)]
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    return low - room, high + room

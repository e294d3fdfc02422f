"""One palette and one look: colours, markers and texts of every figure."""

import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from ..metrics import Estimate

DPI = 110
INK, SOFT, FAINT, GRID = "#1d2129", "#5f6b7a", "#8a93a6", "#e3e6eb"
COLOURS = (
    "#4269d0", "#e4572e", "#2f8f43", "#a463f2", "#9c6b4e", "#d6569a", "#0f8b8d", "#b8860b",
    "#5f6b7a", "#7a2e8d", "#7a8b1f", "#2b6c99", "#a33b3b",
)  # fmt: skip
# a method has one colour and one marker in every figure, its variants ("SDI cached") the same,
# hollow; others what is free
FAMILY = (
    "DDIM", "SDS", "DSD", "ASD", "SDI", "ConsistentODE", "FSD", "CFD", "DSD*", "VSD", "CSD",
    "NFSD", "ISM", "DDS",
)  # fmt: skip
MARKERS = "osD^vPX*hp<>d8"
SIZES = {"title": 11, "row": 10, "label": 9, "head": 8.5, "credit": 6.5}  # points
RC = {
    "figure.dpi": DPI,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": SIZES["label"],
    "axes.titlesize": SIZES["label"],
    "grid.color": GRID,
    "legend.fontsize": SIZES["head"],
    "legend.frameon": False,
    "xtick.labelsize": SIZES["head"],
    "ytick.labelsize": SIZES["head"],
}
theme = partial(rc_context, RC)  # @theme() before a function that draws


def looks_of(names: Iterable[str]) -> dict[str, tuple[str, str, bool]]:
    """Colour, marker and whether hollow of each method's name, whoever else is shown; names that
    are no method's take the free ones.
    """
    names = list(dict.fromkeys(names))
    method = {name: re.split("[ ,]", name)[0] for name in names}
    index = {name: FAMILY.index(method[name]) for name in names if method[name] in FAMILY}
    places = range(len(FAMILY))
    free = [k for k in places if k not in index.values()] or list(places)
    others = [name for name in names if name not in index]
    hollow = {name for name in index if name not in FAMILY}
    index |= {name: free[-1 - i % len(free)] for i, name in enumerate(others)}
    colours = (INK, *COLOURS)
    return {name: (colours[k], MARKERS[k], name in hollow) for name, k in index.items()}


def plain(text: str) -> str:
    """A user's text for a figure: its dollars begin no mathematics."""
    return text.replace("$", r"\$")


def title(figure: Figure, text: str, left: float = 0.1, top: float = 0.08) -> None:
    """A bold title at so many inches from the left and the top; lines too long are broken."""
    _write(figure, text, "title", left, 1 - top / figure.get_figheight(), va="top", weight="bold")


def credit(figure: Figure, text: str, left: float = 0.1, bottom: float = 0.07) -> None:
    """A line of credit at so many inches from the left and the bottom, broken if it is too long."""
    _write(figure, text, "credit", left, bottom / figure.get_figheight(), va="bottom", color="0.4")


def _write(figure, text, kind, left, y, weight="normal", **how):
    width = figure.get_figwidth()
    lines = wrap(text, SIZES[kind], width - left - 0.1, weight)
    figure.text(left / width, y, "\n".join(lines), fontsize=SIZES[kind], weight=weight, **how)


def dot_panels(figure: Figure, heads: Sequence[str]) -> Sequence[Axes]:
    """Panels side by side, one a head, for rows of dots."""
    panels = figure.subplots(1, len(heads), sharey=True, squeeze=False)[0]
    for panel, head in zip(panels, heads, strict=True):
        panel.set_title(head)
        panel.tick_params(length=0)
        panel.spines.left.set_visible(False)
    return panels


def dot(axes: Axes, x: Estimate, y: float, colour: str) -> None:
    """An estimate as a dot, whole also at the edge, with its interval."""
    look = {"fmt": "o", "ms": 5.5, "color": colour, "capsize": 2, "lw": 1.2}
    axes.errorbar(x.value, y, xerr=x.bar, **look).lines[0].set_clip_on(False)


def whole_dots(inches: float) -> float:
    """Inches rounded up to whole dots."""
    return math.ceil(inches * DPI) / DPI


@lru_cache(maxsize=1024)
def text_width(text: str, points: float, weight: str = "normal") -> float:
    """The width in inches of a text's longest line, mathematics included."""
    look = FontProperties(size=points, weight=weight)

    def width(line):
        mathematics = is_math_text(line)
        drawn = line if mathematics else line.replace(r"\$", "$")
        return text_to_path.get_text_width_height_descent(drawn, look, mathematics)[0] / 72

    return max(width(line.strip()) for line in text.split("\n"))


def wrap(text: str, points: float, width: float, weight: str = "normal") -> list[str]:
    """Text in lines of at most `width` inches, broken at spaces; a longer word stays whole."""
    lines = []
    for part in text.split("\n"):
        lines.append("")
        for word in [part] if text_width(part, points, weight) <= width else part.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and text_width(longer, points, weight) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return lines

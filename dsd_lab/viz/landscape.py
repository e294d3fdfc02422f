"""What a method descends in the plane: its mean height and field, where it rests, and a cut."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import style
from .style import COLOURS, INK

DASHES = ("-", "--", ":", "-.")  # for those who tell no colours apart


class Landscape(NamedTuple):
    """A height over the plane on a square grid, and what climbs it.

    axis: coordinates (n,) of both sides. height: (n, n), rows along y. uphill: (n, n, 2). rests:
    points where climbers come to rest, (k, 2). marks: points to compare with, (m, 2).
    """

    axis: Tensor
    height: Tensor
    uphill: Tensor
    rests: Tensor
    marks: Tensor


@style.theme()
def landscapes(panels: Mapping[str, Landscape]) -> Figure:
    """Landscapes side by side: height in shades, lines uphill, rests as stars, marks as crosses."""
    figure = Figure(figsize=(3.5 * len(panels) + 0.1, 3.9))
    for axes, (name, land) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        land = Landscape(*(part.cpu() for part in land))
        axis = land.axis.numpy()
        axes.grid(False)
        shares = torch.linspace(0, 1, 15, dtype=land.height.dtype) ** 0.6  # finer near the top
        levels = land.height.quantile(shares).unique().tolist()
        shades = {"cmap": "Blues", "alpha": 0.7, "zorder": 0}
        axes.contourf(axis, axis, land.height.numpy(), levels, **shades)
        u, v = land.uphill.numpy().transpose(2, 0, 1)
        thin = {"color": "0.35", "linewidth": 0.6, "arrowsize": 0.7, "density": 0.9}
        axes.streamplot(axis, axis, u, v, zorder=1, **thin)
        axes.plot(*land.marks.T, "x", color=INK, ms=6, mew=1.6, zorder=3)
        axes.plot(*land.rests.T, "*", color=COLOURS[1], ms=15, mec="white", zorder=4)
        limits = (axis[0], axis[-1])
        axes.set(xticks=[], yticks=[], xlim=limits, ylim=limits, aspect="equal", title=name)
    figure.tight_layout(pad=0.5)
    return figure


@style.theme()
def curves(
    x: Sequence[float],
    ys: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    marks: Sequence[float] = (),
    size: tuple[float, float] = (7.2, 3.0),
    colours: Sequence[str] = COLOURS,
) -> Figure:
    """Curves over one axis, with their names, each dashed in its own way; dotted lines where the
    marks are. size: in inches.
    """
    figure = Figure(figsize=size)
    axes = figure.subplots()
    for mark in marks:
        axes.axvline(mark, color="0.6", lw=0.9, ls=":")
    for k, (name, y) in enumerate(ys.items()):
        axes.plot(x, y, DASHES[k % len(DASHES)], color=colours[k], lw=2, label=name)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(x[0], x[-1]))
    axes.locator_params(axis="x", integer=True)  # of steps and degrees, whole ones
    figure.tight_layout(pad=0.6)
    return figure

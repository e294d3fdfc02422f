"""Figures of pictures: one montage on one pair of axes, so that they are quick to draw and crisp."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..sampling import Trajectory

TILE = 0.8  # inches a picture
GAP = 0.06  # between pictures, as a fraction of their side


def montage(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Rows of pictures (3, H, W) in [0, 1] as one picture (H', W', 3), white between them."""
    height, width = rows[0][0].shape[1:]
    gap = max(1, round(GAP * height))
    columns = max(len(row) for row in rows)
    sheet = torch.ones(3, len(rows) * (height + gap) - gap, columns * (width + gap) - gap)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            sheet[:, i * (height + gap):i * (height + gap) + height, j * (width + gap):j * (width + gap) + width] = picture.detach().cpu()
    return sheet.permute(1, 2, 0)


def sheet(rows: Mapping[str, Sequence[Tensor]], columns: Sequence[str] = (), title: str = "", credit: str = "",
          tile: float = TILE) -> Figure:
    """Labelled rows of pictures: rows {label: pictures (3, H, W)}, a heading for each column, a line of credit below.

    Raises ValueError if there is nothing to show.
    """
    if not rows or not all(len(row) for row in rows.values()):
        raise ValueError("nothing to show: give at least one row with at least one picture")
    picture = montage(list(rows.values())).numpy()
    side = next(iter(rows.values()))[0].shape[-1]
    pitch = side + max(1, round(GAP * side))
    count = max(len(row) for row in rows.values())
    left = 0.1 + 0.085 * max(max(len(line) for line in label.split("\n")) for label in rows)
    top = (0.28 if columns else 0.05) + (0.32 if title else 0)
    bottom = 0.26 if credit else 0.05
    width, height = left + tile * count * 1.06, top + bottom + tile * len(rows) * 1.06
    if credit:  # the credit is one line, and it must not be cut
        width = max(width, 0.052 * len(credit) + 0.2)
    figure = Figure(figsize=(width, height), dpi=110)
    axes = figure.add_axes((left / width, bottom / height, tile * count * 1.06 / width, 1 - (top + bottom) / height))
    axes.imshow(picture, interpolation="antialiased", aspect="equal")
    axes.set_anchor("NW")
    axes.set_yticks([side / 2 + pitch * i for i in range(len(rows))], list(rows), fontsize=10)
    axes.set_xticks([side / 2 + pitch * j for j in range(len(columns))], list(columns), fontsize=8.5)
    axes.tick_params(length=0, labelbottom=False, labeltop=True, pad=4)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        figure.text(left / width, 1 - 0.08 / height, title, fontsize=11, va="top", weight="bold")
    if credit:
        figure.text(0.1 / width, 0.07 / height, credit, fontsize=6.5, color="0.4")
    return figure


def grid(rows: Mapping[str, Tensor], seeds: Sequence[int], title: str = "", credit: str = "", tile: float = TILE) -> Figure:
    """Method by seed: rows {method: images (B, 3, H, W)}, one column a seed (the paper's figure 4)."""
    return sheet(rows, [f"seed {seed}" for seed in seeds], title, credit, tile)


def strips(path: Trajectory, item: int = 0, count: int = 9, title: str = "", credit: str = "") -> Figure:
    """x_t and the x0-prediction side by side along one item's path, noisiest first (the paper's figure 2).

    x_t is shown with its contrast divided by its own spread, since pure noise has no picture scale of its own.
    """
    # closer together towards t = 0, where the picture comes out of the noise
    wanted = path.t[0] * torch.linspace(1, 0, count) ** 1.7
    index = (path.t[:, None] - wanted).abs().argmin(0).unique()
    decode = path.prior.decode
    rows = {"$x_t$": [x_t_picture(path, k, item) for k in index], r"$\hat x_0(x_t, t)$": list(decode(path.x0[index, item]))}
    return sheet(rows, [f"t = {path.t[k]}" for k in index], title, credit)


def x_t_picture(path: Trajectory, k: int, item: int) -> Tensor:
    """x_t of level k as a picture (3, H, W): shrunk as it grows noisier, to the spread that the clean result has."""
    x_t, final = path.x_t[k, item], path.final[item]
    return path.prior.decode((x_t * (final.std() / x_t.std()).clamp(max=1))[None])[0]


def png(figure: Figure) -> bytes:
    """A figure as PNG, with no date in it, so that the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()

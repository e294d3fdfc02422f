"""Figures of 2-D points: a mixture's density, the paths through it (plotly), and the field at one
moment (matplotlib).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from ..priors import Condition, GaussianMixture
from ..sampling import Trajectory
from .stills import StillFigure
from .style import COLOURS, looks_of

ARROWS = {"angles": "xy", "scale_units": "xy", "scale": 1}  # drawn in the data's own units
DENSITY = ("#eef1f8", "#dde3f1", "#c9d3e9", "#b5c3e1")  # faint to dense
HALO = (withStroke(linewidth=2.5, foreground="white"),)  # around words in a field


def density(
    prior: GaussianMixture,
    t: int = 0,
    cond: Condition | None = None,
    limit: float = 2.5,
    count: int = 90,
):
    """p_t on a square grid: coordinates (count,) and density (count, count), rows along y."""
    axis = torch.linspace(-limit, limit, count, dtype=torch.float64)
    return axis, prior.log_density(square(axis), t, cond).exp().reshape(count, count)


def square(axis: Tensor) -> Tensor:
    """All points whose coordinates are on an axis (n,), row by row along y: (n^2, 2)."""
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)


def trajectories(
    prior: GaussianMixture,
    paths: dict[str, Tensor],
    cond: Condition | None = None,
    limit: float = 2.5,
    title: str = "",
) -> go.Figure:
    """Paths (K, B, 2), each under its name, over the clean density; one colour an item, a dot where
    it ends.

    With several names the paths differ in dash. Raises ValueError for a prior that is not 2-D.
    """
    if prior.shape != (2,):
        raise ValueError(
            f"trajectories are drawn for 2-D points; {prior.name} has items of shape {prior.shape}"
        )
    axis, p = density(prior, 0, cond, limit)
    background = {"showscale": False, "hoverinfo": "skip", "line_width": 0}
    background |= {"colorscale": [[0, "white"], [1, "#c9cfdd"]], "contours_coloring": "heatmap"}
    x = axis.tolist()
    figure = StillFigure(
        go.Contour(x=x, y=x, z=p.sqrt().tolist(), **background),
        still=lambda: _trajectories(prior, paths, cond, limit, title),
    )
    dashes = itertools.cycle(("solid", "dot", "dash", "dashdot"))
    for (name, path), dash in zip(paths.items(), dashes, strict=False):
        for b in range(path.shape[1]):
            (x, y), colour = path[:, b].T.tolist(), COLOURS[b % len(COLOURS)]
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines",
                legendgroup=name,
                name=name,
                showlegend=b == 0,
                line={"color": colour, "dash": dash, "width": 2},
                hovertemplate=f"{name}, item {b}<br>%{{x:.2f}}, %{{y:.2f}}<extra></extra>",
            )
            figure.add_scatter(
                x=x[-1:],
                y=y[-1:],
                mode="markers",
                showlegend=False,
                hoverinfo="skip",
                legendgroup=name,
                marker={"color": colour, "size": 9, "line": {"color": "white", "width": 1.5}},
            )
    figure.update_layout(
        width=560,
        height=560,
        title=title,
        template="plotly_white",
        margin={"l": 30, "r": 20, "t": 50, "b": 30},
        legend={"orientation": "h", "y": 1.06},
    )
    figure.update_xaxes(range=[-limit, limit], constrain="domain")
    figure.update_yaxes(range=[-limit, limit], scaleanchor="x")
    return figure


def _trajectories(
    prior: GaussianMixture,
    paths: Mapping[str, Tensor],
    cond: Condition | None,
    limit: float,
    title: str,
) -> Figure:
    """`trajectories` as a still."""
    figure = Figure(figsize=(5.2, 5.2), dpi=100)
    axes = figure.add_axes((0.07, 0.06, 0.9, 0.87))
    shade(axes, density(prior, 0, cond, limit)[1], limit)
    axes.set_title(title, fontsize=10)
    for (name, path), dash in zip(
        paths.items(), itertools.cycle(("-", ":", "--", "-.")), strict=False
    ):
        for b, way in enumerate(path.detach().cpu().unbind(1)):
            how = {"color": COLOURS[b % len(COLOURS)], "label": name if b == 0 else None}
            axes.plot(*way.T, ls=dash, lw=1.6, **how)
            axes.plot(*way[-1], "o", color=how["color"], ms=7, mec="white")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def shade(axes, p: Tensor, limit: float) -> None:
    """A density (n, n) in grey on matplotlib axes from -limit to limit, by its square root so that
    faint parts show.
    """
    p = p.sqrt()
    axes.imshow(
        p,
        origin="lower",
        extent=(-limit, limit, -limit, limit),
        cmap="Greys",
        vmax=1.6 * float(p.max()),
    )
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit))


def field(
    prior: GaussianMixture,
    path: Trajectory,
    levels: Sequence[int],
    cond: Condition,
    cfg: float,
    limit: float = 2.6,
) -> Figure:
    """Some timesteps of a path (K, B, 2), a panel each: the condition's p_t as contours, -e_g as
    arrows of one length whose shade says how long they are, each x_t (a dot) with its way so far,
    and its x0-prediction (a diamond) at the end of a dashed line.

    levels: timesteps of the path. Raises ValueError for one that it does not have.
    """
    kept = path.t.tolist()
    if not set(levels) <= set(kept):
        raise ValueError(f"levels must be timesteps of the path, {kept}; got {list(levels)}")
    figure = Figure(figsize=(3.5 * len(levels) + 0.1, 3.9), dpi=110)
    panels = figure.subplots(1, len(levels), squeeze=False)[0]
    for panel, t in zip(panels, levels, strict=True):
        k = kept.index(t)
        contours(panel, prior, t, cond, limit)
        places = square(torch.linspace(-limit, limit, 15, dtype=torch.float64) * 0.93)
        e = prior.predict_guided(places, t, cond, cfg).eps
        size = e.norm(dim=1)
        arrows = -0.25 * e / size[:, None]
        shades = {"cmap": "Greys", "clim": (-2, 5), "width": 0.004, "zorder": 1}
        panel.quiver(*places.T, *arrows.T, size.clamp(max=5), **shades, **ARROWS)
        _walkers(panel, path.x_t.cpu()[: k + 1], path.x0.cpu()[k])
        panel.set_title(f"t = {t}, cfg = {cfg:g}", fontsize=10)
        panel.set(xticks=[], yticks=[], xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    figure.tight_layout(pad=0.5)
    return figure


def contours(axes, prior: GaussianMixture, t: int, cond: Condition | None, limit: float) -> None:
    """p_t as filled contours on matplotlib axes, its square root in five steps."""
    axis, p = density(prior, t, cond, limit)
    p = (p / p.max()).sqrt()
    axes.contourf(axis, axis, p, levels=(0.15, 0.35, 0.6, 0.85, 1), colors=DENSITY, zorder=0)


def _walkers(axes, ways: Tensor, x0: Tensor) -> None:
    """Points with their ways so far (k, B, 2) and their x0-predictions (B, 2); one is named."""
    for b, end in enumerate(x0):
        colour, now = COLOURS[b % len(COLOURS)], ways[-1, b]
        axes.plot(*ways[:, b].T, color=colour, lw=1.5, zorder=3)
        axes.plot(*torch.stack([now, end]).T, "--", color=colour, lw=1, zorder=3)
        axes.plot(*now, "o", color=colour, ms=7, mec="white", zorder=4)
        axes.plot(*end, "D", color="white", mec=colour, mew=1.8, ms=6, zorder=4)
    away = ways[-1, 0] - x0[0]  # each name stands on its point's far side from the other
    away = away / away.norm().clamp(min=1e-9) * 15
    for point, name, side in ((ways[-1, 0], "$x_t$", away), (x0[0], r"$\hat x_0$", -away)):
        how = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 11}
        how |= {"color": COLOURS[0], "path_effects": HALO, "zorder": 5}
        axes.annotate(name, point.tolist(), side.tolist(), **how)


def ends(
    prior: GaussianMixture, cond: Condition, results: dict[str, Tensor], limit: float = 2.5
) -> Figure:
    """Where each method's items end: results {name: points (B, 2)}, side by side over the
    condition's density; those farther out than `limit` stand at the edge.
    """
    looks = looks_of(results)

    def draw(panel, name):
        how = {"color": looks[name][0], "ms": 5, "mec": "white", "mew": 0.7, "alpha": 0.85}
        panel.plot(*results[name].cpu().clamp(-limit, limit).T, "o", clip_on=False, **how)

    return _side_by_side(prior, cond, results, limit, 3.1, draw)


def _side_by_side(
    prior: GaussianMixture,
    cond: Condition,
    names: Mapping[str, Tensor],
    limit: float,
    width: float,
    draw: Callable,
) -> Figure:
    """A panel a name over the condition's density, filled by `draw(panel, name)`."""
    figure = Figure(figsize=(width * len(names), width + 0.2), dpi=100)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    p = density(prior, 0, cond, limit)[1]
    for panel, name in zip(panels, names, strict=True):
        shade(panel, p, limit)
        draw(panel, name)
        panel.set(xticks=[], yticks=[])
        panel.set_title(name, fontsize=10)
    figure.tight_layout()
    return figure

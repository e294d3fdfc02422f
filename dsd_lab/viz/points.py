"""Figures of 2-D points: a mixture's density, the paths through it (plotly), and the field at one
moment (matplotlib).
"""

from __future__ import annotations

import itertools

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..priors import Condition, GaussianMixture
from ..sampling import Trajectory

COLOURS = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#9c6b4e", "#ff8ab7", "#6cc5b0")


def density(
    prior: GaussianMixture,
    t: int = 0,
    cond: Condition | None = None,
    limit: float = 2.5,
    count: int = 90,
):
    """p_t on a square grid: coordinates (count,) and density (count, count), rows along y."""
    axis = torch.linspace(-limit, limit, count, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    return axis, prior.log_density(points, t, cond).exp().reshape(count, count)


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
    figure = go.Figure(
        go.Contour(
            x=axis.tolist(),
            y=axis.tolist(),
            z=p.sqrt().tolist(),
            showscale=False,
            hoverinfo="skip",
            colorscale=[[0, "white"], [1, "#c9cfdd"]],
            contours_coloring="heatmap",
            line_width=0,
        )
    )
    for path, dash in zip(
        paths, itertools.cycle(("solid", "dot", "dash", "dashdot")), strict=False
    ):
        for b in range(paths[path].shape[1]):
            xy = paths[path][:, b]
            figure.add_scatter(
                x=xy[:, 0].tolist(),
                y=xy[:, 1].tolist(),
                mode="lines",
                legendgroup=path,
                name=path,
                showlegend=b == 0,
                line=dict(color=COLOURS[b % len(COLOURS)], dash=dash, width=2),
                hovertemplate=f"{path}, item {b}<br>%{{x:.2f}}, %{{y:.2f}}<extra></extra>",
            )
            figure.add_scatter(
                x=[xy[-1, 0].item()],
                y=[xy[-1, 1].item()],
                mode="markers",
                showlegend=False,
                hoverinfo="skip",
                legendgroup=path,
                marker=dict(
                    color=COLOURS[b % len(COLOURS)], size=9, line=dict(color="white", width=1.5)
                ),
            )
    figure.update_layout(
        width=560,
        height=560,
        title=title,
        template="plotly_white",
        margin=dict(l=30, r=20, t=50, b=30),
        legend=dict(orientation="h", y=1.06),
    )
    figure.update_xaxes(range=[-limit, limit], constrain="domain")
    figure.update_yaxes(range=[-limit, limit], scaleanchor="x")
    return figure


def shade(axes, prior: GaussianMixture, t: int, cond: Condition | None, limit: float) -> None:
    """p_t in grey on matplotlib axes from -limit to limit, by its square root so that faint parts
    show.
    """
    p = density(prior, t, cond, limit)[1].sqrt()
    axes.imshow(
        p,
        origin="lower",
        extent=(-limit, limit, -limit, limit),
        cmap="Greys",
        vmax=1.6 * float(p.max()),
    )
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit))


def axes_of(prior: GaussianMixture, t: int, cond: Condition | None, limit: float, title: str = ""):
    """A matplotlib figure and its axes, square, with p_t in grey."""
    figure = Figure(figsize=(5.2, 5.2), dpi=100)
    axes = figure.add_axes((0.07, 0.06, 0.9, 0.87))
    shade(axes, prior, t, cond, limit)
    axes.set(title=title)
    axes.title.set_size(10)
    axes.tick_params(labelsize=8)
    return figure, axes


def field(
    prior: GaussianMixture,
    path: Trajectory,
    k: int,
    cond: Condition,
    cfg: float,
    limit: float = 3.0,
) -> Figure:
    """Level k of a path (K, B, 2): p_t in grey, arrows from places to their x0-predictions (a sixth
    of the way), the points x_t (filled) with their way so far, and their x0-predictions (rings).
    """
    t = int(path.t[k])
    figure, axes = axes_of(
        prior, t, cond, limit, f"t = {t}, cfg = {cfg:g}: places and where they seem to come from"
    )
    grid = torch.linspace(-limit, limit, 15, dtype=torch.float64)
    places = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), dim=-1).reshape(-1, 2)
    to = (prior.predict_guided(places, t, cond, cfg).x0 - places) / 6
    axes.quiver(
        *places.T, *to.T, angles="xy", scale_units="xy", scale=1, width=0.003, color="#8a93a6"
    )
    for b in range(path.x_t.shape[1]):
        colour = COLOURS[b % len(COLOURS)]
        axes.plot(*path.x_t[: k + 1, b].T, color=colour, lw=1.5)
        axes.plot(*path.x0[: k + 1, b].T, color=colour, lw=1.2, ls=":")
        axes.plot(*path.x_t[k, b], "o", color=colour, ms=8, mec="white")
        axes.plot(*path.x0[k, b], "o", color="white", mec=colour, mew=2, ms=8)
    return figure


def ends(
    prior: GaussianMixture, cond: Condition, results: dict[str, Tensor], limit: float = 2.5
) -> Figure:
    """Where each method's items end: results {name: points (B, 2)}, side by side over the
    condition's density.
    """
    figure = Figure(figsize=(3.1 * len(results), 3.3), dpi=100)
    for panel, (name, x) in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
    ):
        shade(panel, prior, 0, cond, limit)
        panel.plot(*x.T, "o", color=COLOURS[1], ms=5, mec="white", mew=0.7, alpha=0.85)
        panel.set(xticks=[], yticks=[])
        panel.set_title(name, fontsize=10)
    figure.tight_layout()
    return figure


def arrows(
    prior: GaussianMixture,
    cond: Condition,
    places: Tensor,
    fields: dict[str, Tensor],
    limit: float = 2.5,
) -> Figure:
    """Vector fields side by side: fields {name: vectors (n, 2)} at places (n, 2), each scaled to
    its own 90th percentile.
    """
    figure = Figure(figsize=(3.9 * len(fields), 4.1), dpi=100)
    for panel, (name, vectors) in zip(
        figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True
    ):
        shade(panel, prior, 0, cond, limit)
        step = 0.25 * vectors / vectors.norm(dim=1).quantile(0.9)
        panel.quiver(
            *places.T,
            *step.T,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.005,
            color=COLOURS[0],
        )
        panel.set(xticks=[], yticks=[])
        panel.set_title(name, fontsize=10)
    figure.tight_layout()
    return figure

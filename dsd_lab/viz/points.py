"""Figures of 2-D points: a mixture's density and the paths through it (plotly)."""

from __future__ import annotations

import plotly.graph_objects as go
import torch
from torch import Tensor

from ..priors import Condition, GaussianMixture

COLOURS = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#9c6b4e", "#ff8ab7", "#6cc5b0")


def density(prior: GaussianMixture, t: int = 0, cond: Condition | None = None, limit: float = 2.5, count: int = 90):
    """p_t on a square grid: coordinates (count,) and density (count, count), rows along y."""
    axis = torch.linspace(-limit, limit, count, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    return axis, prior.log_density(points, t, cond).exp().reshape(count, count)


def trajectories(prior: GaussianMixture, paths: dict[str, Tensor], cond: Condition | None = None, limit: float = 2.5,
                 title: str = "") -> go.Figure:
    """Paths (K, B, 2), each under its name, over the clean density; one colour an item, a dot where it ends.

    With several names the paths differ in dash. Raises ValueError for a prior that is not 2-D.
    """
    if prior.shape != (2,):
        raise ValueError(f"trajectories are drawn for 2-D points; {prior.name} has items of shape {prior.shape}")
    axis, p = density(prior, 0, cond, limit)
    figure = go.Figure(go.Contour(x=axis.tolist(), y=axis.tolist(), z=p.sqrt().tolist(), showscale=False, hoverinfo="skip",
                                  colorscale=[[0, "white"], [1, "#c9cfdd"]], contours_coloring="heatmap", line_width=0))
    for path, dash in zip(paths, ("solid", "dot", "dash", "dashdot"), strict=False):
        for b in range(paths[path].shape[1]):
            xy = paths[path][:, b]
            figure.add_scatter(x=xy[:, 0].tolist(), y=xy[:, 1].tolist(), mode="lines", legendgroup=path, name=path,
                               showlegend=b == 0, line=dict(color=COLOURS[b % len(COLOURS)], dash=dash, width=2),
                               hovertemplate=f"{path}, item {b}<br>%{{x:.2f}}, %{{y:.2f}}<extra></extra>")
            figure.add_scatter(x=[xy[-1, 0].item()], y=[xy[-1, 1].item()], mode="markers", showlegend=False, hoverinfo="skip",
                               legendgroup=path, marker=dict(color=COLOURS[b % len(COLOURS)], size=9, line=dict(color="white", width=1.5)))
    figure.update_layout(width=560, height=560, title=title, template="plotly_white", margin=dict(l=30, r=20, t=50, b=30),
                         legend=dict(orientation="h", y=1.06))
    figure.update_xaxes(range=[-limit, limit], constrain="domain")
    figure.update_yaxes(range=[-limit, limit], scaleanchor="x")
    return figure

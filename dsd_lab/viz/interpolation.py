"""DSD in one picture: a seed's path, the render, the path's noise, and the point between them."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from ..priors import Condition, GaussianMixture
from ..sampling import Trajectory
from .pictures import in_colours, png
from .points import HALO, contours
from .style import COLOURS, INK, SOFT

PATH, RENDER, POINT = SOFT, COLOURS[0], COLOURS[1]
LONGER = 20  # a step of DSD is too short to be seen


class Moment(NamedTuple):
    """One step of DSD in the plane, points (2,): x, noise n = e_g at `on_path`, the path's point at
    t_prime; x0 = x0hat at the noised x; target = x - g.
    """

    t: int
    t_prime: int
    x: Tensor
    n: Tensor
    on_path: Tensor
    x0: Tensor
    target: Tensor


def interpolation(
    prior: GaussianMixture,
    cond: Condition,
    path: Trajectory,
    moment: Moment,
    middle: tuple[float, float] = (0.0, 0.0),
    limit: float = 2.3,
) -> Figure:
    """The first item's path, where DSD asks it, and the line on which x is noised with its noise.
    Names stand below, since the points may lie close together.

    path: the simulated one, of one seed or more, (K, B, 2). The curve from n to x is alpha_t x +
    sigma_t n for all t. The step's arrow is `LONGER` times as long as the step. Shown is what lies
    within `limit` of `middle`, along each axis.
    """
    figure, schedule = Figure(figsize=(4.4, 5.2), dpi=100), prior.schedule
    moment = Moment(moment.t, moment.t_prime, *(point.cpu() for point in moment[2:]))
    axes = figure.add_axes((0.01, 0.11, 0.98, 0.83))
    contours(axes, prior, moment.t, cond, limit + max(map(abs, middle)))
    levels = torch.arange(int(path.t[0]), -1, -9)[:, None].expand(-1, path.x_t.shape[1])
    axes.plot(*path.point(levels)[:, 0].cpu().T, color=PATH, lw=2, zorder=2)
    line = schedule.alpha[:, None] * moment.x + schedule.sigma[:, None] * moment.n
    axes.plot(*line.T, "--", color=POINT, lw=1.2, zorder=2)
    x_t = line[moment.t]
    axes.plot(*zip(x_t, moment.x0, strict=True), ":", color=POINT, lw=1.2, zorder=3)
    marks = []
    for point, name, look in (
        (moment.x, "render x", {"marker": "s", "color": RENDER, "ms": 9}),
        (moment.n, "noise n", {"marker": "o", "color": "white", "ms": 8, "mec": POINT}),
        (moment.on_path, "path at t'", {"marker": "o", "color": "white", "ms": 14, "mec": PATH}),
        (x_t, "$x_t$", {"marker": "D", "color": POINT, "ms": 6}),
        (
            moment.x0,
            r"$\hat x_0(x_t, t)$",
            {"marker": "D", "color": "white", "ms": 6, "mec": POINT},
        ),
    ):
        marks += axes.plot(*point, ls="", label=name, mew=1.8, zorder=5, **look)
    end = moment.x + LONGER * (moment.target - moment.x)
    arrow = {"arrowstyle": "-|>,head_width=0.3", "color": RENDER, "lw": 2.5, "shrinkA": 0}
    arrow |= {"shrinkB": 0, "path_effects": HALO}
    axes.annotate("", end.tolist(), moment.x.tolist(), arrowprops=arrow, zorder=4)
    marks.append(Line2D([], [], color=RENDER, lw=2.5, label=f"{LONGER} times the step"))
    (x, y), no_ticks = middle, {"xticks": [], "yticks": []}
    axes.set(xlim=(x - limit, x + limit), ylim=(y - limit, y + limit), **no_ticks)
    axes.set_title(f"t = {moment.t}, t' = {moment.t_prime}", fontsize=11, color=INK)
    figure.legend(handles=marks, loc="lower center", ncols=3, frameon=False, fontsize=9.5)
    return figure


def animated(figures: Sequence[Figure], seconds: float = 0.25, rest: float = 1.5) -> bytes:
    """Figures as a looped GIF of 48 colours, each for some seconds and the last a while longer."""
    frames = [in_colours(Image.open(io.BytesIO(png(figure))), 48) for figure in figures]
    times = [int(1000 * seconds)] * (len(frames) - 1) + [int(1000 * rest)]
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:], "loop": 0, "optimize": True}
    frames[0].save(buffer, "gif", duration=times, **more)
    return buffer.getvalue()

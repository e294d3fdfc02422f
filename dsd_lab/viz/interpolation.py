"""DSD in one picture: a seed's path, the render, the path's noise, and the point between them."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..priors import Condition, GaussianMixture
from ..sampling import Trajectory
from .pictures import png
from .points import HALO, contours
from .style import COLOURS, INK, SOFT

PATH, RENDER, POINT = SOFT, COLOURS[0], COLOURS[1]


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

    path: the simulated one, of one seed or more, (K, B, 2). The curve from n to x is alpha_t x +
    sigma_t n for all t. Shown is what lies within `limit` of `middle`, along each axis.
    """
    figure, schedule = Figure(figsize=(4.4, 4.7), dpi=100), prior.schedule
    moment = Moment(moment.t, moment.t_prime, *(point.cpu() for point in moment[2:]))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.92))
    contours(axes, prior, moment.t, cond, limit + max(map(abs, middle)))
    levels = torch.arange(int(path.t[0]), -1, -9)[:, None].expand(-1, path.x_t.shape[1])
    axes.plot(*path.point(levels)[:, 0].cpu().T, color=PATH, lw=2, zorder=2)
    line = schedule.alpha[:, None] * moment.x + schedule.sigma[:, None] * moment.n
    axes.plot(*line.T, "--", color=POINT, lw=1.2, zorder=2)
    x_t = line[moment.t]
    axes.plot(*moment.on_path, "o", color=PATH, ms=9, mec="white", zorder=4)
    axes.plot(*moment.n, "o", color="white", ms=8, mec=POINT, mew=1.8, zorder=4)
    axes.plot(*zip(x_t, moment.x0, strict=True), ":", color=POINT, lw=1.2, zorder=3)
    axes.plot(*moment.x0, "D", color="white", ms=7, mec=POINT, mew=1.8, zorder=5)
    axes.plot(*x_t, "D", color=POINT, ms=8, mec="white", zorder=5)
    axes.plot(*moment.x, "s", color=RENDER, ms=9, mec="white", zorder=5)
    arrow = {"arrowstyle": "-|>", "color": RENDER, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", moment.target.tolist(), moment.x.tolist(), arrowprops=arrow, zorder=6)
    for point, name, colour, place in (
        (moment.on_path, f"path at t' = {moment.t_prime}", PATH, (-14, -14)),
        (moment.n, "its noise n", POINT, (0, -14)),
        (x_t, "$x_t$", POINT, (15, -6)),
        (moment.x0, r"$\hat x_0(x_t, t)$", POINT, (-12, 14)),
        (moment.x, "render x", RENDER, (18, 13)),
    ):
        how = {"textcoords": "offset points", "ha": "center", "va": "center", "zorder": 7}
        axes.annotate(
            name, point.tolist(), place, color=colour, fontsize=9.5, path_effects=HALO, **how
        )
    (x, y), no_ticks = middle, {"xticks": [], "yticks": []}
    axes.set(xlim=(x - limit, x + limit), ylim=(y - limit, y + limit), **no_ticks)
    axes.set_title(f"t = {moment.t}", fontsize=11, color=INK)
    return figure


def animated(figures: Sequence[Figure], seconds: float = 0.25, rest: float = 1.5) -> bytes:
    """Figures as a looped GIF of 48 colours, each for some seconds and the last a while longer."""
    frames = [Image.open(io.BytesIO(png(figure))).convert("RGB") for figure in figures]
    frames = [frame.quantize(48, dither=Image.Dither.NONE) for frame in frames]
    times = [int(1000 * seconds)] * (len(frames) - 1) + [int(1000 * rest)]
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:], "loop": 0, "optimize": True}
    frames[0].save(buffer, "gif", duration=times, **more)
    return buffer.getvalue()

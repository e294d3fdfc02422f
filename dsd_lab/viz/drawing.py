"""A distribution drawn by hand in the plane, and DDIM, SDS and DSD on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import anywidget
import torch
import traitlets
from torch import Tensor

from ..distill import distill
from ..methods import DSD, SDS
from ..priors import GaussianMixture
from ..sampling import ddim
from .controls import cfg_control, choice_control, seed_control
from .live import Experiment, LiveExplorer, watch
from .points import ends

PENS = ("A", "B")
LIMIT = 2.5  # of the plane that is drawn on and shown, along each axis
WIDTH = 0.08  # of the Gaussian around each drawn point


class Drawing(tuple):
    """Points (x, y, pen) of a plane from -2.5 to 2.5, each by pen "A" or "B".

    Raises ValueError for another pen, or a point outside.
    """

    def __new__(cls, points: Iterable = ()):
        points = tuple((float(x), float(y), pen) for x, y, pen in points)
        for x, y, pen in points:
            if pen not in PENS or not (math.isfinite(x + y) and max(abs(x), abs(y)) <= LIMIT):
                raise ValueError(
                    f"a drawn point is (x, y, pen) with x and y from -{LIMIT} to {LIMIT} and pen "
                    f"A or B, got ({x:g}, {y:g}, {pen})"
                )
        return super().__new__(cls, points)

    def __str__(self):
        return ", ".join(f"{len(self.of(pen))} points by pen {pen}" for pen in PENS)

    def of(self, pen: str) -> Tensor:
        """The points of a pen, float64 (n, 2)."""
        points = [point[:2] for point in self if point[2] == pen]
        return torch.tensor(points, dtype=torch.float64).reshape(-1, 2)

    def prior(self, width: float = WIDTH) -> GaussianMixture:
        """The exact prior of the drawn points, a Gaussian around each, with the pens as prompts.

        Raises ValueError if nothing is drawn.
        """
        if not self:
            raise ValueError("nothing is drawn yet: draw with a pen")
        pens = {pen: self.of(pen) for pen in PENS}
        return GaussianMixture({pen: points for pen, points in pens.items() if len(points)}, width)


class Pad(anywidget.AnyWidget):
    """A plane to draw on with two pens, by mouse, finger or keys; its value is a `Drawing`."""

    _esm = Path(__file__).with_name("drawing.js")
    value = traitlets.Any(Drawing()).tag(
        sync=True,
        from_json=lambda points, widget: Drawing(points),
        to_json=lambda points, widget: [list(point) for point in points],
    )
    description = traitlets.Unicode("drawing")
    tooltip = traitlets.Unicode("draw with two pens; each is a prompt")

    @traitlets.validate("value")
    def _checked(self, proposal):
        return Drawing(proposal["value"])


def reached(points: Tensor, found: Tensor, radius: float = 3 * WIDTH) -> float:
    """The share of drawn points (n, 2) with any of the found (B, 2) within a radius."""
    return float((torch.cdist(points, found).amin(1) <= radius).double().mean())


def on_drawing(
    drawing: Drawing, prompt: str, seed: int, cfg: float, count: int = 48, steps: int = 150
) -> Experiment:
    """DDIM, SDS and DSD of a drawing at once, with the same `count` seeds from `seed` on: where
    they are after each step, and which share of the prompt's points they reached.

    Raises ValueError if the prompt's pen has drawn nothing.
    """
    if not len(drawing.of(prompt)):
        raise ValueError(f"nothing is drawn with pen {prompt}: draw with it, or choose the other")
    prior, seeds = drawing.prior(), range(seed, seed + count)
    cond, points = prior.condition(prompt), drawing.of(prompt)
    path = ddim(prior, prior.noise(seeds, torch.float64), cond, steps=40, cfg=cfg)
    methods = {"SDS": SDS(cfg=cfg), "DSD": DSD(cfg=cfg)}
    settings = {"steps": steps, "dtype": torch.float64}
    runs = {name: distill(prior, cond, m, seeds, **settings) for name, m in methods.items()}

    def now() -> dict[str, Tensor]:
        index = runs["SDS"].index
        way = path.final if index == steps else path.x_t[index * len(path.t) // steps]
        return {"DDIM": way, **{name: run.x for name, run in runs.items()}}

    def shares() -> dict[str, float]:
        return {name: reached(points, x) for name, x in now().items()}

    def look():
        fact = ", ".join(f"{name} {share:.0%}" for name, share in shares().items())
        figure = ends(prior, cond, now(), LIMIT)
        return figure, f"drawn points with a result near them: {fact}"

    label = "share of drawn\npoints reached"
    return Experiment(zip(*runs.values(), strict=True), look, lambda step: shares(), label)


def watch_drawing(drawing: Iterable = (), cfg: float = 1.0) -> LiveExplorer:
    """A pad to draw on, and DDIM, SDS and DSD on what is drawn; see `on_drawing`.

    drawing: points (x, y, pen) to begin with. Controls drawing, prompt, seed and cfg.
    """

    def one_pen(values):
        alone = sum(len(values["drawing"].of(pen)) > 0 for pen in PENS) < 2
        return (
            "guidance steers away from the other pen's points, and there are none" if alone else ""
        )

    return watch(
        on_drawing,
        greyed={"cfg": one_pen},
        drawing=Pad(value=Drawing(drawing)),
        prompt=choice_control("prompt", PENS),
        seed=seed_control(0),
        cfg=cfg_control(cfg, 15.0),
    )

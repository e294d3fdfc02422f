"""Lesson 06: what a longer part of a ray stops, a pixel's colour, and what white hides."""

import math
from functools import cache

import torch

from ...scene.render import composite
from .questions import DTYPE
from .record import Explain, Implement, Predict, Question


def stopped_by_twice_the_length() -> float:
    """The share of light that a sample stops whose part is twice as long, where it stopped half."""
    density, delta = torch.tensor([[math.log(2)]]), torch.tensor([[2.0]])
    return float(composite(density, delta))


PREDICT = Predict(
    "06.1",
    "1 - (1/2)^2: what comes through multiplies, so half the samples still paint the same pixel.",
    stopped_by_twice_the_length,
    {
        "twice a half would be all of it; the second half of the part gets only what the first "
        "lets through.": lambda: 1.0,
        "its density has not changed, but the light has a longer way through it.": lambda: 0.5,
        "that is what comes through; what is stopped is asked for.": lambda: 0.25,
        "that is half the length; fewer samples have longer parts.": lambda: 1 - 0.5**0.5,
    },
)


@cache
def ask(seed: int) -> Question:
    g = torch.Generator().manual_seed(seed)
    density = 3 * torch.rand(4, 6, generator=g, dtype=DTYPE)
    colour = torch.rand(4, 6, 3, generator=g, dtype=DTYPE)
    delta, background = 0.2 + 0.1 * (seed % 3), torch.rand(3, generator=g, dtype=DTYPE)
    weights = composite(density, torch.full((4, 1), delta, dtype=DTYPE))
    right = (weights[..., None] * colour).sum(1) + (1 - weights.sum(1))[:, None] * background
    arguments = {"density": density, "colour": colour, "delta": delta, "background": background}
    return Question(arguments, right)


def exclusive(thickness):
    """T before each sample: the light that the samples in front of it let through."""
    return (thickness - thickness.cumsum(1)).exp()


def pixel_of(
    stops=lambda thickness: 1 - (-thickness).exp(),
    arrives=exclusive,
    thick=lambda density, delta: density * delta,
    rest=lambda weights: 1 - weights.sum(1),
    scale=lambda weights: weights,
):
    """The quadrature of the rendering integral with some of its parts replaced."""

    def pixel(density, colour, delta, background):
        thickness = thick(density, delta)
        weights = scale(arrives(thickness) * stops(thickness))
        return (weights[..., None] * colour).sum(1) + rest(weights)[:, None] * background

    return pixel


IMPLEMENT = Implement(
    "06.2",
    "this is the library's quadrature, to rounding.",
    ask,
    {
        "T_i counts the sample itself: only those before it, j < i, are in its way.": pixel_of(
            arrives=lambda thickness: (-thickness.cumsum(1)).exp()
        ),
        "nothing hides anything: the weights need the light T_i that arrives.": pixel_of(
            arrives=torch.ones_like
        ),
        "the sum runs from the wrong end: the camera is before the first sample.": pixel_of(
            arrives=lambda thickness: exclusive(thickness.flip(1)).flip(1)
        ),
        "the share that a sample stops is missing from its weight.": pixel_of(
            stops=torch.ones_like
        ),
        "a sample stops 1 - exp(-density delta); density delta is its limit for thin ones.": (
            pixel_of(stops=lambda thickness: thickness)
        ),
        "that is what a sample lets through; its weight has what it stops.": pixel_of(
            stops=lambda thickness: (-thickness).exp()
        ),
        "the length of a part is missing: density is per unit of length.": pixel_of(
            thick=lambda density, delta: density
        ),
        "the background is missing: what no sample stops goes on to it.": pixel_of(
            rest=lambda weights: 0 * weights.sum(1)
        ),
        "the background is added whole; only 1 - sum_i w_i of the light reaches it.": pixel_of(
            rest=lambda weights: torch.ones_like(weights.sum(1))
        ),
        "the weights are made to sum to 1, so that a ray through thin air is opaque.": pixel_of(
            scale=lambda weights: weights / weights.sum(1, keepdim=True)
        ),
    },
    fresh="Rendering the same samples gives the same pixel.",
)

EXPLAIN = Explain(
    "06.3",
    "before white, o c + (1 - o) is all that a photograph shows: many pairs of o and c give it.",
    "d",
    {
        "a": "more photographs before the same white show the same sum; they do not tell either.",
        "b": "the field could be dark or pink as well as the photographs ask for.",
        "c": "samples are dense enough: the same happens on a single ray with one sample.",
        "e": "a colour that depends on direction is not needed for it, and this field has none.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

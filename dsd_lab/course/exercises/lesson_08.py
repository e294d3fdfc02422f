"""Lesson 08: how near an average is, the distance of objects, and what an average's says."""

from functools import cache

import torch
from torch import Tensor

from ...draws import generator_of
from ...metrics import apart, distances
from .questions import DTYPE
from .record import Explain, Implement, Predict, Question

BETWEEN = 0.16  # RMSE between two objects


def half_way() -> float:
    """How far the mean of two objects is from one of them."""
    one = torch.rand(1, 2, 3, 4, 4, generator=generator_of("exercise", 0), dtype=DTYPE)
    other = one + BETWEEN * torch.ones_like(one)
    return float(apart((one + other) / 2, one))


PREDICT = Predict(
    "08.1",
    "half of 0.16, from either: it lies within 0.1 of both and is neither. So `reached` alone can "
    "be deceived too: look at the picture.",
    half_way,
    {
        "a root belongs to directions that are independent; the mean lies on the line between the "
        "two.": lambda: BETWEEN / 2**0.5,
        "that is how far the two are from each other.": lambda: BETWEEN,
        "an average is a third thing, unless both are the same.": lambda: 0.0,
        "RMSE has a root already: half the difference is half the RMSE, not a quarter.": lambda: (
            BETWEEN / 4
        ),
    },
    within=0.004,
)


@cache
def ask(seed: int) -> Question:
    g = generator_of("exercise", seed)
    views, objects = (torch.rand(n, 4, 3, 6, 6, generator=g, dtype=DTYPE) for n in (3, 5))
    views = views * torch.linspace(0.2, 1, 4, dtype=DTYPE)[:, None, None, None]
    right = distances(views, objects).min(1).values
    return Question({"views": views, "objects": objects}, right)


def distance_of(
    power=2,
    over=(2, 3, 4, 5),  # of (scenes, objects, views, colours, rows, columns)
    root=lambda mean: mean.sqrt(),
    pick=lambda far: far.amin(1),
):
    """The distance to the nearest object with some of its parts replaced."""

    def distance(views: Tensor, objects: Tensor) -> Tensor:
        difference = (views[:, None] - objects[None]).abs() ** power
        return pick(root(difference.mean(over)))

    return distance


IMPLEMENT = Implement(
    "08.2",
    "this is the library's distance to the nearest object.",
    ask,
    {
        "each view has its own nearest object; one object has to fit all views together.": (
            distance_of(over=(3, 4, 5), pick=lambda far: far.amin(1).square().mean(1).sqrt())
        ),
        "each view has its own nearest object, and their roots are averaged; one object has to fit "
        "all views together.": distance_of(over=(3, 4, 5), pick=lambda far: far.amin(1).mean(1)),
        "the root is taken view by view; take one mean over all views, and then its root.": (
            distance_of(over=(3, 4, 5), pick=lambda far: far.mean(2).amin(1))
        ),
        "the root is missing.": distance_of(root=lambda mean: mean),
        "that is the mean absolute difference; RMSE squares first.": distance_of(
            power=1, root=lambda mean: mean
        ),
        "that is the mean over all objects; asked for is the nearest.": distance_of(
            pick=lambda far: far.mean(1)
        ),
        "that is the farthest object.": distance_of(pick=lambda far: far.amax(1)),
        "that is which object is nearest, not how far it is.": distance_of(
            pick=lambda far: far.argmin(1)
        ),
        "that is a sum of squares, not a mean: it would grow with the number of pixels.": (
            distance_of(root=lambda mean: (mean * 4 * 3 * 6 * 6).sqrt())
        ),
    },
    fresh="A distance needs no chance.",
)

EXPLAIN = Explain(
    "08.3",
    "an average has a low distance to many objects and is none of them.",
    "c",
    {
        "a": "the number alone cannot say so: look at the pictures, one blurred thing each time.",
        "b": "both methods had the same guidance.",
        "d": "the judge looks from cameras that neither method has used.",
        "e": "intervals that do not touch are no chance; more seeds would show it again.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

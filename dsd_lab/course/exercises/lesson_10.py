"""Lesson 10: what subtraction takes from the wanted view, Perp-Neg, and why words are weak."""

from functools import cache

import torch

from ...priors.view_prompts import per_item, perpendicular
from .questions import DTYPE
from .record import Explain, Implement, Predict, Question

COSINE = 0.6  # between the wanted direction and the unwanted one, which are of one length


def left_of_the_wanted() -> float:
    """Of the wanted direction, what is left after the unwanted one is subtracted whole."""
    side = torch.tensor([[1.0, 0.0]])
    front = torch.tensor([[COSINE, (1 - COSINE**2) ** 0.5]])
    common = front - perpendicular(front, side)
    return float((side - common)[0, 0])


PREDICT = Predict(
    "10.1",
    "1 - 0.6: the part in common goes too. Perp-Neg subtracts the part across, and leaves it 1.",
    left_of_the_wanted,
    {
        "that is what Perp-Neg leaves; the front is subtracted whole here.": lambda: 1.0,
        "that would be two directions that are the same; they have 0.6 in common.": lambda: 0.0,
        "that is what they have in common; it is what goes.": lambda: COSINE,
        "the sign is wrong: it is subtracted.": lambda: 1 + COSINE,
        "that is the part of the front across the side: what Perp-Neg subtracts.": lambda: 0.8,
        "1 - cos^2 is the square of what lies across; along the side it is 1 - cos.": lambda: 0.64,
    },
)


@cache
def ask(seed: int) -> Question:
    g = torch.Generator().manual_seed(seed)
    e_u, e_wanted, *e_unwanted = torch.randn(4, 3, 2, 5, generator=g, dtype=DTYPE)
    w = -torch.rand(2, 3, generator=g, dtype=DTYPE)
    e_unwanted, cfg = torch.stack(e_unwanted), 2 + 4 * float(torch.rand((), generator=g))
    e_pos, right = e_wanted - e_u, e_wanted - e_u
    for w_i, e_i in zip(w, e_unwanted, strict=True):
        right = right + per_item(w_i, e_i) * perpendicular(e_i - e_u, e_pos)
    arguments = {"e_u": e_u, "e_wanted": e_wanted, "e_unwanted": e_unwanted, "w": w, "cfg": cfg}
    return Question(arguments, e_u + cfg * right)


def dot(a, b):
    """Item by item: (B, 1, 1)."""
    return (a * b).sum((1, 2), keepdim=True)


def form(
    across=lambda e, pos: e - dot(e, pos) / dot(pos, pos) * pos,
    base=lambda e_u: e_u,
    sign=1,
    total=lambda e_u, pos, more, cfg: e_u + cfg * (pos + more),
):
    """Perp-Neg with some of its parts replaced."""

    def perp_neg(e_u, e_wanted, e_unwanted, w, cfg):
        pos = e_wanted - base(e_u)
        more = sum(
            sign * w_i[:, None, None] * across(e_i - base(e_u), pos)
            for w_i, e_i in zip(w, e_unwanted, strict=True)
        )
        return total(e_u, pos, more, cfg)

    return perp_neg


IMPLEMENT = Implement(
    "10.2",
    "this is the library's Perp-Neg, to rounding.",
    ask,
    {
        "the unwanted texts are subtracted whole: the part along e_pos has to be taken out.": form(
            across=lambda e, pos: e
        ),
        "that is the part along e_pos; what lies across it is asked for.": form(
            across=lambda e, pos: dot(e, pos) / dot(pos, pos) * pos
        ),
        "the projection is divided by the length of e_pos, not by its square.": form(
            across=lambda e, pos: e - dot(e, pos) / dot(pos, pos).sqrt() * pos
        ),
        "the projection is not divided by the square of e_pos's length.": form(
            across=lambda e, pos: e - dot(e, pos) * pos
        ),
        "it is projected onto the unwanted direction: e_i and e_pos are interchanged.": form(
            across=lambda e, pos: pos - dot(e, pos) / dot(e, e) * e
        ),
        "the products run over the whole batch; each picture has its own.": form(
            across=lambda e, pos: e - (e * pos).sum() / (pos * pos).sum() * pos
        ),
        "the sign is wrong: the weights are negative already.": form(sign=-1),
        "the predictions are used as they are; directions are differences from e_u.": form(
            base=lambda e_u: 0
        ),
        "cfg multiplies the wanted text only; it stands before the bracket.": form(
            total=lambda e_u, pos, more, cfg: e_u + cfg * pos + more
        ),
        "e_u is missing: guidance starts from it.": form(
            total=lambda e_u, pos, more, cfg: cfg * (pos + more)
        ),
        "the unwanted texts are missing: this is plain guidance.": form(
            total=lambda e_u, pos, more, cfg: e_u + cfg * pos
        ),
    },
    fresh="Perp-Neg combines predictions; it draws nothing.",
)

EXPLAIN = Explain(
    "10.3",
    "the words are one coarse hint, and its training pictures mostly show fronts.",
    "e",
    {
        "a": "it costs evaluations, and says nothing about what the network makes of the words.",
        "b": "more guidance follows the words more strongly, and what they are worth stays.",
        "c": "a camera is drawn on all sides, and each view is judged with its own phrase.",
        "d": "fresh or kept, the noise does not know where the camera stands.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)

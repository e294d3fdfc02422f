"""Putting a toy together: its seed's random numbers, and the rows of solid shapes and paint that it
is made of.
"""

import math

import torch

from ...draws import generator_of

COLOURS = {
    "red": (0.86, 0.15, 0.16),
    "orange": (0.98, 0.52, 0.08),
    "yellow": (0.99, 0.84, 0.16),
    "green": (0.26, 0.66, 0.28),
    "blue": (0.16, 0.42, 0.90),
    "purple": (0.52, 0.26, 0.74),
    "pink": (0.98, 0.56, 0.74),
    "brown": (0.52, 0.32, 0.17),
}
INK, SNOW, CREAM, STEEL = (
    (0.10, 0.09, 0.12),
    (0.97, 0.97, 0.95),
    (0.97, 0.88, 0.70),
    (0.62, 0.65, 0.70),
)
WOOD, LEAF, GLASS, CARROT = (
    (0.66, 0.45, 0.26),
    (0.36, 0.62, 0.22),
    (0.62, 0.84, 0.95),
    (0.97, 0.50, 0.12),
)
CLAY, FLAME, GOLD, ROSE = (
    (0.78, 0.42, 0.28),
    (1.00, 0.45, 0.10),
    (1.00, 0.80, 0.25),
    (0.95, 0.40, 0.50),
)
TWIG, COCOA = (0.40, 0.26, 0.15), (0.36, 0.20, 0.12)
SIDES = (-1, 1)  # left and right, as factors of x


def mix(one, other, share):
    """The colour `share` of the way from one to the other."""
    return tuple(a + (b - a) * share for a, b in zip(one, other, strict=True))


class Toy:
    """One toy under construction: the random numbers of its seed, and the rows of shapes it is made
    of.

    A row is (role, shape, centre, turn, size, colour). Roles: "body" shapes melt into each other, a
    "cut" is taken out of the body, a "part" is added to it, and "paint" only colours what lies
    inside it, later over earlier.
    """

    def __init__(self, kind, seed, twin=False):
        generator = generator_of(kind, seed, "toybox")
        self.draws = iter(torch.rand(200, generator=generator, dtype=torch.float64).tolist())
        self.twin, self.rows, self.melt = twin, [], 0.02

    # Random numbers

    def between(self, low, high):
        return low + (high - low) * next(self.draws)

    def pick(self, *options):
        return options[int(next(self.draws) * len(options))]

    def chance(self, share):
        return next(self.draws) < share

    def accent(self, *taken, apart=0.45):
        """A palette colour that is well apart from the ones taken."""
        return self.pick(
            *(c for c in COLOURS.values() if all(math.dist(c, other) > apart for other in taken))
        )

    # Shapes; `turn` is degrees about x, y and z, or a matrix

    def add(self, role, shape, at, turn, size, colour):
        turn = _turn(*turn) if len(turn) == 3 and not isinstance(turn[0], tuple) else turn
        self.rows.append(
            (role, shape, tuple(at), turn, tuple(size) + (0.0,) * (5 - len(size)), colour)
        )

    def ball(self, at, radius, colour, role="part", turn=(0, 0, 0)):
        """A ball, or with three radii an ellipsoid."""
        self.add(
            role, "ball", at, turn, radius if isinstance(radius, tuple) else (radius,) * 3, colour
        )

    def box(self, at, half, colour, role="part", turn=(0, 0, 0), edge=0.02):
        """A box of half sizes `half`, its edges rounded with radius `edge`."""
        edge = min(edge, *half)
        self.add(role, "box", at, turn, (*(h - edge for h in half), 0.0, edge), colour)

    def cone(self, start, end, low, high, colour, role="part", edge=0.01):
        """A flat-ended cone or cylinder from point to point, of radius `low` at the start and
        `high` at the end.
        """
        centre, turn, half = _between(start, end)
        edge = min(edge, half)
        size = (max(low - edge, 0), max(high - edge, 0), half - edge, 0.0, edge)
        self.add(role, "cone", centre, turn, size, colour)

    def pill(self, start, end, low, high, colour, role="part"):
        """A round-ended cone from the ball (start, low) to the ball (end, high)."""
        centre, turn, half = _between(start, end)
        self.add(role, "pill", centre, turn, (low, high, half), colour)

    def ring(self, at, radius, thickness, colour, role="part", turn=(0, 0, 0)):
        """A torus about the y axis."""
        self.add(role, "ring", at, turn, (radius, thickness), colour)

    def prism(self, at, half, height, depth, colour, turn=(0, 0, 0), lean=0.0):
        """A triangle with its base on y = 0, from -half to half, and its tip at (lean, height),
        `depth` thick each way.
        """
        self.add("part", "prism", at, turn, (half, height, lean, depth), colour)

    def eyes(self, at, apart, radius, shine=True):
        """Two dark eyes left and right of `at`, looking to the front."""
        x, y, z = at
        for side in SIDES:
            self.ball((x + side * apart, y, z), radius, INK)
            if shine:
                glint = (x + (side * apart + 0.35 * radius), y + 0.45 * radius, z + 0.8 * radius)
                self.ball(glint, 0.42 * radius, SNOW, role="paint")


def _turn(x, y, z):
    """Rotation about z, then x, then y, by degrees: rows of a matrix whose columns are the shape's
    own axes.
    """
    (a, b, c), (d, e, f) = zip(
        *((math.cos(math.radians(v)), math.sin(math.radians(v))) for v in (x, y, z)), strict=True
    )
    return (
        (b * c + e * d * f, -b * f + e * d * c, e * a),
        (a * f, a * c, -d),
        (-e * c + b * d * f, e * f + b * d * c, b * a),
    )


def _between(start, end):
    """Centre, rotation and half length of a shape whose y axis runs from start to end."""
    length = math.dist(start, end)
    up = tuple((b - a) / length for a, b in zip(start, end, strict=True))
    other = (0, 0, 1) if abs(up[2]) < 0.9 else (1, 0, 0)
    across = _unit(_cross(up, other))
    columns = (across, up, _cross(across, up))
    return mix(start, end, 0.5), tuple(zip(*columns, strict=True)), length / 2


def _cross(a, b):
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _unit(a):
    return tuple(x / math.hypot(*a) for x in a)


def around(count, radius, y=0.0, start=0.0):
    """`count` points on a level circle, from the front on."""
    turns = (math.tau * (i / count) + math.radians(start) for i in range(count))
    return [(radius * math.sin(turn), y, radius * math.cos(turn)) for turn in turns]

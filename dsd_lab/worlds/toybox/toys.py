"""Toys: tables of shapes that make up a field of distance, of colour and of density for many toys
at once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...checks import did_you_mean, meant, positive
from ...draws import check_seeds
from ..prompts import key as wording
from .builder import COLOURS, Toy
from .kinds import EMBLEMS, RECIPES, add_back
from .shapes import reach
from .solids import Slots, Solids

KINDS = tuple(RECIPES)
RADIUS = 0.94  # of the sphere that every toy is scaled to
# points times shapes evaluated at once: many enough to be fast, few enough to stay in the cache
PIECE = 400_000


@dataclass(frozen=True, eq=False, repr=False)
class Toys:
    """N toys inside the unit sphere, as tables of shapes: a field of distance, of colour and of
    density.

    `kinds` and `colours` are their names, N each. `melt` (N,) is how far the body's shapes run into
    each other.
    """

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    table: dict[tuple[str, str], Slots]
    melt: Tensor

    def __len__(self):
        return len(self.kinds)

    def __repr__(self):
        return f"Toys({len(self)} of {', '.join(sorted(set(self.kinds)))})"

    @property
    def captions(self) -> tuple[str, ...]:
        """What each toy is, with its colour: "a red chair", "an orange apple"."""
        return tuple(
            with_article(f"{colour} {kind}")
            for colour, kind in zip(self.colours, self.kinds, strict=True)
        )

    def subset(self, index) -> "Toys":
        """The toys at the positions `index`, ints or an int64 (n,)."""
        index = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
        table = {}
        for key, slots in self.table.items():
            if used := int(slots.count[index].amax()) if len(index) else 0:
                table[key] = Slots(slots.count[index], *(part[index, :used] for part in slots[1:]))
        kinds, colours = (
            tuple(names[i] for i in index.tolist()) for names in (self.kinds, self.colours)
        )
        return Toys(kinds, colours, table, self.melt[index])

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distance to the surface, negative inside: points (N or 1, P, 3) give (N, P)."""
        return self._in_pieces(points, Solids(self.table, self.melt).distance)

    def colour(self, points: Tensor) -> Tensor:
        """The colour of the nearest surface, in [0, 1]: points (N or 1, P, 3) give (N, P, 3)."""
        return self._in_pieces(points, Solids(self.table, self.melt).colour)

    def density(self, points: Tensor, sharpness: float = 60.0) -> Tensor:
        """Opacity per unit of length, `sharpness` inside and 0 outside, over about 4 / sharpness:
        (N, P).
        """
        positive("sharpness", sharpness)
        return sharpness * torch.sigmoid(-sharpness * self.sdf(points))

    def _in_pieces(self, points, field):
        if points.ndim != 3 or points.shape[2] != 3 or len(points) not in (1, len(self)):
            raise ValueError(f"points must be (1 or {len(self)}, P, 3), got {tuple(points.shape)}")
        points = points.float().expand(len(self), -1, 3)
        places = sum(
            slots.centre.shape[1] for (role, _), slots in self.table.items() if role != "paint"
        )
        pieces = points.split(max(64, PIECE // (max(len(self), 1) * places)), dim=1)
        return (
            torch.cat([field(piece.mT) for piece in pieces], dim=1) if pieces else field(points.mT)
        )


def make_toys(
    kinds: Sequence[str], seeds: Sequence[int], backs: Sequence[int | None] | None = None
) -> Toys:
    """One toy for each kind and seed: the seed chooses its shape, its parts and its colours.

    `backs` makes twins: toys of one kind and seed with backs 0, 1 and 2 differ only in what is
    painted on their back; None is a toy that is no twin. Raises ValueError for an unknown kind,
    with the nearest one, or for unequal lengths.
    """
    seeds = check_seeds(seeds)
    kinds = [
        check_kind(kind) for kind in ([kinds] * len(seeds) if isinstance(kinds, str) else kinds)
    ]
    backs = [None] * len(seeds) if backs is None else list(backs)
    if not len(kinds) == len(seeds) == len(backs):
        raise ValueError(
            "kinds, seeds and backs must be equally many, "
            f"got {len(kinds)}, {len(seeds)} and {len(backs)}"
        )
    if wrong := [back for back in backs if back not in (None, 0, 1, 2)]:
        raise ValueError(f"every back must be 0, 1, 2 or None, got {wrong[0]!r}")
    built, colours = zip(*map(_build, kinds, seeds, backs), strict=True)
    return _fitted(_gathered(kinds, colours, built))


def check_kind(kind: str) -> str:
    """The one of KINDS, whatever its case. Raises TypeError or ValueError, with the nearest
    kind, if it is not.
    """
    if not isinstance(kind, str):
        raise TypeError(f"a kind is a string such as {KINDS[0]!r}, got {type(kind).__name__}")
    known = meant(kind, RECIPES)
    if known is None:
        hint = did_you_mean(wording(kind), KINDS, 0.6)
        raise ValueError(f'unknown kind "{kind}";{hint} (kinds: {", ".join(KINDS)})')
    return known


def with_article(noun: str) -> str:
    """ "a chair", "an apple"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _build(kind, seed, back):
    """The rows of one toy, and the name of its colour."""
    toy = Toy(kind, seed, twin=back is not None)
    first = int.from_bytes(hashlib.sha256(kind.encode()).digest()[:4], "big")
    colour = tuple(COLOURS)[
        (first + 3 * seed) % len(COLOURS)
    ]  # every colour comes up in eight seeds
    coat = COLOURS[colour]
    place = RECIPES[kind](toy, coat)
    if back is not None:
        first = toy.accent(coat, apart=0.6)
        colours, start = (
            (first, toy.accent(coat, first, apart=0.6)),
            int(toy.between(0, len(EMBLEMS))),
        )
        if back:  # the first of a group has nothing on its back
            add_back(toy, place, colours[back - 1], EMBLEMS[(start + back) % len(EMBLEMS)])
    return toy, colour


def _gathered(kinds, colours, built):
    """The Toys whose rows of shapes are those of the `built`."""
    table = {}
    for role, shape in sorted({row[:2] for toy in built for row in toy.rows}):
        rows = [
            [(i, *row[2:]) for i, row in enumerate(toy.rows) if row[:2] == (role, shape)]
            for toy in built
        ]
        table[role, shape] = _slots(rows)
    return Toys(tuple(kinds), tuple(colours), table, torch.tensor([toy.melt for toy in built]))


def _slots(rows):
    """Rows of (order, centre, turn, size, colour) for each toy, padded to the longest with specks
    far away.
    """
    speck = (
        -1,
        (0.0, 100.0, 0.0),
        ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)),
        (0.01,) * 5,
        (0.0,) * 3,
    )
    most = max(map(len, rows))
    order, centre, turn, size, colour = (
        torch.tensor(
            [[row[i] for row in own + [speck] * (most - len(own))] for own in rows],
            dtype=torch.float32,
        )
        for i in range(5)
    )
    return Slots(torch.tensor([len(own) for own in rows]), centre, turn.mT, size, colour, order)


def _fitted(toys):
    """The toys moved and scaled so that each lies in the sphere of radius RADIUS, none of it
    outside.
    """
    u = torch.cat([torch.eye(3), -torch.eye(3), _spread(600)])
    far = []
    for (role, shape), slots in toys.table.items():
        if role in ("body", "part"):
            span = slots.centre @ u.T + reach(
                shape, slots.turn @ u.T, slots.size.permute(2, 0, 1)[..., None]
            )
            used = torch.arange(span.shape[1]) < slots.count[:, None]
            far.append(span.where(used[..., None], -torch.inf).amax(1))
    far = torch.stack(far).amax(0)  # (N, M): how far each toy goes in each direction
    middle = (far[:, :3] - far[:, 3:6]) / 2
    scale = RADIUS / (far - middle @ u.T).amax(1)
    table = {}
    for key, slots in toys.table.items():
        used = (torch.arange(slots.centre.shape[1]) < slots.count[:, None])[..., None]
        centre = (slots.centre - middle[:, None]) * scale[:, None, None]
        size = slots.size * scale[:, None, None]
        table[key] = slots._replace(
            centre=centre.where(used, slots.centre), size=size.where(used, slots.size)
        )
    return Toys(toys.kinds, toys.colours, table, toys.melt * scale)


def _spread(count):
    """`count` unit directions spread evenly over the sphere: (count, 3)."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    y, turn = 1 - 2 * i / count, i * torch.pi * (3 - 5**0.5)
    level = (1 - y**2).sqrt()
    return torch.stack([level * turn.cos(), y, level * turn.sin()], dim=1).float()

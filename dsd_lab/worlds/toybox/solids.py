"""What is where: the distance to solids that are put together of shapes, and their colours."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .shapes import SHAPES


class Slots(NamedTuple):
    """The shapes of one role and one form of N toys, K places each; those a toy does not use are
    far away.
    """

    count: Tensor  # (N,) how many are used
    centre: Tensor  # (N, K, 3)
    turn: Tensor  # (N, K, 3, 3), world to own axes
    size: Tensor  # (N, K, 5)
    colour: Tensor  # (N, K, 3)
    order: Tensor  # (N, K) when it was added: later paint goes over earlier


class Solids(NamedTuple):
    """N solids of shapes in the roles that `builder.Toy` tells of; points are (N, 3, P).

    `table` holds the shapes of each role and form. `melt` (N,) is how far the body's shapes run
    into each other.
    """

    table: dict[tuple[str, str], Slots]
    melt: Tensor

    def distance(self, p: Tensor) -> Tensor:
        """Signed distance to the surface, negative inside: (N, P)."""
        return torch.minimum(self._carved(p)[0], self._nearest("part", p))

    def colour(self, p: Tensor) -> Tensor:
        """The colour of the nearest surface, in [0, 1]: (N, P, 3)."""
        each = {role: self._distances(role, p) for role in ("body", "part", "cut", "paint")}
        carved, is_cut = self._carved(p)
        if each["body"] and each["cut"]:  # what is cut away has no colour
            outside = -torch.cat(each["cut"], 1).amin(1, keepdim=True)
            each["body"] = [torch.maximum(d, outside) for d in each["body"]]
        solid = torch.cat(each["body"] + each["part"], dim=1)
        colour = _choose(solid.argmin(1), self._all("colour", "body", "part"))
        is_cut = is_cut & (carved < self._nearest("part", p))
        if each["paint"]:
            order = self._all("order", "paint")
            over = torch.where(torch.cat(each["paint"], 1) < 0, order[..., None], -1.0)
            painted = (over.amax(1) >= 0) & ~is_cut
            paint = _choose(over.argmax(1), self._all("colour", "paint"))
            colour = torch.where(painted[..., None], paint, colour)
        if each["cut"]:
            inside = _choose(torch.cat(each["cut"], 1).argmin(1), self._all("colour", "cut"))
            colour = torch.where(is_cut[..., None], inside, colour)
        return colour

    def _of(self, role: str) -> Iterator[tuple[str, Slots]]:
        """A role's forms and their shapes, in the order of SHAPES."""
        return ((form, self.table[role, form]) for form in SHAPES if (role, form) in self.table)

    def _all(self, field: str, *roles: str) -> Tensor:
        """A field of all shapes of some roles, (N, K, ...)."""
        return torch.cat([getattr(s, field) for role in roles for _, s in self._of(role)], 1)

    def _distances(self, role: str, p: Tensor) -> list[Tensor]:
        """Distances (N, K, P) to each of a role's shapes, an entry a form."""
        return [_distance(form, slots, p) for form, slots in self._of(role)]

    def _nearest(self, role: str, p: Tensor) -> Tensor:
        """Distance to the nearest of a role's shapes: (N, P), or inf where the role is empty."""
        found = [d.amin(1) for d in self._distances(role, p)]
        return torch.stack(found).amin(0) if found else p.new_full((), torch.inf)

    def _carved(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the body without what is cut out of it, and whether the cut makes its
        surface: (N, P) each.
        """
        found = self._distances("body", p)
        if not found:
            return p.new_full((), torch.inf), torch.tensor(False)
        each = torch.cat(found, dim=1)
        body = each.amin(1, keepdim=True)
        if each.shape[1] > 1:
            # near shapes pull the surface out to each other, by at most melt / 4 a pair
            melt = self.melt[:, None, None]
            pull = (1 - (each - body) / melt).clamp(min=0).square().sum(1, keepdim=True) - 1
            body = body - melt / 4 * pull
        cut = -self._nearest("cut", p)
        return torch.maximum(body[:, 0], cut), body[:, 0] < cut


def _distance(form, slots, p):
    count, places = slots.centre.shape[:2]
    turn = slots.turn.reshape(count, places * 3, 3)
    shift = -(slots.turn @ slots.centre[..., None]).reshape(count, places * 3, 1)
    local = torch.baddbmm(shift, turn, p).reshape(count, places, 3, -1)
    return SHAPES[form](local, slots.size.permute(2, 0, 1)[..., None])


def _choose(index, colours):
    """The colours (N, K, 3) at index (N, P): (N, P, 3)."""
    return colours.gather(1, index[..., None].expand(-1, -1, 3))

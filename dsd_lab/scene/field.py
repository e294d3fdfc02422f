"""What a scene is made of: a density and a colour at every point of the unit sphere, and where
there is anything at all.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import at_least, not_negative, positive

# density where softplus is 1: over a voxel of a 32^3 grid it stops 1 - exp(-20 / 16) = 71 % of the
# light
SCALE = 20.0
# a new field's raw density is CENTRE - FALL |x|: a soft blob, 6.3 in the middle, 0.05 at the edge
CENTRE, FALL = -1.0, 5.0


class Field(nn.Module):
    """Density and colour in space; `field(points)` gives both, for points (P, 3) in the field's own
    dtype.

        density (P,) per unit of length, at least 0, and 0 outside the unit sphere
        colour (P, 3) in (0, 1)

    A kind of field gives `raw(points)` -> (4, P), from which `scale * softplus` makes the density
    and `sigmoid` the colour. Raises ValueError unless the points are (P, 3).
    """

    scale: Tensor
    resolution: int | None = None  # of a grid; other fields have none

    def raw(self, points: Tensor) -> Tensor:
        raise NotImplementedError

    def raw_and_slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """`raw(points)` (4, P) with any positive multiple of the raw density's gradient in space,
        (3, P).
        """
        raise NotImplementedError

    def ceiling(self, resolution: int) -> Tensor:
        """The largest density in each of `resolution`^3 equal cells of [-1, 1]^3, indexed [z, y,
        x].
        """
        raise NotImplementedError

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self._activate(points, self.raw(_check(points)))

    def with_normals(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Density (P,), colour (P, 3) and the unit normal (P, 3): out of the matter, against the
        density's gradient.

            normal = -slope / |slope|

        Softplus only ever grows, so the raw density's slope has the density's direction. The normal
        is 0 where the density is level.
        """
        raw, slope = self.raw_and_slope(_check(points))
        return *self._activate(points, raw), F.normalize(-slope.T, dim=1)

    def _activate(self, points, raw):
        inside = (points.square().sum(1) <= 1).to(raw.dtype)
        return self.scale * F.softplus(raw[0]) * inside, raw[1:].sigmoid().T

    @property
    def dtype(self) -> torch.dtype:
        return self.scale.dtype

    @property
    def device(self) -> torch.device:
        return self.scale.device


class GridField(Field):
    """A dense grid of raw densities and colour logits over [-1, 1]^3, with trilinear interpolation
    between its vertices.

    `grid` is the one parameter, (1, 4, R, R, R), indexed [z, y, x]. It starts as a grey soft blob
    in the middle, after DreamFusion's density bias (arXiv 2209.14988), so that every vertex has a
    gradient. Adam's rate for raw values is 0.05 to 0.2. Raises ValueError for a resolution below 2.
    """

    def __init__(self, resolution: int = 32, scale: float = SCALE):
        super().__init__()
        at_least("resolution", resolution, 2)
        density = blob(lattice(resolution).reshape(-1, 3)).reshape(1, 1, *(resolution,) * 3)
        self.grid = nn.Parameter(
            torch.cat([density, torch.zeros_like(density).expand(-1, 3, -1, -1, -1)], dim=1)
        )
        self.register_buffer("scale", torch.tensor(positive("scale", scale)))

    @property
    def resolution(self) -> int:
        """Vertices along each side."""
        return self.grid.shape[-1]

    def raw(self, points: Tensor) -> Tensor:
        return _interpolate(self.grid, points)

    def raw_and_slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Central differences between the vertices, interpolated: unlike the slope inside a cell
        they have no jumps.
        """
        density = F.pad(self.grid[:, :1], (1,) * 6, mode="replicate")
        slope = [
            density[..., 1:-1, 1:-1, 2:] - density[..., 1:-1, 1:-1, :-2],
            density[..., 1:-1, 2:, 1:-1] - density[..., 1:-1, :-2, 1:-1],
            density[..., 2:, 1:-1, 1:-1] - density[..., :-2, 1:-1, 1:-1],
        ]
        return _interpolate(torch.cat([self.grid, *slope], dim=1), points).split([4, 3])

    @torch.no_grad()
    def ceiling(self, resolution: int) -> Tensor:
        """Exact: between vertices the raw density stays below the largest of the eight around."""
        corners = F.max_pool3d(self.grid[:, :1], 2, stride=1)
        return self.scale * F.softplus(F.adaptive_max_pool3d(corners, resolution)[0, 0])

    @torch.no_grad()
    def upsampled(self, resolution: int) -> GridField:
        """A new field of another resolution, its raw values interpolated from this one's: from
        coarse to fine.

        Its grid is a new parameter, which needs a new optimiser.
        """
        field = GridField(resolution, self.scale.item()).to(self.grid)
        field.grid.copy_(
            F.interpolate(self.grid, (resolution,) * 3, mode="trilinear", align_corners=True)
        )
        return field

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # a saved grid brings its own resolution
        saved = state_dict.get(prefix + "grid")
        if saved is not None and saved.shape != self.grid.shape:
            self.grid = nn.Parameter(self.grid.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class HashField(Field):
    """A multiresolution hash grid and a small network of two layers: fine detail in few numbers, at
    home on a GPU.

        raw(x) = blob(x) + network(features of x at every level)
        features at a level = sum over the cell's 8 corners of  weight * table[index(corner)]

    levels: grids from `coarsest` to `finest` cells a side, in equal ratios; entries: rows of a
    level's table, a power of two. A level with fewer corners than entries has a row for each; the
    others share rows by a hash of the corner: x xor 2654435761 y xor 805459861 z, modulo entries.
    seed: of the first tables and weights.
    Source: Instant-NGP, arXiv 2201.05989, section 3; the weights are trilinear.
    """

    PRIMES = (1, 2654435761, 805459861)

    def __init__(
        self,
        levels: int = 8,
        features: int = 2,
        entries: int = 2**15,
        coarsest: int = 8,
        finest: int = 128,
        hidden: int = 32,
        scale: float = SCALE,
        seed: int = 0,
    ):
        super().__init__()
        at_least("levels", levels, 2)
        if at_least("entries", entries, 2) & (entries - 1):
            raise ValueError(f"entries must be a power of two, such as 32768, got {entries!r}")
        if not at_least("coarsest", coarsest) < at_least("finest", finest):
            raise ValueError(f"needs coarsest < finest, got {coarsest} and {finest}")
        at_least("features", features)
        at_least("hidden", hidden)
        generator = torch.Generator().manual_seed(seed)
        ratio = (finest / coarsest) ** (1 / (levels - 1))
        cells = torch.tensor([int(coarsest * ratio**level + 1e-9) for level in range(levels)])
        self.register_buffer("cells", cells)
        self.register_buffer("corners", torch.cartesian_prod(*(torch.arange(2),) * 3))
        self.register_buffer("primes", torch.tensor(self.PRIMES))
        self.register_buffer("scale", torch.tensor(positive("scale", scale)))
        self.tables = nn.Parameter(
            (torch.rand(levels, entries, features, generator=generator) * 2 - 1) * 1e-4
        )
        inputs = levels * features
        self.first = nn.Parameter(
            torch.randn(inputs, hidden, generator=generator) * math.sqrt(2 / inputs)
        )
        self.last = nn.Parameter(
            torch.randn(hidden, 4, generator=generator) * math.sqrt(1 / hidden)
        )

    def raw(self, points: Tensor) -> Tensor:
        values = (self.encode(points) @ self.first).relu() @ self.last
        return torch.cat([values[:, :1] + blob(points)[:, None], values[:, 1:]], dim=1).T

    def encode(self, points: Tensor) -> Tensor:
        """The features of points (P, 3) at all levels, (P, levels * features)."""
        levels, entries, features = self.tables.shape
        cells = self.cells[:, None, None]
        place = (points.clamp(-1, 1) + 1) * (cells / 2)  # (L, P, 3), in cells
        lower = place.detach().floor().clamp(max=cells - 1)
        corner = lower.long()[:, :, None] + self.corners  # (L, P, 8, 3)
        part = (place - lower)[:, :, None]
        weight = torch.where(self.corners == 1, part, 1 - part).prod(-1)
        side = self.cells[:, None, None] + 1
        listed = corner[..., 0] + side * (corner[..., 1] + side * corner[..., 2])
        scrambled = corner * self.primes
        hashed = (scrambled[..., 0] ^ scrambled[..., 1] ^ scrambled[..., 2]) & (entries - 1)
        first = entries * torch.arange(levels, device=points.device)[:, None, None]
        row = first + torch.where(side**3 <= entries, listed, hashed)
        found = F.embedding(
            row, self.tables.flatten(0, 1)
        )  # (L, P, 8, features); its backward can be repeated to the bit
        return (
            (weight[..., None] * found)
            .sum(2)
            .transpose(0, 1)
            .reshape(len(points), levels * features)
        )

    def raw_and_slope(self, points: Tensor, step: float = 0.01) -> tuple[Tensor, Tensor]:
        """Central differences over `step`: the exact slope jumps between the cells of the finest
        level.
        """
        moves = step * torch.eye(3, dtype=points.dtype, device=points.device)[:, None]
        around = torch.cat([points + moves, points - moves]).reshape(-1, 3)
        above, below = self.raw(around)[0].reshape(2, 3, -1)
        return self.raw(points), above - below

    @torch.no_grad()
    def ceiling(self, resolution: int) -> Tensor:
        """The largest of the 27 densities at each cell's corners, centre and midpoints between:
        close, but no bound.
        """
        points = lattice(2 * resolution + 1).to(self.first).reshape(-1, 3)
        raw = torch.cat([self.raw(part)[0] for part in points.split(2**16)])
        return self.scale * F.softplus(
            F.max_pool3d(raw.reshape(1, 1, *(2 * resolution + 1,) * 3), 3, stride=2)[0, 0]
        )


class Occupancy(nn.Module):
    """Which cells of a coarse grid hold anything: what a picture can skip.

    A cell counts as occupied if its largest density, or a neighbour's, is above `threshold`; the
    one cell more leaves matter room to grow. `cells` is a bool buffer (C, C, C), indexed [z, y, x],
    all true until the first update.
    """

    def __init__(self, resolution: int = 32, threshold: float = 0.01, every: int = 16):
        super().__init__()
        at_least("resolution", resolution)
        at_least("every", every)
        not_negative("threshold", threshold, "0.01")
        self.register_buffer("cells", torch.ones((resolution,) * 3, dtype=torch.bool))
        for name, value in (("threshold", float(threshold)), ("every", every), ("steps", 0)):
            self.register_buffer(name, torch.tensor(value))

    @torch.no_grad()
    def update(self, field: Field) -> Occupancy:
        """Look at the field again now."""
        full = (field.ceiling(len(self.cells)) > self.threshold).float()
        self.cells = F.max_pool3d(full[None, None], 3, stride=1, padding=1)[0, 0] > 0
        return self

    def step(self, field: Field) -> None:
        """Count an optimisation step, and update after each `every` of them."""
        self.steps += 1
        if self.steps % self.every == 0:
            self.update(field)

    def forward(self, points: Tensor) -> Tensor:
        """Whether each of points (P, 3) in [-1, 1]^3 is in an occupied cell: bool (P,)."""
        side = len(self.cells)
        x, y, z = ((points + 1) * (side / 2)).int().clamp_(0, side - 1).unbind(-1)
        return self.cells.flatten().index_select(0, (z * side + y) * side + x)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        if (saved := state_dict.get(prefix + "cells")) is not None:
            self.cells = torch.empty_like(saved, device=self.cells.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def blob(points: Tensor) -> Tensor:
    """The raw density that a new field starts with: highest in the middle, falling evenly with the
    distance from it.
    """
    return CENTRE - FALL * points.norm(dim=-1)


def lattice(resolution: int, reach: float = 1.0) -> Tensor:
    """The vertices of a grid over [-reach, reach]^3: float32 (R, R, R, 3), indexed [z, y, x], each
    a point (x, y, z).
    """
    line = torch.linspace(-reach, reach, resolution)
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij")[::-1], dim=-1)


def _interpolate(grid: Tensor, points: Tensor) -> Tensor:
    """Trilinear interpolation of (1, C, R, R, R) at points (P, 3): (C, P)."""
    return F.grid_sample(
        grid, points.view(1, 1, 1, -1, 3), padding_mode="border", align_corners=True
    )[0, :, 0, 0]


def _check(points):
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must be (P, 3), got {tuple(points.shape)}")
    return points

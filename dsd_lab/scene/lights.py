"""Lamps: where they stand, and what they make of a colour; with random ones a scene gets a shape
that does not only look right in its own colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras import Camera
from ..checks import fraction


class Lights(NamedTuple):
    """A lamp a view, or a ray: position (V, 3), and of (V,) each the ambient share of the light
    (at 1 nothing is shaded) and whether the matter shows its colours (else it is white).
    """

    position: Tensor
    ambient: Tensor
    coloured: Tensor

    def select(self, index: Tensor) -> Lights:
        """Some of the lights, by an int64 index (M,)."""
        return Lights(*(part.index_select(0, index) for part in self))

    def to(self, device: torch.device) -> Lights:
        """The lights on another device."""
        return Lights(*(part.to(device) for part in self))


class Shading(NamedTuple):
    """How often pictures are lit by a random lamp: none until `after`, a fraction of the run; then
    a `share` of them, and of these `textureless` without their colours. ambient: of a lit one.

    The numbers are common implementations'. Source: DreamFusion (arXiv 2209.14988), section 3.2.
    """

    after: float = 0.1
    share: float = 0.75
    textureless: float = 0.5
    ambient: float = 0.1

    def check(self) -> Shading:
        """Itself. Raises ValueError unless each is a fraction."""
        for name, value in zip(self._fields, self, strict=True):
            fraction(f"{name} of the shading", value)
        return self

    def lights(self, cameras: Sequence[Camera], generator: torch.Generator) -> Lights:
        """A lamp for each camera, around it: at U[0.8, 1.5) from the middle, in the direction of
        position + N(0, I).
        """
        views = len(cameras)
        position = torch.stack([camera.position for camera in cameras]).float()
        around = F.normalize(position + torch.randn(views, 3, generator=generator), dim=1)
        distance, lit, plain = torch.rand(3, views, generator=generator)
        lit = lit < self.share
        return Lights(
            around * (0.8 + 0.7 * distance)[:, None],
            torch.where(lit, self.ambient, 1.0),
            ~(lit & (plain < self.textureless)),
        )


def shade(colour: Tensor, normal: Tensor, points: Tensor, lights: Lights) -> Tensor:
    """Colours (3, N, S) under a lamp a ray, at points (N, S, 3) with normals (3, N, S).

        colour (ambient + (1 - ambient) max(0, normal . l)),   l the unit vector to the lamp

    By hand: a lamp straight above a surface leaves the colour as it is; at 60 degrees, with ambient
    0.1, 0.1 + 0.9 / 2 = 0.55 of it. Source: DreamFusion (arXiv 2209.14988), eq. 8.
    """
    to_lamp = F.normalize(lights.position[:, None] - points, dim=-1).permute(2, 0, 1)
    ambient = lights.ambient[:, None]
    seen = torch.where(lights.coloured[:, None], colour, torch.ones_like(colour))
    return seen * (ambient + (1 - ambient) * (normal * to_lamp).sum(0).clamp(min=0))

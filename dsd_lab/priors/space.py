"""The space that an exact prior of pictures lives in, and the way from pictures and back."""

import torch
from torch import Tensor

from ..checks import batch_of
from ..worlds import World
from .device import Casts


def picture_scale(size: int) -> float:
    """The factor between pixels in [-1, 1] and an exact picture prior's space: 0.15 at 64 px.

    Distances between pictures grow with their side, the schedule's noise does not: raw 64-px
    pictures stand so far apart that the path has chosen between them before it begins to see them,
    and DDIM samples them unevenly. This is the counterpart of Stable Diffusion's 0.18215; a
    chi-square test of evenness fixes it.
    """
    return 9.6 / size


class PictureSpace:
    """x = scale (2 image - 1 - mean picture), shape (3, H, W).

    scale: positive; `picture_scale` of the width unless given. mean_picture: (3, H, W) in [-1, 1].
    """

    def __init__(self, mean_picture: Tensor, scale: float | None = None):
        self.scale = picture_scale(mean_picture.shape[-1]) if scale is None else float(scale)
        if not self.scale > 0:
            raise ValueError(f"scale must be positive (0.15 is the default at 64 px), got {scale}")
        self.mean_picture, self.shape = mean_picture.double(), tuple(mean_picture.shape)
        self._casts = Casts(self.mean_picture)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to x, differentiably. Raises ValueError for another
        shape.
        """
        batch_of(self.shape, "images in [0, 1]", images)
        return self.of_pixels(2 * images - 1)

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to x."""
        return self.scale * (pixels - self._casts.like(pixels)[0])

    def decode(self, x: Tensor) -> Tensor:
        """From x to pictures (B, 3, H, W), clamped to [0, 1]."""
        return ((x / self.scale + self._casts.like(x)[0] + 1) / 2).clamp(0, 1)

    def blurred(self, x: Tensor, radius: float = 3.0) -> Tensor:
        """x of pictures (B, D), of their blur by a Gaussian of `radius` pixels, whose weights at
        the borders add up to 1 too: float64 (B, D), on the CPU.
        """
        far = [torch.arange(side)[:, None] - torch.arange(side) for side in self.shape[1:]]
        down, across = (torch.softmax(-(d.double() ** 2) / (2 * radius**2), dim=1) for d in far)
        offset = self.scale * self.mean_picture
        pictures = x.reshape(-1, *self.shape) + offset
        return (down @ pictures @ across.T - offset).flatten(1)


class InPictureSpace:
    """What priors share that live in a `PictureSpace`, their `space`, of pictures of a world."""

    space: PictureSpace
    world: World

    @property
    def scale(self) -> float:
        return self.space.scale

    @property
    def mean_picture(self) -> Tensor:
        return self.space.mean_picture

    @property
    def unit(self) -> float:
        return 2 * self.scale

    def resolve(self, prompt: str) -> str:
        return self.world.resolve(prompt)

    def identity(self) -> dict[str, object]:
        return {**super().identity(), "scale": self.scale}

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the prior's space, differentiably. Raises ValueError
        for another shape.
        """
        return self.space.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        """From the prior's space to pictures (B, 3, H, W), clamped to [0, 1]."""
        return self.space.decode(x)

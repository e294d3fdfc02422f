"""Distances between pictures, and what is measured of each sample of a prompt.

All distances between pictures are RMSE per channel with pictures in [0, 1], from any device; what
is measured is on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..shapes import Batch, Images, Table

RADIUS = 0.1  # a mode counts as reached by pictures at most this far from it
WHITE = 250 / 255  # a pixel with all channels above it is background


def exact(images: Tensor) -> Tensor:
    """Pictures (B, ...) as rows of numbers, in float64 on the CPU: there are devices without it."""
    return images.detach().cpu().flatten(1).double()


def distances(images: Float[Tensor, first * shape], others: Float[Tensor, second * shape]) -> Table:
    """RMSE per channel between every pair: images (B, ...), others (N, ...) -> float64 (B, N)."""
    a, b = exact(images), exact(others)
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / math.sqrt(a.shape[1])


def apart(images: Batch, reference: Batch) -> Float[Tensor, batch]:
    """RMSE between the pictures of two equally long batches, one by one: float64 (B,)."""
    return (exact(images) - exact(reference)).square().mean(1).sqrt()


def mean_pairwise(matrix: Tensor) -> float:
    """Mean of the off-diagonal entries of a symmetric distance matrix (n, n)."""
    n = len(matrix)
    return float(matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


def modes_even(samples: int, pictures: int) -> float:
    """The mean number of distinct pictures in `samples` even draws from `pictures`: K (1 - (1 -
    1/K)^n).
    """
    return pictures * (1 - (1 - 1 / pictures) ** samples)


def effective_modes(mode: Tensor) -> float:
    """exp(entropy) of how often each mode occurs; mode: int64 (n,)."""
    p = torch.unique(mode, return_counts=True)[1].double() / len(mode)
    return float(torch.exp(-(p * p.log()).sum()))


def distinct(mode: Tensor) -> int:
    """How many different modes there are; -1 is none. mode: int64 (n,)."""
    return len(mode[mode >= 0].unique())


def saturation(images: Images) -> float:
    """Mean HSV saturation, (max - min) / max over the channels, of the pixels that are not white;
    images (B, 3, H, W).
    """
    images = images.cpu()
    high, low, coloured = images.amax(1), images.amin(1), images.amin(1) < WHITE
    values = ((high - low) / high.clamp(min=1e-6))[coloured]
    return float(values.double().mean()) if len(values) else 0.0


def clipped(images: Images) -> float:
    """Share of channel values at 0 or 1 among the pixels that are not white: what a decoder has cut
    off; images (B, 3, H, W).

    Drawings have pure black and pure colours of their own, so compare it with the data's.
    """
    images = images.cpu()
    coloured = (images.amin(1, keepdim=True) < WHITE).expand_as(images)
    values = ((images <= 0) | (images >= 1))[coloured]
    return float(values.double().mean()) if len(values) else 0.0


def check_pictures(shape: tuple[int, ...], **batches: Tensor | None) -> None:
    """Raises ValueError unless each batch is (B, *shape) in [0, 1], and all are equally long."""
    given = {name: batch for name, batch in batches.items() if batch is not None}
    for name, batch in given.items():
        if batch.ndim != 4 or tuple(batch.shape[1:]) != shape or not len(batch):
            want = f"(B, {', '.join(map(str, shape))}) with B >= 1"
            raise ValueError(f"{name} must be {want}, got {tuple(batch.shape)}")
        if not bool(((batch >= 0) & (batch <= 1)).all()):
            low, high = float(batch.min()), float(batch.max())
            raise ValueError(
                f"{name} must lie in [0, 1], got {low:.3f} to {high:.3f}; decode them first"
            )
    if len({len(batch) for batch in given.values()}) > 1:
        images, reference = map(len, given.values())
        raise ValueError(
            f"{images} images but {reference} references; give one a seed, in the same order"
        )


@dataclass(frozen=True, eq=False)
class Samples:
    """What is measured of n samples of one prompt, seed by seed.

    between: RMSE between samples (n, n). nearest, distance: the nearest of the prompt's pictures, a
    position among them, and how far it is, (n,). agreement: RMSE to the reference's result of the
    same seed; same_mode: whether its nearest picture is the same, (n,). pictures: how many the
    prompt has. radius: within which one is reached. named: whether a judge takes it for its prompt,
    (n,). None where pictures, reference or judge are unknown.
    """

    between: Tensor
    nearest: Tensor | None = None
    distance: Tensor | None = None
    agreement: Tensor | None = None
    same_mode: Tensor | None = None
    pictures: int | None = None
    radius: float = RADIUS
    named: Tensor | None = None

    @classmethod
    def of(
        cls,
        images: Tensor,
        pictures: Tensor | None = None,
        reference: Tensor | None = None,
        radius: float = RADIUS,
    ) -> Samples:
        """Measure images (n, 3, H, W) against a prompt's pictures (N, 3, H, W) and a reference (n,
        3, H, W), all in [0, 1]. Raises ValueError for shapes or values that do not fit.
        """
        shape = tuple((images if pictures is None else pictures).shape[1:])
        check_pictures(shape, images=images, reference=reference)
        agreement = None if reference is None else apart(images, reference)
        between = distances(images, images)
        if pictures is None:
            return cls(between, agreement=agreement)
        distance, nearest = distances(images, pictures).min(1)
        same = None
        if reference is not None:
            same = nearest == distances(reference, pictures).argmin(1)
        return cls(between, nearest, distance, agreement, same, len(pictures), radius)

    def __len__(self) -> int:
        return len(self.between)

    @property
    def pairs(self) -> int | None:
        """How many pairs there are; None for a single sample, which has no other."""
        return len(self) * (len(self) - 1) // 2 or None

    @property
    def mode(self) -> Tensor:
        """The picture that each sample reaches, -1 for none: int64 (n,)."""
        return self.nearest.where(self.distance <= self.radius, -1)

    @property
    def outside(self) -> Tensor:
        """Whether a sample reaches no picture: bool (n,)."""
        return self.distance > self.radius

"""A scene from pictures with known cameras: NeRF's loss on a dense grid, without view dependence,
as in DVGO (arXiv 2111.11215) and Plenoxels (arXiv 2112.05131).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..cameras import Camera, check_cameras
from ..threads import one_thread
from .field import GridField
from .render import march, sight
from .scene import Scene

RESOLUTIONS = (32, 64)  # coarse to fine
BATCH = 4096  # rays a step
SAMPLES = 48
LEARNING_RATE = 0.1
SMOOTHNESS = 1e-3
EMPTINESS = 1e-3  # before a white background nothing else tells white fog from nothing


def fit_views(
    images: Tensor,
    cameras: Sequence[Camera],
    steps: int = 300,
    seed: int = 0,
    progress: Callable[[int, float, Scene], None] | None = None,
    **settings,
) -> Scene:
    """A grid scene whose pictures from `cameras` are `images`.

    progress: called with the step, its loss and the scene after each step. All else: see `fitting`.
    """
    scene, losses = fitting(images, cameras, steps, seed, **settings)
    for step, loss in enumerate(losses):
        if progress:
            progress(step, loss, scene)
    return scene


def fitting(
    images: Tensor,
    cameras: Sequence[Camera],
    steps: int = 300,
    seed: int = 0,
    *,
    resolutions: Sequence[int] = RESOLUTIONS,
    batch: int = BATCH,
    samples: int = SAMPLES,
    lr: float = LEARNING_RATE,
    smoothness: float = SMOOTHNESS,
    emptiness: float = EMPTINESS,
    background: float | Tensor = 1.0,
) -> tuple[Scene, Iterator[float]]:
    """A grid scene, and the losses of its fit to pictures: to take the next one is to take a step.
    By Adam on random rays, from coarse to fine.

        loss = mean over rays of (rgb - picture)^2
               +  smoothness * roughness(grid)  +  emptiness * mean opacity

    images: (V, 3, H, H) in [0, 1] on `background`, one a camera; the scene is on their device. The
    steps are shared evenly between `resolutions`. seed: of rays and of the samples along them.
    Raises ValueError for images that are not square or not one a camera, and for steps, sizes or a
    rate that cannot be.
    """
    cameras = check_cameras(cameras)
    _check(images, cameras, steps, resolutions, batch, lr)
    generator = torch.Generator().manual_seed(seed)
    scene = Scene(GridField(resolutions[0]), background=background).to(images.device)
    lines = sight(cameras, images.shape[-1], device=images.device)
    colours = images.float().permute(0, 2, 3, 1).reshape(-1, 3).index_select(0, lines.pixel)

    def loss_at(some: Tensor) -> Tensor:
        some_lines = lines.select(some)
        seen = march(scene.field, some_lines, samples, generator, scene.occupancy, background)
        return (
            (seen.rgb - colours.index_select(0, some)).square().mean()
            + emptiness * seen.opacity.mean()
            + smoothness * roughness(scene.field.grid)
        )

    def losses() -> Iterator[float]:
        ends = [steps * k // len(resolutions) for k in range(len(resolutions) + 1)]
        for resolution, begin, end in zip(resolutions, ends, ends[1:], strict=False):
            if resolution != scene.field.resolution:
                scene.upsample(resolution)
            grid = scene.field.parameters()
            optimizer = torch.optim.Adam(grid, lr=lr, betas=(0.9, 0.99), eps=1e-15, foreach=False)
            for _ in range(begin, end):
                some = torch.randint(len(colours), (batch,), generator=generator).to(images.device)
                with one_thread():
                    loss = loss_at(some)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    scene.step()
                yield loss.item()
        scene.occupancy.update(scene.field)

    return scene, losses()


def _check(images, cameras, steps, resolutions, batch, lr):
    """Raises ValueError for what `fitting` cannot do."""
    shape, views = tuple(images.shape), len(cameras)
    if len(shape) != 4 or shape[:2] != (views, 3) or shape[2] != shape[3]:
        raise ValueError(f"images must be ({views}, 3, size, size), one a camera, got {shape}")
    if not resolutions or batch < 1 or not 0 < lr < math.inf:
        raise ValueError(
            "needs at least one resolution, one ray a step and a rate above 0, "
            f"got {tuple(resolutions)}, {batch} and {lr}"
        )
    if steps < (least := len(resolutions)):
        raise ValueError(f"steps must be at least {least}, one a resolution, got {steps}")


def roughness(grid: Tensor) -> Tensor:
    """The mean size of the differences between neighbouring vertices of (1, 4, R, R, R), over the
    three axes: a scalar.
    """
    return sum(grid.diff(dim=axis).abs().mean() for axis in (2, 3, 4)) / 3


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Likeness of pictures (V, 3, H, W) in [0, 1], each pair's in decibels, (V,).

    -10 log10(mean squared difference);   a difference of 0.1 everywhere gives 20
    """
    return -10 * (images - others).square().flatten(1).mean(1).log10()

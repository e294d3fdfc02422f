"""Fidelity and diversity of objects in 3-D, judged from cameras that no optimisation has used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .cameras import HELD_OUT, Camera
from .metrics import RADIUS, Estimate, bootstrap, distances, jackknife, mean_pairwise
from .scene import Scene
from .worlds import ToyboxWorld, render


@dataclass(frozen=True)
class ObjectReport:
    """What some scenes of one prompt reach. Distances are RMSE per channel over all held-out views together.

    scenes, objects: how many were made, and how many the prompt has. nearest: each scene's nearest object, a position among
    the prompt's. distances: how far each scene is from it; distance: their mean. distinct: different nearest objects;
    reached: different nearest objects within `RADIUS`. pairwise: between scenes. psnr: of each scene against its nearest
    object, the mean, in decibels.
    """

    scenes: int
    objects: int
    nearest: tuple[int, ...]
    distances: tuple[float, ...]
    distance: Estimate
    distinct: int
    reached: int
    pairwise: Estimate | None
    psnr: float


@lru_cache(maxsize=16)
def true_views(world: ToyboxWorld, prompt: str, cameras: tuple[Camera, ...] = HELD_OUT, size: int = 64) -> Tensor:
    """The prompt's objects as they are, from any cameras: (n, V, 3, size, size) in [0, 1]."""
    return render(world.toys.subset(world.index(prompt)), cameras, size).rgb


def judge(scenes: Sequence[Scene], world: ToyboxWorld, prompt: str, cameras: Sequence[Camera] = HELD_OUT,
          size: int = 64) -> ObjectReport:
    """Compare scenes of one prompt with the prompt's objects and with each other, from held-out cameras."""
    return judge_views(torch.stack([scene.images(cameras, size) for scene in scenes]), world, prompt, cameras)


def judge_views(views: Tensor, world: ToyboxWorld, prompt: str, cameras: Sequence[Camera] = HELD_OUT) -> ObjectReport:
    """`judge` for pictures already made, (B, V, 3, H, W) in [0, 1], one a camera. Raises ValueError for another number."""
    if views.ndim != 5 or views.shape[1] != len(cameras):
        raise ValueError(f"views must be (B, {len(cameras)}, 3, H, W), one a camera, got {tuple(views.shape)}")
    objects, n = true_views(world, prompt, tuple(cameras), views.shape[-1]), len(views)
    distance, nearest = distances(views, objects).min(1)
    between = distances(views, views)
    return ObjectReport(
        scenes=n, objects=len(objects), nearest=tuple(nearest.tolist()), distances=tuple(distance.tolist()),
        distance=bootstrap(distance), distinct=len(nearest.unique()), reached=len(nearest[distance <= RADIUS].unique()),
        pairwise=jackknife(lambda i: mean_pairwise(between[i][:, i]), n) if n > 2 else None,
        psnr=float(-20 * distance.clamp(min=1e-6).log10().mean()))


def seen_as(scene: Scene, world: ToyboxWorld, prompt: str, views: int = 8, elevation: float = 20.0, size: int = 64) -> Tensor:
    """From which azimuth each of a ring of views of the scene looks: degrees, (views,), in the nearest object's own pictures.

    View i is taken from azimuth 360 i / views. An object with one face says 0, 45, 90, ...; one with a face on every side
    (Janus) says 0 again and again.
    """
    from .cameras import orbit

    ring = orbit(views, elevation)
    made, objects = scene.images(ring, size), true_views(world, prompt, ring, size)
    between = distances(made, objects.flatten(0, 1)).reshape(views, len(objects), views)
    own = between.amin(2).sum(0).argmin()  # the object that the views show best, whichever side each of them shows
    return between[:, own].argmin(1) * (360 / views)


def janus(scene: Scene, world: ToyboxWorld, prompt: str, views: int = 8, elevation: float = 20.0, size: int = 64) -> float:
    """Share of a ring of views that look like another side of the object: their azimuth is off by more than 60 degrees."""
    told = seen_as(scene, world, prompt, views, elevation, size)
    off = (told - torch.arange(views) * (360 / views)).remainder(360)
    return float((torch.minimum(off, 360 - off) > 60).double().mean())

"""The settings of a run on a scene, checked: its stages, coarse to fine, and everything else."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple
from zlib import crc32

import torch

from ..cameras import BANK, Camera, nearest, orbit
from ..checks import at_least, positive
from ..draws import generator_of
from ..priors import Prior
from ..scene.regularisers import Ramp


class Stage(NamedTuple):
    """A part of the run, coarse to fine: pictures of `size` pixels, a grid of `resolution`, share
    of the steps, views a step.

    ring: optimise only so many cameras of the bank, evenly around from the given picture's, or from
    the front; 0 is all.
    """

    size: int
    resolution: int
    share: float
    views: int
    ring: int = 0


STAGES = (Stage(32, 32, 0.75, 4), Stage(64, 64, 0.25, 2))
FAITHFUL = {"rgb": 1.0, "mask": 0.1}  # ten to one, as Zero-1-to-3's own distillation has it


def fit_stages(stages: Sequence[Stage], prior: Prior) -> tuple[Stage, ...]:
    """The stages with pictures that the prior can be asked about: no larger, and of its sizes."""
    return tuple(stage._replace(size=prior.fitting_size(stage.size)) for stage in stages)


def cameras_for(prior: Prior, seed: int) -> tuple[Camera, ...]:
    """The cameras that an object is optimised from, unless others are given: the prior's own bank,
    else `BANK`; for a prior of sets of views, two sets at each of its elevations, each turned by a
    random angle.
    """
    if prior.cameras not in (None, "any"):
        return prior.cameras
    if prior.views_per_item == 1:
        return BANK
    elevations = sorted({camera.elevation for camera in BANK}) * 2
    turns = 360 * torch.rand(len(elevations), generator=generator_of(seed, "cameras"))
    sets = zip(elevations, turns.tolist(), strict=True)
    rings = (orbit(prior.views_per_item, elevation, start=turn) for elevation, turn in sets)
    return tuple(itertools.chain.from_iterable(rings))


@dataclass(frozen=True)
class SceneSettings:
    """How a scene is optimised; a checkpoint's header holds it.

    seed: of e* and all draws. steps: of the optimiser. refresh: steps for which a target is held.
    lr: of Adam. regularisers: weights by name. faithful: weights "rgb" and "mask" of the given
    picture, none without one. cameras: the views to optimise.
    Raises TypeError or ValueError for what cannot be.
    """

    seed: int
    steps: int
    refresh: int
    stages: tuple[Stage, ...]
    lr: float
    regularisers: Mapping[str, float | Ramp]
    faithful: Mapping[str, float]
    cameras: tuple[Camera, ...]

    def __post_init__(self):
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an int, one object a run, got {self.seed!r}")
        at_least("steps", self.steps)
        at_least("refresh", self.refresh)
        positive("lr", self.lr)
        check_stages(self.stages)
        for name, weight in self.faithful.items():
            if name not in FAITHFUL or not 0 <= weight < math.inf:
                raise ValueError(
                    f"faithful holds weights of at least 0 for {', '.join(FAITHFUL)}, "
                    f"got {name}: {weight!r}"
                )

    def stage_at(self, step: int) -> int:
        """The number of the stage that a step belongs to."""
        shares = itertools.accumulate(stage.share for stage in self.stages)
        ends = [round(share * self.steps) for share in shares]
        return next((k for k, end in enumerate(ends) if step < end), len(ends) - 1)

    def cameras_of(self, stage: Stage, around: Camera) -> tuple[Camera, ...]:
        """All cameras, or a ring's: so many, evenly around from the camera `around`."""
        if not stage.ring:
            return self.cameras
        ring = orbit(stage.ring, around.elevation, around.distance, around.fov, around.azimuth)
        return tuple(dict.fromkeys(self.cameras[nearest(one, self.cameras)] for one in ring))

    def header(self) -> dict[str, object]:
        """The settings as JSON can hold them; the cameras as a count and a digest."""
        digest = crc32(repr(self.cameras).encode())
        return asdict(self) | {"cameras": f"{len(self.cameras)} (digest {digest:08x})"}


def check_stages(stages: Sequence[Stage]) -> None:
    """Raises ValueError unless there are stages, and each is possible."""
    if not stages:
        raise ValueError(
            "stages is empty; give at least one, such as "
            "Stage(size=32, resolution=32, share=1.0, views=4)"
        )
    for stage in stages:
        for name in ("size", "resolution", "views"):
            at_least(f"{name} of a stage", getattr(stage, name))
        at_least("ring of a stage", stage.ring, 0)
        if not 0 < stage.share <= 1:
            raise ValueError(f"share of a stage is a fraction of the steps in (0, 1], got {stage}")

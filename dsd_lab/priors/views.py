"""The exact prior of a finite set of objects, each seen from a fixed bank of cameras."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..cameras import Camera
from ..schedule import NoiseSchedule
from ..worlds.toybox.world import ToyboxWorld, resized
from .base import Count, Query
from .components import Components
from .exact import ExactPrior
from .space import InPictureSpace, PictureSpace, picture_scale


class ViewSet(InPictureSpace, ExactPrior):
    """The exact prior of a world of objects: x = scale (2 image - 1 - mean picture), shape (3, H,
    W), from a bank's cameras.

    Its condition names the camera of each item; any other camera than the bank's is a ValueError.
    The same seed's e* serves all views of an object: which object each view's own path ends at is
    that view's affair, and they need not agree.
    joint: the views of one object are denoised together, as in a multi-view diffusion model, so
    that they agree:

        p(object | all views) ~ prod over views v of  N( x_t^v; alpha_t y_v, sigma_t^2 I )

    Views belong to one object that are asked for in one call, each camera once; where a camera
    comes again, it is the next object's. The term "degraded" stays each view's own.
    scale: as for `ImageSet`. V joint views are one large picture, whose distances have grown by
    sqrt(V), so it is divided by that. count: where evaluations are counted, if not on its own.
    """

    preferred_batch = 24

    def __init__(
        self,
        world: ToyboxWorld,
        scale: float | None = None,
        schedule: NoiseSchedule | None = None,
        joint: bool = False,
        count: Count | None = None,
    ):
        self.world, self.prompts, self.cameras = world, world.prompts, world.cameras
        self.name = world.name + "-joint" * joint
        self.joint = self.all_at_once = joint
        self.views_per_item = len(world.cameras) if joint else 1
        if scale is None:
            scale = picture_scale(world.views.shape[-1]) / math.sqrt(self.views_per_item)
        mean_picture = world.views.flatten(0, 1).float().mean(0) / 127.5 - 1
        self.space = PictureSpace(mean_picture, scale)
        super().__init__(self.space.shape, schedule, count)
        self._views: dict[Camera, Components] = {}
        self._members: dict[str, Tensor] = {}
        self._sizes: dict[int, ViewSet] = {}

    def view(self, camera: Camera) -> Components:
        """What one camera of the bank shows of every object; made at its first use and kept."""
        if camera not in self._views:
            pixels = self.world.views[:, self.cameras.index(camera)].float() / 127.5 - 1
            means = self.space.of_pixels(pixels).flatten(1)
            self._views[camera] = Components(
                means, worse=lambda: Components(self.space.blurred(means).float())
            )
        return self._views[camera]

    def fitting_size(self, size: int) -> int:
        side = self.shape[-1]
        return max(s for s in range(1, side + 1) if side % s == 0 and s <= max(size, 1))

    def at_size(self, size: int) -> ViewSet:
        """The same objects in smaller pictures, and a scale that goes with them; for coarse to
        fine. Made once and kept.
        """
        side = self.shape[-1]
        if size == side:
            return self
        if size not in self._sizes:
            world, scale = resized(self.world, size), self.scale * side / size
            self._sizes[size] = self._like(world, scale)
        return self._sizes[size].to(self.device)

    def _like(self, world: ToyboxWorld, scale: float) -> ViewSet:
        """The same prior of a world with other pictures, which counts on this one."""
        return ViewSet(world, scale, self.schedule, self.joint, self.count)

    def _leaves(self, subject):
        # an object may be under several prompts: "a chair", "a red chair"
        if subject not in self._members:
            left = torch.full((len(self.world),), -torch.inf)
            left[self.world.index(subject)] = 0.0
            self._members[subject] = left
        return self._members[subject]

    def _shares(self, queries, x, t):
        cameras = [camera for query in queries for camera in query.cond.camera]
        joint = torch.cat([self._joint_logits(query) for query in queries]) if self.joint else None
        for camera in dict.fromkeys(cameras):
            items = [i for i, other in enumerate(cameras) if other == camera]
            view = self.view(camera)
            own = view.logits(x[items], t[items], self.schedule) if joint is None else joint[items]
            yield view, items, own

    def _joint_logits(self, query: Query) -> Tensor:
        """The logits of a joint prior: each item's are the sum over the views of its object: (B,
        N).
        """
        x, cameras = query.x.flatten(1), query.cond.camera
        logits, number = x.new_empty(len(x), len(self.world)), [0] * len(cameras)
        for camera in dict.fromkeys(cameras):
            items = [i for i, other in enumerate(cameras) if other == camera]
            logits[items] = self.view(camera).logits(x[items], query.t[items], self.schedule)
            for count, i in enumerate(items):
                number[i] = count
        objects = torch.tensor(number, device=x.device)
        sums = logits.new_zeros(max(number) + 1, logits.shape[1]).index_add(0, objects, logits)
        return sums[objects]

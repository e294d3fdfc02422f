"""The exact prior of a finite set of objects, each seen from a fixed bank of cameras."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..cameras import Camera
from ..schedule import NoiseSchedule
from ..worlds.toybox.world import ToyboxWorld, resized
from .base import Condition, Prior, Query
from .exact import ExactPrior, ImageSet, picture_scale


class OneView(ImageSet):
    """What one camera of the bank shows: the exact prior of all objects' pictures from there.

    given: what a condition leaves of each object's weight, which is the same for all cameras;
    `ViewSet` knows.
    """

    def __init__(
        self,
        world: ToyboxWorld,
        camera: int,
        scale: float,
        mean_picture: Tensor,
        schedule: NoiseSchedule,
        given: Callable[[Condition, str], Tensor],
    ):
        self._given = given
        self.world, self.name, self.scale, self.mean_picture = (
            world,
            world.name,
            scale,
            mean_picture.double(),
        )
        means = scale * (world.views[:, camera].float() / 127.5 - 1 - mean_picture).flatten(1)
        even = torch.full((len(means),), -math.log(len(means)))
        ExactPrior.__init__(
            self,
            means,
            torch.tensor(0.0),
            even,
            world.kind_label,
            world.prompts,
            tuple(mean_picture.shape),
            schedule,
        )

    @cached_property
    def degraded(self) -> ExactPrior:
        worse = super().degraded
        return worse._with(worse.means.float(), worse.width)


class ViewSet(Prior):
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
    sqrt(V), so it is divided by that.
    """

    preferred_batch = 24

    def __init__(
        self,
        world: ToyboxWorld,
        scale: float | None = None,
        schedule: NoiseSchedule | None = None,
        joint: bool = False,
    ):
        shape = tuple(world.views.shape[2:])
        base = schedule or NoiseSchedule.stable_diffusion()
        super().__init__(shape, NoiseSchedule(base.alphas_cumprod, "sample"))
        self.world, self.name, self.prompts, self.cameras = (
            world,
            world.name,
            world.prompts,
            world.cameras,
        )
        self.views_per_item = len(world.cameras) if joint else 1
        self.scale = float(
            picture_scale(shape[-1]) / math.sqrt(self.views_per_item) if scale is None else scale
        )
        if joint:
            self.name = f"{world.name}-joint"
        self.mean_picture = world.views.flatten(0, 1).float().mean(0) / 127.5 - 1
        self._views: dict[Camera, OneView] = {}
        self._leaves: dict[str, Tensor] = {}
        self._sizes: dict[int, ViewSet] = {}

    def view(self, camera: Camera) -> OneView:
        """The exact prior of what one camera of the bank shows; made at its first use and kept."""
        if camera not in self._views:
            number = self.cameras.index(camera)
            self._views[camera] = OneView(
                self.world, number, self.scale, self.mean_picture, self.schedule, self._given
            )
        return self._views[camera]

    @property
    def unit(self) -> float:
        return 2 * self.scale

    def identity(self):
        return {**super().identity(), "scale": self.scale}

    def fitting_size(self, size: int) -> int:
        now = self.shape[-1]
        return max(side for side in range(1, now + 1) if now % side == 0 and side <= max(size, 1))

    def at_size(self, size: int) -> ViewSet:
        """The same objects in smaller pictures, and a scale that goes with them; for coarse to
        fine. Made once and kept.
        """
        now = self.shape[-1]
        if size == now:
            return self
        if size not in self._sizes:
            smaller = type(self)(
                resized(self.world, size),
                self.scale * now / size,
                self.schedule,
                joint=self.views_per_item > 1,
            )
            smaller._count = self._count  # evaluations count where the user looks
            self._sizes[size] = smaller
        return self._sizes[size]

    def _given(self, cond: Condition, term: str) -> Tensor:
        """As in `ExactPrior`; an object may be under several prompts ("a chair", "a red chair"), so
        each is a set of objects.
        """
        prompts = {"cond": cond.prompt, "negative": cond.negative}[term]
        for prompt in set(prompts) - set(self._leaves):
            self._leaves[prompt] = torch.full((len(self.world),), -torch.inf)
            self._leaves[prompt][self.world.index(prompt)] = 0.0
        return torch.stack(
            [
                self._leaves[prompt]
                for prompt in (prompts[:1] if len(set(prompts)) == 1 else prompts)
            ]
        )

    @cached_property
    def _any_view(self) -> OneView:
        return self.view(self.cameras[0])

    def resolve(self, prompt: str) -> str:
        return self.world.resolve(prompt)

    def members(self, prompt: str) -> Tensor:
        """Which objects a prompt describes: int64 positions (n,)."""
        return self.world.index(prompt)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the prior's space, differentiably. Raises ValueError
        for another shape.
        """
        return self._any_view.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        """From the prior's space to pictures (B, 3, H, W), clamped to [0, 1]."""
        return self._any_view.decode(x)

    def _outputs(self, queries: Sequence[Query]) -> list[dict[str, Tensor]]:
        # each camera has its own pictures: the items are sorted by camera, answered camera by
        # camera, and put back
        outputs = [{term: torch.empty_like(query.x) for term in query.terms} for query in queries]
        seen_from = [query.cond.camera * (len(query.x) // len(query.cond)) for query in queries]
        logits = (
            [self._together(*asked) for asked in zip(queries, seen_from, strict=True)]
            if self.views_per_item > 1
            else None
        )
        for camera in dict.fromkeys(camera for cameras in seen_from for camera in cameras):
            parts, places, known = [], [], []
            for k, (query, cameras, output) in enumerate(
                zip(queries, seen_from, outputs, strict=True)
            ):
                if items := [i for i, other in enumerate(cameras) if other == camera]:
                    parts.append(
                        Query(query.x[items], query.t[items], query.cond.select(items), query.terms)
                    )
                    places.append((output, items))
                    known += [logits[k][items]] if logits else []
            answers = self.view(camera)._outputs(parts, torch.cat(known) if logits else None)
            for (output, items), answer in zip(places, answers, strict=True):
                for term, part in answer.items():
                    output[term][items] = part
        return outputs

    def _together(self, query: Query, cameras: Sequence[Camera]) -> Tensor:
        """The logits of a joint prior: each item's are the sum over the views of its object: (B,
        N).
        """
        own, number = query.x.new_empty(len(query.x), len(self.world)), [0] * len(cameras)
        for camera in dict.fromkeys(cameras):
            items = [i for i, other in enumerate(cameras) if other == camera]
            own[items] = self.view(camera)._logits(query.x[items].flatten(1), query.t[items])
            for count, i in enumerate(items):
                number[i] = count
        of = torch.tensor(number)
        return own.new_zeros(max(number) + 1, own.shape[1]).index_add(0, of, own)[of]

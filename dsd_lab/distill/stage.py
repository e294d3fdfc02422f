"""A stage of a run on a scene, under way: it looks at the scene, asks the method, holds targets."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras import Camera, CameraRanges
from ..draws import ViewDraws
from ..methods import Method, State
from ..priors import Condition, Memory, Prior
from ..scene import Lights, Scene, Shading
from ..scene.render import Rendering
from .loop import check_finite
from .settings import Stage
from .targets import Targets


@dataclass
class StageRun:
    """What belongs to one size of pictures and one set of cameras.

    prior: at the stage's size. begin: makes the method's state, an entry a camera, as targets have.
    generator: of the run. refresh: steps for which a target is held. t: at which the method was
    last asked, (V,). asked_from: the prior's condition for cameras. ranges: what cameras are drawn
    from each time that the method is asked; None where they stay. memory: what to do to fit into
    it, None for nothing.
    """

    number: int
    plan: Stage
    scene: Scene
    prior: Prior
    cameras: tuple[Camera, ...]
    method: Method
    begin: Callable[[], State]
    targets: Targets
    generator: torch.Generator
    refresh: int
    optimizer: torch.optim.Adam
    t: Tensor
    asked_from: Callable[[tuple[Camera, ...]], Condition]
    ranges: CameraRanges | None = None
    shading: Shading | None = None
    memory: Memory | None = None

    @cached_property
    def state(self) -> State:
        """The method's, begun in the first step and not before: it may follow a path for each view
        then, which takes a moment.
        """
        return self.begin()

    @property
    def size(self) -> int:
        """Pixels a side of its pictures: the plan's, or what memory allows."""
        return min(self.plan.size, self.memory.size) if self.memory else self.plan.size

    @property
    def whole(self) -> float:
        """One whole squared difference a pixel, black against white, summed over a picture's x."""
        return math.prod(self.prior.shape) * self.prior.unit**2

    def fit(self, step: int, normals: bool) -> tuple[Tensor, Tensor, Rendering]:
        """The views that a step fits to their targets, int64 (V,), x (V, *shape) and the rendering,
        with gradients; where new targets are due, the method is asked first.
        """
        if self.refresh == 1:  # then the views that the method is asked about are those to fit
            views = self._turn(self.plan.views)
            x, rendering = self.encode_views(views, True, normals, self._lights(step))
            self.ask(views, x.detach(), step)
            return views, x, rendering
        if step % self.refresh == 0 or not self.targets.held.any():
            views = self._turn(2 * self.plan.views)
            self.ask(views, self.encode_views(views)[0], step // self.refresh)
        views = self.targets.pick(self.plan.views, self.generator)
        return views, *self.encode_views(views, True, normals)

    def _turn(self, count: int) -> Tensor:
        """The next views to ask about: int64; all, if taken at once, or drawn for this."""
        if self.ranges is not None:
            self.look_from(self.ranges.draw(len(self.cameras), self.generator))
            return torch.arange(len(self.cameras))
        every = self.prior.all_at_once
        return self.targets.next(len(self.cameras) if every else count, self.generator)

    def look_from(self, cameras: tuple[Camera, ...]) -> None:
        """Go on from other cameras, as many as before."""
        self.cameras, self.state = cameras, replace(self.state, cond=self.asked_from(cameras))

    def _lights(self, step: int) -> Lights | None:
        """The lamps of a step, one for each camera."""
        if self.shading is None or step < self.shading.after * self.state.steps:
            return None
        return self.shading.lights(self.cameras, self.generator).to(self.scene.field.device)

    def encode_views(
        self, views: Tensor, grad: bool = False, normals: bool = False, lights: Lights | None = None
    ) -> tuple[Tensor, Rendering]:
        """Some views in the prior's space, (V, *shape), and their rendering."""
        cameras = [self.cameras[i] for i in views.tolist()]
        if lights is not None:
            lights = lights.select(views.to(lights.position.device))
        rendering = self.render(cameras, grad, normals, lights)
        images, side = rendering.rgb, self.prior.image_shape[-1]
        if side != self.size:
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        return self.prior.encode(images), rendering

    def render(
        self,
        cameras: Sequence[Camera],
        grad: bool = False,
        normals: bool = False,
        lights: Lights | None = None,
    ) -> Rendering:
        """The scene at the stage's size."""
        return self.scene.render(
            cameras,
            self.size,
            self.plan.samples,
            grad=grad,
            generator=self.generator,
            normals=normals,
            lights=lights,
            chunk=self.memory.points if self.memory else None,
        )

    @torch.no_grad()
    def ask(self, views: Tensor, x: Tensor, step: int) -> None:
        """Ask the method for these views' targets x - g, and hold them."""
        together = self.targets.together
        draws = ViewDraws(self.generator, len(views), x.shape[1:], x.dtype, x.device, together)
        g, t, part = self.method.gradient(self.state.select(views), x, step, draws)
        check_finite(g, t, step)
        self.t, self.state = t, self.state.merge(views, part)
        self.targets.hold(views, x - g)

"""A stage of a run on a scene, under way: it looks at the scene, asks the method, holds targets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras import Camera
from ..draws import ViewDraws
from ..methods import Method, State
from ..priors import Prior
from ..scene import Scene
from ..scene.render import Rendering
from .loop import check_finite
from .settings import Stage
from .targets import Targets

SAMPLES = 48  # on a ray


@dataclass
class StageRun:
    """What belongs to one size of pictures and one set of cameras.

    prior: at the stage's size. state, targets: of the method, an entry a camera. generator: of the
    run. refresh: steps for which a target is held. t: at which the method was last asked, (V,).
    """

    number: int
    plan: Stage
    scene: Scene
    prior: Prior
    cameras: tuple[Camera, ...]
    method: Method
    state: State
    targets: Targets
    generator: torch.Generator
    refresh: int
    optimizer: torch.optim.Adam
    t: Tensor

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
            x, rendering = self.encode_views(views, True, normals)
            self.ask(views, x.detach(), step)
            return views, x, rendering
        if step % self.refresh == 0 or not self.targets.held.any():
            views = self._turn(2 * self.plan.views)
            self.ask(views, self.encode_views(views)[0], step // self.refresh)
        views = self.targets.pick(self.plan.views, self.generator)
        return views, *self.encode_views(views, True, normals)

    def _turn(self, count: int) -> Tensor:
        """The next views to ask about: int64; all, if the prior takes them at once."""
        every = self.prior.all_at_once
        return self.targets.next(len(self.cameras) if every else count, self.generator)

    def encode_views(
        self, views: Tensor, grad: bool = False, normals: bool = False
    ) -> tuple[Tensor, Rendering]:
        """Some views in the prior's space, (V, *shape), and their rendering."""
        rendering = self.render([self.cameras[i] for i in views.tolist()], grad, normals)
        images, side = rendering.rgb, self.prior.image_shape[-1]
        if side != self.plan.size:
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        return self.prior.encode(images), rendering

    def render(
        self, cameras: Sequence[Camera], grad: bool = False, normals: bool = False
    ) -> Rendering:
        """The scene at the stage's size."""
        return self.scene.render(
            cameras, self.plan.size, SAMPLES, grad=grad, generator=self.generator, normals=normals
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

"""The exact prior of new views: given one picture of an object and the camera it was taken from,
what do other cameras see?
"""

import math
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..cameras import Camera
from ..checks import positive
from ..inputs import InputView, input_view
from ..schedule import NoiseSchedule
from ..worlds import ToyboxWorld, render
from .base import Count
from .condition import Cameras, Condition, chosen_cameras
from .views import ViewSet

TOLERANCE = 0.02  # RMSE per channel at which an object's likelihood has fallen to exp(-1/2)


class AskedByPicture:
    """What priors of new views have in common: their condition holds a picture and its camera in a
    prompt's place.
    """

    asked_by = "picture"

    @property
    def picture_size(self) -> int:
        """Pixels a side of the picture that it is asked by."""
        return self.image_shape[-1]

    def condition(
        self, image=None, image_camera: Camera | None = None, camera: Cameras = None
    ) -> Condition:
        """The condition for a picture of an object: what `camera`, or one camera an item, sees of
        it.

        image, image_camera: as for `input_view`. Raises TypeError or ValueError for anything that
        cannot be.
        """
        if image is None or isinstance(image, str) and not Path(image).suffix:
            raise TypeError(
                f"{self.name} is asked by a picture, not by a prompt: "
                "condition(image, image_camera, camera)"
            )
        if not isinstance(image, InputView):
            image = input_view(image, image_camera, self.picture_size)
        return Condition(camera=chosen_cameras(self, camera), view=image)

    def resolve(self, prompt: str) -> str:
        raise TypeError(
            f"{self.name} is asked by a picture, not by a prompt: "
            "use image_to_3d, or condition(image=...)"
        )


class Likeness:
    """How likely each object of a world is the one in a picture.

        p(object | picture) ~ exp( -rmse(picture, object from its camera)^2 / (2 tolerance^2) )

    RMSE per channel. That is far softer than independent pixels would be, since what differs in one
    pixel differs in its neighbours too. tolerance: positive.
    """

    def __init__(self, world: ToyboxWorld, tolerance: float):
        self.world, self.tolerance = world, tolerance
        self._log_p: WeakKeyDictionary[InputView, Tensor] = WeakKeyDictionary()

    def log_posterior(self, view: InputView) -> Tensor:
        """log p(object | picture), float64 (N,), normalised; made once for each picture."""
        if view not in self._log_p:
            picture = view.image.cpu()
            error = (self._seen_from(view.camera, picture.shape[-1]) - picture).double()
            mean_square = error.square().flatten(1).mean(1)
            self._log_p[view] = torch.log_softmax(-mean_square / (2 * self.tolerance**2), 0)
        return self._log_p[view]

    def _seen_from(self, camera: Camera, size: int) -> Tensor:
        """Every object from a camera, of the world's bank or another: (N, 3, size, size)."""
        world = self.world
        if camera in world.cameras and size == world.views.shape[-1]:
            return world.images(camera_index=world.cameras.index(camera))
        parts = torch.arange(len(world)).split(16)
        return torch.cat(
            [render(world.toys.subset(part), [camera], size).rgb[:, 0] for part in parts]
        )


class NovelViewSet(AskedByPicture, ViewSet):
    """The exact prior of new views: a world's objects, as likely as they are like the picture, see
    `Likeness`.

    Objects that look alike from there, twins with different backs, are equally likely: the picture
    leaves open which it is, and the true answers are known. Without guidance all objects of the
    world are equally likely.
    tolerance: an RMSE, positive. joint, count: as for `ViewSet`. The picture's camera may be any;
    new views are those of the world's bank. likeness: of the same world, if it is there already.
    """

    def __init__(
        self,
        world: ToyboxWorld,
        scale: float | None = None,
        schedule: NoiseSchedule | None = None,
        tolerance: float = TOLERANCE,
        joint: bool = False,
        count: Count | None = None,
        likeness: Likeness | None = None,
    ):
        super().__init__(world, scale, schedule, joint, count)
        self.name = "toybox-novel-view" + "-joint" * joint
        self.likeness = likeness or Likeness(world, positive("tolerance, an RMSE,", tolerance))
        self.tolerance = self.likeness.tolerance

    def identity(self):
        return {**super().identity(), "tolerance": self.tolerance}

    def _like(self, world, scale):
        # which object it is stays what it was in the large pictures
        return NovelViewSet(
            world, scale, self.schedule, joint=self.joint, count=self.count, likeness=self.likeness
        )

    def log_posterior(self, view: InputView) -> Tensor:
        """log p(object | picture), float64 (N,), see `Likeness`."""
        return self.likeness.log_posterior(view)

    def answers(self, view: InputView, least: float = 0.01) -> Tensor:
        """Which objects the picture leaves open, the likeliest first: int64 positions of all that
        are at least so likely.
        """
        log_p = self.log_posterior(view)
        order = log_p.argsort(descending=True, stable=True)
        return order[log_p[order] >= math.log(least)]

    def _leaves(self, subject):
        # relative to the even weights that all objects have without a picture
        log_p = self.log_posterior(subject)
        return log_p.masked_fill(log_p < -30, -torch.inf)

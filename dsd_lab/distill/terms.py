"""What is added to the loss of a scene beside its targets: scalars, in units of one whole squared
difference a pixel.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..inputs import InputView
from ..scene.regularisers import Ramp, regularisation
from ..scene.render import Rendering

OF_NORMALS = {"orientation", "convexity"}


@dataclass(frozen=True)
class Regularised:
    """What keeps a scene a thing and not a fog: `regularisation` with these weights by name."""

    weights: Mapping[str, float | Ramp]

    @property
    def needs_normals(self) -> bool:
        return bool(OF_NORMALS & set(self.weights))

    def __call__(self, run, rendering: Rendering) -> Tensor:
        return regularisation(rendering, run.index / run.steps, self.weights)


@dataclass(frozen=True)
class Faithful:
    """How far the scene is from a picture that it must show.

    rgb |picture difference|^2 + mask |opacity difference|^2,  means over pixels, from its camera
    """

    view: InputView
    weights: Mapping[str, float]
    needs_normals = False

    def __call__(self, run, rendering: Rendering) -> Tensor:
        wanted = self.view.at_size(run.stage.size)
        seen = run.stage.render([wanted.camera], grad=True)
        rgb = (seen.rgb[0] - wanted.image).square().mean()
        mask = (seen.opacity[0] - wanted.mask).square().mean()
        return self.weights.get("rgb", 0.0) * rgb + self.weights.get("mask", 0.0) * mask

"""The published set-up of text to 3-D with a pretrained pipeline, as one preset."""

from ..cameras import CameraRanges
from ..methods import DSD
from ..scene import REFERENCE, HashField, NeuralBackground, Ramp, Shading
from ..scene.regularisers import LATENT
from .settings import Stage, check_stages

UNIT = 2.0  # how far a latent moves from black to white, see `Prior.unit`
SIZES = (64, 128, 256, 512)


def diverse_score_distillation(steps: int = 10_000, size: int = 512) -> dict[str, object]:
    """Diverse Score Distillation's set-up in 3-D, as arguments for `text_to_3d`, which are new ones
    at each call:

        scene = text_to_3d(prior, "a hamburger", seed=0, **diverse_score_distillation())

    The reference's: the method, with its path simulated anew at each step; cameras at a distance of
    1.5 to 2, with a field of view of 40 to 70 degrees, elevations of -10 to 45 and any azimuth,
    drawn at each step; Adam at 0.01 (0.9, 0.99); the regularisers, whose weights are those of a
    loss summed over a latent; 10,000 steps. Light and textureless pictures are DreamFusion's, with
    common implementations' numbers; the sizes of the hash grid are Instant-NGP's.
    Ours: four views a step, 64 to 512 pixels in equal shares of the steps, the samples on a ray and
    `memory="auto"`. `{**diverse_score_distillation(), "method": DSD(form="unit", keep_path=False)}`
    takes steps at unit gain in place of the published ones (see `DSD`).

    steps: of the run. size: of the largest pictures.
    Raises ValueError for what cannot be. Source: arXiv 2412.06780, section 5.1 and its code.
    """
    sizes = [each for each in SIZES if each < size] + [size]
    stages = tuple(Stage(each, each, 1 / len(sizes), views=4, samples=128) for each in sizes)
    check_stages(stages)
    return {
        "method": DSD(form="reference", keep_path=False),
        "steps": steps,
        "refresh": 1,
        "stages": stages,
        "lr": 0.01,
        "cameras": CameraRanges((-10.0, 45.0), (1.5, 2.0), (40.0, 70.0)),
        "regularisers": {name: a_latent(weight) for name, weight in REFERENCE.items()},
        "field": HashField(16, entries=2**19, coarsest=16, finest=512, hidden=64),
        "background": NeuralBackground(),
        "shading": Shading(),
        "memory": "auto",
    }


def a_latent(weight: float | Ramp) -> float | Ramp:
    """A weight beside a loss that is the sum over a latent, in a scene's units (`StageRun.whole`):
    weight / (4 64 64 UNIT^2).
    """
    whole = LATENT * UNIT**2
    if isinstance(weight, Ramp):
        return Ramp(weight.start / whole, weight.end / whole, weight.until)
    return weight / whole

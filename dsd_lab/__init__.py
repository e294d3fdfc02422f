"""dsd_lab: score distillation, from DDIM to Diverse Score Distillation, on priors that run on a
laptop.

    seeds -> noise -> prior -> method -> loop -> picture -> metrics -> figure

Importing this package loads torch and nothing heavier: diffusers, matplotlib and plotly come with
what uses them.
"""

from . import metrics, worlds
from .cameras import Camera
from .distill.pictures import Run, Step, distill
from .distill.scenes import SceneRun, distill_scene
from .distill.setups import diverse_score_distillation
from .inputs import InputView, input_view
from .methods import (
    ASD,
    CFD,
    CSD,
    DDS,
    DSD,
    FSD,
    ISM,
    NFSD,
    PDS,
    RFDS,
    RSD,
    SDI,
    SDS,
    VSD,
    ConsistentODE,
    DSDStar,
)
from .priors import Condition, GaussianMixture, ImageSet, Prior, load_prior
from .sampling import Trajectory, ddim, ddim_invert
from .scene import Scene
from .schedule import NoiseSchedule
from .tasks import compare, distill_images, image_to_3d, text_to_3d

__version__ = "0.1.0"

__all__ = [
    "ASD",
    "CFD",
    "CSD",
    "DDS",
    "DSD",
    "FSD",
    "ISM",
    "NFSD",
    "PDS",
    "RFDS",
    "RSD",
    "SDI",
    "SDS",
    "VSD",
    "Camera",
    "Condition",
    "ConsistentODE",
    "DSDStar",
    "GaussianMixture",
    "ImageSet",
    "InputView",
    "NoiseSchedule",
    "Prior",
    "Run",
    "Scene",
    "SceneRun",
    "Step",
    "Trajectory",
    "compare",
    "ddim",
    "ddim_invert",
    "distill",
    "distill_images",
    "distill_scene",
    "diverse_score_distillation",
    "image_to_3d",
    "input_view",
    "load_prior",
    "metrics",
    "text_to_3d",
    "worlds",
]

"""dsd_lab: score distillation, from DDIM to Diverse Score Distillation, on priors that run on a laptop.

    seeds -> noise -> prior -> method -> loop -> picture -> metrics -> figure

Importing this package loads torch and nothing heavier: diffusers, matplotlib and plotly come with what uses them.
"""

from . import metrics, worlds
from .distill import Run, Step, distill
from .methods import ASD, CFD, CSD, DDS, DSD, FSD, ISM, NFSD, SDI, SDS, VSD, ConsistentODE, DSDStar
from .priors import Condition, GaussianMixture, ImageSet, Prior, load_prior
from .sampling import Trajectory, ddim, ddim_invert
from .schedule import NoiseSchedule
from .tasks import compare, distill_images

__version__ = "0.1.0"

__all__ = ["ASD", "CFD", "CSD", "DDS", "DSD", "FSD", "ISM", "NFSD", "SDI", "SDS", "VSD", "Condition", "ConsistentODE", "DSDStar",
           "GaussianMixture", "ImageSet", "NoiseSchedule", "Prior", "Run", "Step", "Trajectory", "compare", "ddim", "ddim_invert",
           "distill", "distill_images", "load_prior", "metrics", "worlds"]

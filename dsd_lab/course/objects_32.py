"""All methods in 3-D from the same seeds: `python -m dsd_lab.course.objects_32`.

Text to 3-D on the exact prior `toybox` at 32 pixels, on a prompt that no setting was chosen on;
else as in `dsd_lab.course.objects`. VSD is not among them: with one particle, a scene, it is SDS on
an exact prior.
"""

from ..command import run_module
from ..distill.scenes import SCENE_DSD
from ..methods import ASD, FSD, SDI, SDS, ConsistentODE
from .objects import AS_PUBLISHED, AT_32, SEEDS, X0, Study

METHODS = {
    "SDS": SDS(),
    "DSD unit gain": SCENE_DSD,
    "DSD unit gain, second cfg 1": AS_PUBLISHED,
    "DSD x0": X0,
    "FSD": FSD(),
    "ASD": ASD(),
    "ASD unit gain": ASD(rho=0.5),
    "ConsistentODE": ConsistentODE(),
    "SDI": SDI(t_first=0.1),
}
STUDY = Study(
    "objects_32",
    about="toybox, 32 px, 24 cameras",
    prompts=["a car"],
    runs={label: (method, 4, SEEDS) for label, method in METHODS.items()},
    settings=AT_32,
)
load = STUDY.load

if __name__ == "__main__":
    run_module(STUDY.measure)

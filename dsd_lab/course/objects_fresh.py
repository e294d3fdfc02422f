"""The measurements of lesson 08 on prompts that no setting was chosen on: `python -m
dsd_lab.course.objects_fresh`.

Text to 3-D on the exact prior `toybox`; seeds and settings as in `dsd_lab.course.objects`.
"""

from ..command import run_module
from ..distill.scenes import SCENE_DSD
from ..methods import FSD, SDS
from .objects import AS_PUBLISHED, SEEDS, X0, Study

STUDY = Study(
    "objects_fresh",
    prompts=("a car", "a lamp", "a teddy bear"),
    runs={
        "SDS": (SDS(), 4, SEEDS),
        "DSD unit gain": (SCENE_DSD, 4, SEEDS),
        "DSD x0": (X0, 4, SEEDS),
        "DSD unit gain, second cfg 1": (AS_PUBLISHED, 4, SEEDS),
        "FSD": (FSD(), 4, SEEDS),
    },
)
load = STUDY.load

if __name__ == "__main__":
    run_module(STUDY.measure)

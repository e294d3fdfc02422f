"""The measurements of lesson 08 on views that are denoised jointly: `python -m
dsd_lab.course.objects_joint`.

Text to 3-D on the exact prior `toybox-joint`; prompts, seeds and settings as in
`dsd_lab.course.objects`, but for targets, which are asked for all views at once, and so half as
often.
"""

from ..command import run_module
from ..distill.scenes import JOINT_REFRESH, SCENE_DSD
from ..methods import SDS
from .objects import SEEDS, X0, Study

STUDY = Study(
    "objects_joint",
    prior="toybox-joint",
    about="toybox-joint, 64 px, 24 cameras",
    runs={
        "SDS": (SDS(), JOINT_REFRESH, SEEDS),
        "DSD unit gain": (SCENE_DSD, JOINT_REFRESH, SEEDS),
        "DSD x0": (X0, JOINT_REFRESH, SEEDS),
    },
)
load = STUDY.load

if __name__ == "__main__":
    run_module(STUDY.measure)

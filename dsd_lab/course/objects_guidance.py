"""What guidance does in 3-D: `python -m dsd_lab.course.objects_guidance`.

Text to 3-D on the exact prior `toybox` at 32 pixels, SDS and DSD at four guidances; else as in
`dsd_lab.course.objects`.
"""

from dataclasses import replace

from ..command import run_module
from ..distill.scenes import SCENE_DSD
from ..methods import SDS
from .objects import AT_32, FEWER, X0, Study

METHODS = {"SDS": SDS(), "DSD unit gain": SCENE_DSD, "DSD x0": X0}
STUDY = Study(
    "objects_guidance",
    about="toybox, 32 px, 24 cameras",
    prompts=["a car"],
    runs={
        f"{label}, cfg {cfg:g}": (replace(method, cfg=cfg), 4, FEWER)
        for cfg in (1.0, 4.0, 7.5, 15.0)
        for label, method in METHODS.items()
    },
    settings=AT_32,
)
load = STUDY.load

if __name__ == "__main__":
    run_module(STUDY.measure)

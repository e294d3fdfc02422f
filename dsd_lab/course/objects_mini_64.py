"""The measurements of lesson 08 on a trained network at 64 pixels: `python -m
dsd_lab.course.objects_mini_64`.

As `dsd_lab.course.objects_mini`, but the last quarter of the steps fits pictures of 64 pixels.
"""

from ..command import run_module
from ..distill import STAGES
from .objects import Study
from .objects_mini import CFG, METHODS, SEEDS

STUDY = Study(
    "objects_mini_64",
    ("torch", "diffusers", "dsd_lab"),
    "toybox-mini",
    "toybox-mini, any camera; 24 are used",
    ["a chair"],
    {label: (METHODS[label], 4, SEEDS) for label in ("SDS", "DSD x0", "DSD unit gain")},
    steps=160,
    settings={"stages": STAGES},
    yardstick=(25, CFG),
)
load = STUDY.load

if __name__ == "__main__":
    run_module(STUDY.measure)

"""The measurements of lesson 08 on a network that denoises four views jointly: `python -m
dsd_lab.course.objects_multi_view`.

As `dsd_lab.course.objects_mini`, on `toybox-multi-view-mini`, of which each target asks for four
views around the object; so there are fewer methods and seeds.
"""

from ..command import run_module
from .objects import AT_32, FEWER, Study
from .objects_mini import METHODS

STUDY = Study(
    "objects_multi_view",
    ("torch", "diffusers", "dsd_lab"),
    "toybox-multi-view-mini",
    "toybox-multi-view-mini, four views jointly",
    ["a chair"],
    {label: (METHODS[label], 4, FEWER) for label in ("SDS", "DSD x0", "DSD unit gain")},
    steps=160,
    settings=AT_32,
)
load = STUDY.load

if __name__ == "__main__":
    run_module(STUDY.measure)

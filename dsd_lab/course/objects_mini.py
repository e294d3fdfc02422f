"""The measurements of lesson 08 on a trained network: `python -m dsd_lab.course.objects_mini`.

Text to 3-D on `toybox-mini`, on prompts that no setting was chosen on; else as in
`dsd_lab.course.objects`. A step costs a network's evaluations and the way back through an
autoencoder, so the runs are shorter, and at 32 pixels throughout.
"""

import typer

from ..distill.scenes import Stage
from ..methods import DSD, SDS
from .objects import Study

CFG, SEEDS = 4.0, range(8)
STUDY = Study(
    "objects_mini",
    ("torch", "diffusers", "dsd_lab"),
    "toybox-mini",
    "toybox-mini, any camera; 24 are used",
    ["a chair", "a hamburger", "a car"],
    {"SDS": (SDS(cfg=CFG), 4, SEEDS), "DSD x0": (DSD(cfg=CFG, form="x0", t_min=0.02), 4, SEEDS)},
    steps=160,
    settings={"stages": (Stage(size=32, resolution=32, share=1.0, views=4),)},
)
load = STUDY.load

if __name__ == "__main__":
    typer.run(STUDY.measure)

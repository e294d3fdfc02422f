"""The measurements of lesson 08 on a trained network: `python -m dsd_lab.course.objects_mini`.

Text to 3-D on `toybox-mini`, on prompts that no setting was chosen on; else as in
`dsd_lab.course.objects`. A step costs a network's evaluations and the way back through an
autoencoder, so the runs are shorter, and at 32 pixels throughout; `python -m
dsd_lab.course.objects_mini_64` ends at 64. All methods have the same steps, held targets and range
of t. The settings were chosen on "a mushroom" and "a house".
"""

from ..command import run_module
from ..methods import ASD, DSD, FSD, SDS, VSD
from .objects import AT_32, Study

CFG, T_MIN, SEEDS = 4.0, 0.02, range(8)
X0 = DSD(cfg=CFG, t_min=T_MIN, form="x0")
UNIT = DSD(cfg=CFG, t_min=T_MIN, form="unit")
AS_PUBLISHED = DSD(cfg=CFG, t_min=T_MIN, form="unit", reference_cfg=1.0)
METHODS = {
    "SDS": SDS(cfg=CFG),
    "DSD x0": X0,
    "DSD unit gain": UNIT,
    "DSD unit gain, second cfg 1": AS_PUBLISHED,
    "FSD": FSD(cfg=CFG, t_min=T_MIN),
    "ASD unit gain": ASD(cfg=CFG, rho=0.5),
    "VSD": VSD(cfg=CFG, particles="lora"),
}
STUDY = Study(
    "objects_mini",
    ("torch", "diffusers", "dsd_lab"),
    "toybox-mini",
    "toybox-mini, any camera; 24 are used",
    ["a chair", "a hamburger", "a car"],
    {label: (method, 4, SEEDS) for label, method in METHODS.items()},
    steps=160,
    settings=AT_32,
    yardstick=(25, CFG),
)
load = STUDY.load

if __name__ == "__main__":
    run_module(STUDY.measure)

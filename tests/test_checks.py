"""Numbers that are none, and names that are the same but for case and accents."""

import unicodedata

import pytest
import torch

from dsd_lab import CFD, DSD, ISM, SDI, SDS, VSD, Camera, ConsistentODE, GaussianMixture, load_prior
from dsd_lab.cameras import orbit, rays, sample_cameras
from dsd_lab.checks import meant
from dsd_lab.methods import VARIANTS, variant
from dsd_lab.scene import GridField, HashField
from dsd_lab.worlds import folder, make_toys

CAFE = "caf\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", CAFE)

NO_NUMBERS = {
    "orbit": lambda: orbit(True),
    "rays": lambda: rays([Camera()], True),
    "sample_cameras": lambda: sample_cameras(True, torch.Generator()),
    "Camera": lambda: Camera(azimuth=True),
    "DSD spacing": lambda: DSD(spacing=True),
    "DSD cfg": lambda: DSD(cfg=True),
    "DSD shift": lambda: DSD(shift=True),
    "SDS t_max": lambda: SDS(t_max=True),
    "SDS t_min": lambda: SDS(t_min=False),
    "ISM t_max": lambda: ISM(t_max=(True, 0.5)),
    "ISM interval": lambda: ISM(interval=True),
    "ConsistentODE t_min": lambda: ConsistentODE(t_min=False),
    "CFD gamma": lambda: CFD(gamma=True),
    "SDI extra_noise": lambda: SDI(extra_noise=True),
    "SDI extra_noise below 0": lambda: SDI(extra_noise=-1),
    "SDI t_first": lambda: SDI(t_first=False),
    "SDI inversion_steps": lambda: SDI(inversion_steps=True),
    "VSD width": lambda: VSD(width=True),
    "VSD width below 0": lambda: VSD(width=-0.1),
    "VSD rank": lambda: VSD(rank=True),
    "VSD lr": lambda: VSD(lr=True),
    "t as text": lambda: SDS(t_min="0.1"),
    "GridField resolution": lambda: GridField(True),
    "GridField scale": lambda: GridField(8, scale=True),
    "HashField levels": lambda: HashField(levels=True),
    "HashField entries": lambda: HashField(entries=True),
    "HashField hidden": lambda: HashField(hidden=True),
    "toys' seeds": lambda: make_toys("chair", [True]),
    "toys' sharpness": lambda: make_toys("chair", [0]).density(torch.zeros(1, 1, 3), True),
    "size": lambda: load_prior("icons", size=True),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_true_is_no_number(name):
    with pytest.raises((TypeError, ValueError), match="must|is a fraction|every seed"):
        NO_NUMBERS[name]()


def test_names_are_compared_without_case_and_by_composed_letters():
    assert meant("SDS", ["sds", "dsd"]) == "sds" and meant(DECOMPOSED, [CAFE]) == CAFE
    assert meant("Cat", ["cat", "CAT"]) is None and meant("CAT", ["cat", "CAT"]) == "CAT"
    assert meant("dog", ["cat"]) is None and meant(3, ["3"]) is None


def test_every_name_that_is_looked_up(tmp_path):
    assert variant("DSD-Star") is VARIANTS["dsd-star"]
    mixture = GaussianMixture({CAFE: [[0.0]], "tea": [[1.0]]})
    assert mixture.condition(DECOMPOSED).prompt == (CAFE,)
    assert mixture.condition("TEA").prompt == ("tea",)
    assert make_toys("Chair", [0]).captions == make_toys("chair", [0]).captions
    assert load_prior("Icons", size=16) is load_prior("icons", size=16)


def test_labels_that_differ_by_case_alone(tmp_path):
    for name in ("Cat", "cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.png").write_bytes(b"")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("the file system compares names without case")
    with pytest.raises(ValueError, match="two sub-folders named .* without case"):
        folder(tmp_path)

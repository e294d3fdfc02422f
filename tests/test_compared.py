"""Tables of objects as text, and who is clearly better than whom."""

import pytest

from dsd_lab.course import compared

SDS = {"prompt": "a cup", "method": "SDS", "settings": "SDS()", "scenes": 8, "distances": [0.1]}
SDS |= {"distinct": 2, "distance": [0.12, 0.11, 0.13], "pairwise": [0.05, 0.04, 0.06], "psnr": 18.5}
DSD = SDS | {"method": "DSD", "distance": [0.1, 0.09, 0.115], "pairwise": None, "right kind": "7/8"}


def test_a_table_has_a_column_for_whatever_was_measured():
    text = compared.as_text([SDS, DSD, SDS | {"prompt": "a lamp"}])
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert [block[0] for block in blocks] == ["a cup", "a lamp"]
    head, sds, dsd = blocks[0][1:]
    assert head.split() == ["nearest", "distance", "pairwise", "PSNR", "right", "kind"]
    assert sds.startswith("SDS (8 seeds)") and "0.120 [0.110, 0.130]" in sds and "18.5" in sds
    assert dsd.startswith("DSD (8 seeds)") and dsd.endswith("7/8") and " - " in dsd


@pytest.mark.parametrize(
    ("one", "other", "sign"),
    [
        ([0.3, 0.2, 0.4], [0.1, 0.0, 0.15], 1),
        ([0.1, 0.0, 0.15], [0.3, 0.2, 0.4], -1),
        ([0.3, 0.2, 0.4], [0.1, 0.0, 0.2], 0),
        (None, [0.1, 0.0, 0.2], 0),
    ],
)
def test_clearly_means_that_the_intervals_do_not_touch(one, other, sign):
    assert compared.clearly(one, other) == sign


def test_advantages_in_words():
    near = SDS | {"distance": [0.05, 0.04, 0.06], "pairwise": [0.2, 0.1, 0.3]}
    assert compared.advantages(near, SDS) == "closer to true objects and more diverse"
    assert compared.advantages(SDS, near) == compared.advantages(DSD, SDS) == "no clear advantage"


def test_a_tally_over_prompts():
    better = DSD | {"distance": [0.05, 0.04, 0.06], "pairwise": [0.02, 0.01, 0.03]}
    lamp = {"prompt": "a lamp"}
    lines = compared.tally([SDS, better, SDS | lamp, DSD | lamp], "SDS")
    assert [line.split() for line in lines.splitlines()] == [
        ["distance", "pairwise"],
        ["DSD", "better", "1,", "worse", "0", "better", "0,", "worse", "1"],
    ]

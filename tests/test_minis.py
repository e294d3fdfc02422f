"""Every shipped mini: its folder is whole and small, and holds nothing that could run code."""

import hashlib

import pytest

from dsd_lab.priors import MINIS, MODELS


@pytest.mark.parametrize("name", MINIS)
def test_the_folder_is_whole_small_and_as_its_checksums_say(name):
    folder = MODELS / name
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6
    listed = dict(
        reversed(line.split("  "))
        for line in (folder / "checksums.sha256").read_text().splitlines()
    )
    assert {file.relative_to(folder).as_posix() for file in folder.rglob("*.safetensors")} < set(
        listed
    )
    for part, digest in listed.items():
        assert hashlib.sha256((folder / part).read_bytes()).hexdigest() == digest, part
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_every_folder_is_a_mini_or_a_judge():
    folders = {folder.name for folder in MODELS.iterdir() if folder.is_dir()}
    assert {name for name in folders if not name.endswith("-judge")} == set(MINIS)

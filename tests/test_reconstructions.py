"""The shipped measurements of reconstruction from one picture."""

from dsd_lab.course import reconstructions
from dsd_lab.worlds.toybox import _plan


def rows_of(picture):
    return {row["method"]: row for row in reconstructions.load()["rows"] if row["picture"] == picture}


def test_the_shipped_table_is_the_one_its_command_describes():
    about = reconstructions.load()["about"]
    assert about["command"] == f"python -m {reconstructions.__name__}" and about["steps"] == reconstructions.STEPS
    for picture in reconstructions.TWINS:
        rows = rows_of(picture)
        assert set(rows) == set(reconstructions.RUNS)
        for label, (method, refresh, seeds) in reconstructions.RUNS.items():
            row = rows[label]
            assert (row["scenes"], row["answers"], row["refresh"], row["settings"]) == (len(seeds), 3, refresh, str(method))
    for picture in reconstructions.UNKNOWN:
        assert {label: row["answers"] for label, row in rows_of(picture).items()} == {"SDS": 1, "DSD": 1}


def test_the_pictures_are_of_twins_of_the_world_and_of_a_stranger():
    seeds, backs = _plan(16)
    twins = {seed for seed, back in zip(seeds, backs, strict=True) if back is not None}
    assert all(seed in twins for _, seed in reconstructions.TWINS.values())
    assert all(seed not in seeds for _, seed in reconstructions.UNKNOWN.values())


def test_the_shipped_table_says_what_the_course_says():
    for picture in reconstructions.TWINS:
        rows = rows_of(picture)
        assert all(row["input_psnr"][0] >= 26 for row in rows.values())
        assert rows["DSD"]["distance"][2] < rows["SDS"]["distance"][1]
        assert rows["SDS"]["found"] == 1 and max(row["found"] for row in rows.values()) == rows["DSD"]["found"]
    assert (rows_of("a house")["DSD"]["found"], rows_of("a house")["SDS"]["found"]) == (3, 1)
    assert rows_of("a mug")["DSD"]["found"] == 1  # where the empty back wins all the same
    stranger = rows_of(next(iter(reconstructions.UNKNOWN)))["DSD"]
    assert stranger["input_psnr"][0] >= 26
    assert stranger["psnr"][2] < min(rows_of(picture)["DSD"]["psnr"][1] for picture in reconstructions.TWINS)

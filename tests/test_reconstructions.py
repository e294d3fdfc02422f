"""The shipped measurements of reconstruction from one picture."""

from dsd_lab.course import reconstructions
from dsd_lab.worlds.toybox.world import _plan


def rows_of(picture, views):
    return {
        row["method"]: row
        for row in reconstructions.load()["rows"]
        if (row["picture"], row["prior"]) == (picture, views)
    }


def test_the_shipped_table_is_the_one_its_command_describes():
    about = reconstructions.load()["about"]
    assert (
        about["command"] == f"python -m {reconstructions.__name__}"
        and about["steps"] == reconstructions.STEPS
    )
    assert about["priors"] == reconstructions.PRIORS | reconstructions.NETWORK
    for views in reconstructions.PRIORS:
        for picture in reconstructions.TWINS:
            rows = rows_of(picture, views)
            assert set(rows) == set(reconstructions.RUNS)
            for label, (method, seeds) in reconstructions.RUNS.items():
                assert (rows[label]["scenes"], rows[label]["answers"], rows[label]["settings"]) == (
                    seeds,
                    3,
                    str(method),
                )
    for views in about["priors"]:
        for picture in reconstructions.UNKNOWN:
            assert {label: row["answers"] for label, row in rows_of(picture, views).items()} == {
                "SDS": 1,
                "DSD": 1,
            }


def test_the_pictures_are_of_twins_of_the_world_and_of_a_stranger():
    seeds, backs = _plan(16)
    twins = {seed for seed, back in zip(seeds, backs, strict=True) if back is not None}
    assert all(seed in twins for _, seed in reconstructions.TWINS.values())
    assert all(seed not in seeds for _, seed in reconstructions.UNKNOWN.values())


def test_the_shipped_table_says_what_the_course_says():
    """Of joint views DSD makes every answer from some seed, SDS none or one; of views denoised
    alone not always.
    """
    for views in reconstructions.PRIORS:
        for picture in reconstructions.TWINS:
            rows = rows_of(picture, views)
            assert all(row["input_psnr"][0] >= 26 for row in rows.values())
            assert (
                rows["DSD"]["distance"][2] < rows["SDS"]["distance"][1]
            )  # nearer, whatever the seed
            assert (
                rows["SDS"]["found"] <= 1
                and max(row["found"] for row in rows.values()) == rows["DSD"]["found"]
            )
        stranger = rows_of(next(iter(reconstructions.UNKNOWN)), views)["DSD"]
        assert stranger["input_psnr"][0] >= 26
        assert stranger["psnr"][2] < min(
            rows_of(picture, views)["DSD"]["psnr"][1] for picture in reconstructions.TWINS
        )
    alone, jointly = reconstructions.PRIORS
    assert [rows_of(picture, jointly)["DSD"]["found"] for picture in reconstructions.TWINS] == [
        3,
        3,
    ]
    assert [rows_of(picture, alone)["DSD"]["found"] for picture in reconstructions.TWINS] == [3, 1]
    house = rows_of("a house", jointly)
    assert (
        house["DSD"]["pairwise"][1] > house["SDS"]["pairwise"][2]
    )  # more diverse, whatever the seed

"""The pictures of the study of reconstructions; test_tables recomputes some of its rows."""

from dsd_lab.course import reconstructions
from dsd_lab.worlds.toybox.world import _plan


def test_the_pictures_are_of_twins_of_the_world_and_of_a_stranger():
    seeds, backs = _plan(16)
    twins = {seed for seed, back in zip(seeds, backs, strict=True) if back is not None}
    assert all(seed in twins for _, seed in reconstructions.TWINS.values())
    assert all(seed not in seeds for _, seed in reconstructions.UNKNOWN.values())

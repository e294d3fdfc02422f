"""How the lessons' studies of objects judge: the judge of toys, and DDIM beside."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from dsd_lab import ddim, load_prior
from dsd_lab.cameras import HELD_OUT
from dsd_lab.course import (
    objects,
    objects_32,
    objects_fresh,
    objects_guidance,
    objects_mini,
    objects_mini_64,
    objects_multi_view,
    reconstructions,
)
from dsd_lab.metrics.scenes import true_views
from dsd_lab.minis.train_judge import blur

STUDIES = [
    import_module(f"dsd_lab.course.{file.stem}")
    for file in sorted(Path(objects.__file__).parent.glob("objects*.py"))
]


@pytest.fixture
def views(monkeypatch):
    """Two chairs from the held-out cameras, of a world that has three and nothing else."""
    world = load_prior("toybox-mini").world
    few = world.index("a chair")[:3]
    parts = {name: getattr(world, name)[few] for name in ("kind_label", "groups", "views")}
    world = replace(world, toys=world.toys.subset(few), **parts)
    priors = {"toybox-mini": SimpleNamespace(world=world)}
    monkeypatch.setattr(objects, "load_prior", priors.__getitem__)
    return true_views(world, "a chair", HELD_OUT, 64)[:2]


def test_the_judge_names_true_views_and_not_blurred_ones(views):
    study = objects_mini.STUDY
    whole, blurred = (study.judged("a chair", x) for x in (views, blur(views, 2.0)))
    assert whole["named"].value > 0.9 and blurred["named"].value < 0.1
    assert whole["reached"] == 2 and whole["distance"].value == pytest.approx(0, abs=1e-6)
    mixed = torch.stack([views[0], blur(views[1], 2.0)])
    named = study.judged("a chair", mixed)["named"]
    assert named.value == pytest.approx(0.5, abs=0.1)
    assert (named.low, named.high) == pytest.approx((0, 1), abs=0.1)  # over seeds, not views
    assert "named" not in replace(study, yardstick=None).judged("a chair", views)


def test_the_yardstick_is_ddim_from_each_held_out_camera():
    prior, study = load_prior("toybox-mini"), replace(objects_mini.STUDY, yardstick=(2, 3.0))
    seen = study.sample("a car", [4])
    assert seen.shape == (1, len(HELD_OUT), 3, 64, 64)
    cond = prior.condition("a car", camera=HELD_OUT[3])
    own = ddim(prior, prior.noise([4]), cond, 2, 3.0).images.cpu()
    torch.testing.assert_close(seen[0, 3:4], own, rtol=0, atol=1e-4)


def test_on_the_network_all_methods_have_the_same_budget():
    runs = objects_mini.STUDY.runs
    assert {refresh for _, refresh, _ in runs.values()} == {4}
    assert {method.cfg for method, _, _ in runs.values()} == {objects_mini.CFG}
    assert {seeds for *_, seeds in runs.values()} == {range(8)}
    chosen_on = {"a mushroom", "a house"}
    for study in (objects_mini.STUDY, objects_mini_64.STUDY, objects_guidance.STUDY):
        assert not chosen_on & set(study.prompts)
    assert objects_mini_64.STUDY.runs.items() <= runs.items()
    methods = {label: method for label, (method, *_) in objects_multi_view.STUDY.runs.items()}
    assert methods.items() <= objects_mini.METHODS.items()
    cfgs = [method.cfg for method, _, _ in objects_guidance.STUDY.runs.values()]
    assert sorted(set(cfgs)) == [1, 4, 7.5, 15] and objects.STUDY.yardstick is None
    runs = objects_32.STUDY.runs
    assert not set(objects.STUDY.prompts) & set(objects_32.STUDY.prompts)
    assert objects_fresh.STUDY.runs.items() <= runs.items()  # at the same settings


@pytest.mark.parametrize("module", STUDIES)
def test_a_shipped_table_is_the_one_its_command_describes(module):
    study, table = module.STUDY, module.load()
    about = {"command": f"python -m {module.__name__}", "prior": study.about, "steps": study.steps}
    assert about.items() <= table["about"].items()
    wanted = {
        (prompt, label, str(method), refresh, len(seeds))
        for prompt in study.prompts
        for label, (method, refresh, seeds) in study.runs.items()
    }
    found = {
        (row["prompt"], row["method"], row["settings"], row["refresh"], row["scenes"])
        for row in table["rows"]
        if row["method"] != "DDIM"
    }
    assert found == wanted
    assert {row["prompt"] for row in table["rows"] if row["method"] == "DDIM"} == (
        set(study.prompts) if study.yardstick else set()
    )
    if module is not objects:  # whose picture is not shipped
        assert Image.open(study.picture).width > 400


def test_one_prior_s_reconstructions_are_made_anew_and_the_others_rows_stay(tmp_path, monkeypatch):
    shipped, made = reconstructions.load(), []

    def scenes(self, folder, identity, groups, *_):
        made.extend(groups)
        return [{"prior": p, "picture": n, "method": m, "new": True} for p, n, m in groups]

    class Table:
        path = reconstructions.TABLE.path

        def write(self, facts, rows):
            done.extend(rows)

    Table.scenes = scenes
    done = []
    monkeypatch.setattr(reconstructions, "TABLE", Table())
    reconstructions.measure(tmp_path, ["a network"])
    assert {group[0] for group in made} == {"a network"} and len(made) == 2
    kept = [row for row in shipped["rows"] if row["prior"] != "a network"]
    assert done[:-2] == kept and all(row["new"] for row in done[-2:])
    with pytest.raises(ValueError, match="unknown prior .network.; did you mean"):
        reconstructions.measure(tmp_path, ["network"])

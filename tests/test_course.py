"""The shipped measurements of lesson 04 and the figures made of them."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from dsd_lab import GaussianMixture, ddim
from dsd_lab.course import family, objects, objects_joint, objects_mini
from dsd_lab.methods import DSD, SDS
from dsd_lab.metrics.pictures import Estimate
from dsd_lab.metrics.scenes import ObjectReport
from dsd_lab.scene import GridField, Scene
from dsd_lab.studies import ablation
from dsd_lab.studies.study import Summary
from dsd_lab.viz import points


def test_the_shipped_table_is_the_one_its_command_describes():
    measured = family.load()
    assert measured["about"]["command"] == f"python -m {family.__name__}"
    for name, grid in family.GRIDS.items():
        cells = {(s.method, s.settings["cfg"]) for s in measured[name].values()} - {
            ("DDIM", c) for c in family.GUIDANCE
        }
        cfgs = {setting.cfg for setting in grid.settings} - {None} or {7.5}
        assert cells == {(method, cfg) for method in grid.methods for cfg in cfgs}
        assert {s.prompts for s in measured[name].values()} == {len(grid.prompts)}
        assert {s.seeds for s in measured[name].values()} == {len(grid.seeds)}
        assert all(isinstance(s, Summary) for s in measured[name].values())
    assert len(family.PROMPTS) >= 12
    assert not {"a tree", "a mushroom"} & set(family.PROMPTS)  # on which settings were chosen


def test_the_shipped_table_says_what_the_course_says():
    rows = family.load()["family"]
    assert rows["DSD*"].agreement.value < 1e-2  # 8-bit pictures of the same result
    assert rows["SDS"].modes.high < rows["DDIM"].modes.low
    assert rows["DSD"].relative.value > 0.8
    assert rows["DSD"].distance.value < 0.02
    assert rows["DSD"].agreement.high < rows["SDS"].agreement.low


def test_the_table_can_be_read_by_anything():
    rows = json.loads(family.TABLE.read_text(encoding="utf-8"))["family"]
    assert all(len(row["distance"]) == 3 and math.isfinite(row["distance"][0]) for row in rows)


def test_dots_show_every_setting():
    rows = family.load()["switches"]
    figure = ablation.dots(
        {
            "annealing": {name: rows[name] for name in ("DSD", "linear, ode")},
            "one": {"ASD": rows["ASD"]},
        }
    )
    left = figure.axes[0]
    assert [tick.get_text() for tick in left.get_yticklabels()] == [
        "annealing",
        "DSD",
        "linear, ode",
        "one",
        "ASD",
    ]
    drawn = [line.get_xdata()[0] for line in left.get_lines() if line.get_marker() == "o"]
    assert drawn == pytest.approx(
        [rows[name].relative.value for name in ("DSD", "linear, ode", "ASD")]
    )
    with pytest.raises(ValueError, match="nothing to show"):
        ablation.dots({})


def test_figures_of_points():
    prior = GaussianMixture({"a": [[1.0, 0.0]], "b": [[-1.0, 0.0]]}, width=0.3)
    cond = prior.condition("a")
    path = ddim(prior, prior.noise([0, 1]), cond, 5, 1.0)
    axes = points.field(prior, path, 3, cond, 1.0).axes[0]
    marks = [tuple(line.get_xydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"]
    torch.testing.assert_close(
        torch.tensor(marks, dtype=torch.float32),
        torch.stack([path.x_t[3, 0], path.x0[3, 0], path.x_t[3, 1], path.x0[3, 1]]).float(),
    )
    assert [
        a.get_title()
        for a in points.ends(prior, cond, {"DDIM": path.final, "SDS": path.final}).axes
    ] == ["DDIM", "SDS"]
    assert len(points.arrows(prior, cond, torch.zeros(3, 2), {"one": torch.ones(3, 2)}).axes) == 1
    grid, p = points.density(prior, 0, cond, limit=2.5, count=51)
    assert float(p.sum() * (grid[1] - grid[0]) ** 2) == pytest.approx(1, abs=1e-3)
    assert p.argmax() == 25 * 51 + 35  # y = 0, x = 1: index (1 + 2.5) / 0.1


@pytest.mark.parametrize("module", [objects, objects_joint, objects_mini])
def test_a_table_of_objects_is_the_one_its_command_describes(module):
    study, measured = module.STUDY, module.load()
    assert (
        measured["about"]["command"] == f"python -m {module.__name__}"
        and measured["about"]["steps"] == study.steps
    )
    assert {(row["prompt"], row["method"]) for row in measured["rows"]} == {
        (p, m) for p in study.prompts for m in study.runs
    }
    for row in measured["rows"]:
        method, refresh, seeds = study.runs[row["method"]]
        assert (row["settings"], row["refresh"], row["scenes"]) == (
            str(method),
            refresh,
            len(seeds),
        )
    assert not {"a tree", "a mushroom"} & set(study.prompts)


def test_a_study_of_objects_goes_on_where_it_stopped(tmp_path, monkeypatch):
    study = objects.Study(
        "tiny",
        "nothing",
        "none",
        ["a chair", "a red duck"],
        {"SDS": (SDS(), 4, range(2)), "DSD": (DSD(), 1, range(3))},
        7,
        {"lr": 0.5},
    )
    made, judged = [], []

    def fake_text_to_3d(prior, prompt, method, seed, steps, *, refresh, lr):
        made.append((prompt, str(method), seed, steps, refresh, lr))
        if len(made) == 5:
            raise KeyboardInterrupt
        return Scene(GridField(4))

    def fake_judge(views, world, prompt):
        judged.append((tuple(views.shape), world, prompt))
        n = len(views)
        return ObjectReport(n, 9, (0,) * n, (0.2,) * n, Estimate(0.2, 0.1, 0.3), 1, 0, None, 14.0)

    monkeypatch.setattr(
        objects, "load_prior", lambda name: SimpleNamespace(world=SimpleNamespace(credit=name))
    )
    monkeypatch.setattr(objects, "text_to_3d", fake_text_to_3d)
    monkeypatch.setattr(objects, "judge_views", fake_judge)
    monkeypatch.setattr(objects, "HELD_OUT", objects.HELD_OUT[:5])
    monkeypatch.setattr(objects.Study, "table", tmp_path / "tiny.json")
    with pytest.raises(KeyboardInterrupt):
        study.measure(tmp_path / "kept")
    assert len(made) == 5 and not study.table.exists()
    study.measure(tmp_path / "kept")
    assert len(made) == 11 and made[4] == made[5]  # four were there; the fifth began anew
    assert made[0] == ("a chair", "SDS", 0, 7, 4, 0.5) and made[-1] == (
        "a red duck",
        "DSD",
        2,
        7,
        1,
        0.5,
    )
    assert [(shape[:2], prompt) for shape, _, prompt in judged] == [
        ((2, 5), "a chair"),
        ((3, 5), "a chair"),
        ((2, 5), "a red duck"),
        ((3, 5), "a red duck"),
    ]
    with Image.open(study.picture) as picture:
        assert picture.format == "PNG" and picture.width > picture.height
    rows = study.load()["rows"]
    assert [(row["prompt"], row["method"], row["refresh"]) for row in rows][:2] == [
        ("a chair", "SDS", 4),
        ("a chair", "DSD", 1),
    ]
    assert all(row["distance"] == [0.2, 0.1, 0.3] and row["seconds"] >= 0 for row in rows)

"""The shipped measurements of lesson 04 and the figures made of them."""

import json
import math

import pytest
import torch

from dsd_lab import GaussianMixture, ddim
from dsd_lab.course import family
from dsd_lab.study import Summary
from dsd_lab.viz import ablation, points


def test_the_shipped_table_is_the_one_its_command_describes():
    measured = family.load()
    assert measured["about"]["command"] == f"python -m {family.__name__}"
    for name, grid in family.GRIDS.items():
        cells = {(s.method, s.settings["cfg"]) for s in measured[name].values()} - {("DDIM", c) for c in family.GUIDANCE}
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
    figure = ablation.dots({"annealing": {name: rows[name] for name in ("DSD", "linear, ode")}, "one": {"ASD": rows["ASD"]}})
    left = figure.axes[0]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["annealing", "DSD", "linear, ode", "one", "ASD"]
    drawn = [line.get_xdata()[0] for line in left.get_lines() if line.get_marker() == "o"]
    assert drawn == pytest.approx([rows[name].relative.value for name in ("DSD", "linear, ode", "ASD")])
    with pytest.raises(ValueError, match="nothing to show"):
        ablation.dots({})


def test_figures_of_points():
    prior = GaussianMixture({"a": [[1.0, 0.0]], "b": [[-1.0, 0.0]]}, width=0.3)
    cond = prior.condition("a")
    path = ddim(prior, prior.noise([0, 1]), cond, 5, 1.0)
    axes = points.field(prior, path, 3, cond, 1.0).axes[0]
    marks = [tuple(line.get_xydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"]
    torch.testing.assert_close(torch.tensor(marks, dtype=torch.float32),
                               torch.stack([path.x_t[3, 0], path.x0[3, 0], path.x_t[3, 1], path.x0[3, 1]]).float())
    assert [a.get_title() for a in points.ends(prior, cond, {"DDIM": path.final, "SDS": path.final}).axes] == ["DDIM", "SDS"]
    assert len(points.arrows(prior, cond, torch.zeros(3, 2), {"one": torch.ones(3, 2)}).axes) == 1
    grid, p = points.density(prior, 0, cond, limit=2.5, count=51)
    assert float(p.sum() * (grid[1] - grid[0]) ** 2) == pytest.approx(1, abs=1e-3)
    assert p.argmax() == 25 * 51 + 35  # y = 0, x = 1: index (1 + 2.5) / 0.1

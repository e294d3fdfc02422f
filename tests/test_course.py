"""The measurements behind the lessons, and figures of them; test_tables recomputes some rows."""

import pickle
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import typer
from PIL import Image

from dsd_lab import GaussianMixture, ImageSet, ddim
from dsd_lab.cameras import HELD_OUT
from dsd_lab.course import family, mini, objects, objects_mini, reconstructions
from dsd_lab.course.measured import scene_views
from dsd_lab.course.overview import ORIGINS, overview
from dsd_lab.methods import DSD, SDS, VARIANTS
from dsd_lab.metrics import Estimate, kid, load_judge
from dsd_lab.metrics.scenes import ObjectReport
from dsd_lab.minis.train_judge import blur
from dsd_lab.scene import GridField, Scene
from dsd_lab.studies import Grid, Setting, figures
from dsd_lab.viz import points
from dsd_lab.viz.style import INK
from dsd_lab.worlds import icons


def test_the_shipped_table_is_the_one_its_command_describes():
    measured = family.load()
    assert measured["about"]["command"] == f"python -m {family.__name__}"
    for name, grid in family.GRIDS.items():
        cells = {(s.method, s.settings["cfg"]) for s in measured[name].values()} - {
            ("DDIM", c) for c in family.GUIDANCE
        }
        cfgs = {setting.cfg for setting in grid.settings} - {None} or {7.5}
        assert cells == {(method, cfg) for method in grid.methods for cfg in cfgs}
        assert {(s.prompts, s.seeds) for s in measured[name].values()} == {
            (len(grid.prompts), len(grid.seeds))
        }
    assert not {"a tree", "a mushroom"} & set(family.PROMPTS)  # on which settings were chosen


def test_studies_that_are_not_asked_for_keep_their_rows(tmp_path, monkeypatch):
    shipped, written = family.TABLE.load(), {}
    table = SimpleNamespace(
        load=family.TABLE.load,
        path=family.TABLE.path,
        write=lambda facts, **content: written.update(content, about=facts),
    )
    monkeypatch.setattr(family, "TABLE", table)
    grid = Grid({"SDS": SDS()}, ["a cat"], [0, 1, 2], [{"steps": 2}])
    monkeypatch.setitem(family.GRIDS, "guidance", grid)
    family.measure(tmp_path, ["guidance"])
    assert written["family"] == shipped["family"] and written["switches"] == shipped["switches"]
    assert {row["method"] for row in written["guidance"]} == {"DDIM", "SDS"}
    rows = [*written["family"], *written["switches"], *written["guidance"]]
    seconds = sum(row["seconds"] * row["prompts"] * row["seeds"] for row in rows)
    assert written["about"]["seconds"] == round(seconds)
    with pytest.raises(ValueError, match='unknown study "famly"; did you mean "family"'):
        family.measure(tmp_path, ["famly"])


@pytest.mark.parametrize(
    "work",
    [
        mini.compute,
        partial(scene_views, partial(reconstructions.distil, {}), HELD_OUT),
        *(partial(scene_views, m.STUDY.distil, HELD_OUT) for m in (objects, objects_mini)),
    ],
)
def test_what_makes_a_cell_travels_to_another_process(work):
    sent = pickle.dumps(work)
    assert repr(pickle.loads(sent)) == repr(work)
    assert len(sent) < 20_000  # priors go by name


def test_the_family_is_judged_as_sets():
    world, judge = icons(32), load_judge("icons")
    prompts = list(world.prompts[:8])
    images = {"true": [*map(world.images, prompts)]}
    images["blurred"] = [blur(x, 1.6) for x in images["true"]]
    cells = [SimpleNamespace(method=m, images=x) for m, xs in images.items() for x in xs]
    done = SimpleNamespace(identity={"prompts": prompts}, cells=cells)
    got, data = family.judged(done, world, judge), torch.cat(images["true"])
    assert got["true"]["precision"].value == got["true"]["recall"].value == 1
    assert got["blurred"]["precision"].value < 0.1
    want = kid(torch.cat(images["blurred"]), data, whole=True, features=judge.features)
    assert got["blurred"]["kid"] == pytest.approx(want)
    assert got["true"]["kid"].value < 0.1 < got["blurred"]["kid"].low


def test_dots_show_every_setting():
    rows = family.load()["switches"]
    figure = figures.dots(
        {
            "annealing": {name: rows[name] for name in ("DSD", "linear, ode")},
            "one": {"ASD": rows["ASD"]},
        },
        "a credit",
    )
    left = figure.axes[0]
    names = [tick.get_text() for tick in left.get_yticklabels()]
    assert names == ["annealing", "DSD", "linear, ode", "one", "ASD"]
    drawn = [line.get_xdata()[0] for line in left.get_lines() if line.get_marker() == "o"]
    assert drawn == pytest.approx(
        [rows[name].relative.value for name in ("DSD", "linear, ode", "ASD")]
    )
    assert [text.get_text() for text in figure.texts] == ["a credit"]
    with pytest.raises(ValueError, match="nothing to show"):
        figures.dots({})


def test_a_forest_has_a_row_a_method_in_the_colour_of_its_noise():
    rows = list(family.load()["family"].values())
    figure = figures.forest(rows, ORIGINS, credit="a credit")
    assert {s.label for s in rows} - set(ORIGINS) == {"DDIM"}
    left, middle, _ = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == [s.label for s in rows]
    dots = [line for line in middle.get_lines() if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [s.distance.value for s in rows]
    colours = {ORIGINS.get(s.label): line.get_color() for s, line in zip(rows, dots, strict=True)}
    assert len(set(colours.values())) == 4 and colours[None] == INK
    (only,) = figures.forest(rows, ORIGINS, measures={"named": "named right"}).axes
    dots = [line for line in only.get_lines() if line.get_marker() == "o"]
    assert only.get_title() == "named right"
    assert [line.get_xdata()[0] for line in dots] == [s.named.value for s in rows]
    with pytest.raises(ValueError, match="nothing to show"):
        figures.forest([], ORIGINS)


def test_the_overview_has_a_row_a_method_with_its_source_and_cost():
    prior = GaussianMixture({"a": [[1.0, 0.0]]})
    lines = dict(line.split(" | ", 1) for line in overview(prior).splitlines()[2:])
    assert lines["| **ASD**"].startswith("[2407.02040](https://arxiv.org/abs/2407.02040) | ")
    assert "| 3.0 |" in lines["| **ASD**"] and "| 2.0 |" in lines["| **SDS**"]
    assert "(https://arxiv.org/abs/2401.00909)" in lines["| **VSD entropy 0.5**"]
    shown = {v.label for v in VARIANTS.values() if not v.kind.needs_source}
    assert shown == set(ORIGINS)  # no method is left out
    assert {len(line.split(" | ")) for line in lines.values()} == {7}


def test_ends_show_each_methods_points():
    prior = GaussianMixture({"a": [[1.0, 0.0]], "b": [[-1.0, 0.0]]}, width=0.3)
    cond = prior.condition("a")
    path = ddim(prior, prior.noise([0, 1]), cond, 5, 1.0)
    panels = points.ends(prior, cond, {"DDIM": path.final, "far": 9 * path.final}).axes
    assert [panel.get_title() for panel in panels] == ["DDIM", "far"]
    near, far = (torch.tensor(panel.lines[0].get_xydata()).float() for panel in panels)
    assert torch.equal(near, path.final)
    assert torch.equal(far, (9 * path.final).clamp(-2.5, 2.5)) and far.max() == 2.5  # at the edge
    grid, p = points.density(prior, 0, cond, limit=2.5, count=51)
    assert float(p.sum() * (grid[1] - grid[0]) ** 2) == pytest.approx(1, abs=1e-3)
    assert p.argmax() == 25 * 51 + 35  # y = 0, x = 1: index (1 + 2.5) / 0.1


@pytest.mark.slow
def test_a_study_of_objects_goes_on_where_it_stopped(tmp_path, monkeypatch):
    study = objects.Study(
        "tiny",
        prior="nothing",
        about="none",
        prompts=["a chair", "a red duck"],
        runs={"SDS": (SDS(), 4, range(2)), "DSD": (DSD(), 1, range(3))},
        steps=7,
        settings={"lr": 0.5},
    )
    asked, judged = [], []

    def fake_text_to_3d(prior, prompt, method, seed, steps, *, refresh, lr, progress):
        asked.append((prompt, str(method), seed, steps, refresh, lr))
        progress(SimpleNamespace(finished=len(asked) != 5))  # Ctrl-C in the fifth
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
    monkeypatch.setattr(objects.Study, "path", tmp_path / "tiny.json")
    with pytest.raises(typer.Exit):
        study.measure(tmp_path / "kept")
    assert len(asked) == 5 and not study.path.exists()
    study.measure(tmp_path / "kept")
    assert len(asked) == 11 and asked[4] == asked[5]  # four were there; the fifth began anew
    assert asked[0] == ("a chair", "SDS", 0, 7, 4, 0.5)
    assert asked[-1] == ("a red duck", "DSD", 2, 7, 1, 0.5)
    assert [(shape[:2], prompt) for shape, _, prompt in judged] == [
        ((2, 16), "a chair"),
        ((3, 16), "a chair"),
        ((2, 16), "a red duck"),
        ((3, 16), "a red duck"),
    ]
    with Image.open(study.picture) as picture:
        assert picture.format == "PNG" and picture.width > picture.height
    table = study.load()
    assert table["about"]["command"] == "python -m dsd_lab.course.tiny"
    assert [(row["prompt"], row["method"], row["refresh"]) for row in table["rows"]][:2] == [
        ("a chair", "SDS", 4),
        ("a chair", "DSD", 1),
    ]
    assert all(row["distance"] == [0.2, 0.1, 0.3] and row["seconds"] >= 0 for row in table["rows"])


def test_a_part_of_a_table_before_there_is_one_and_beside_another(
    small_world, tmp_path, monkeypatch
):
    monkeypatch.setattr(family.Table, "path", property(lambda _: tmp_path / "table.json"))
    prior, table = ImageSet(small_world), family.Table("table")
    grids = {
        name: Grid({name: method}, ["warm"], [0, 1], [Setting(steps=2)])
        for name, method in (("SDS", SDS()), ("DSD", DSD()))
    }
    for name, found in (("DSD", ["DSD"]), ("SDS", ["DSD", "SDS"])):
        family.run(table, "made here", prior, grids, [], tmp_path, [name])
        assert sorted(family.load(table).keys() - {"about"}) == found
    assert {row.label for row in family.load(table)["DSD"].values()} == {"DDIM", "DSD"}

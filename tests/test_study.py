import itertools
import json
import os
import shutil
import signal

import pytest
import torch
from filelock import FileLock
from typer.testing import CliRunner

from dsd_lab import (
    ASD,
    DDS,
    DSD,
    SDS,
    VSD,
    DSDStar,
    GaussianMixture,
    ImageSet,
    cli,
    compare,
    metrics,
)
from dsd_lab.metrics import Estimate, evaluate, stratified
from dsd_lab.studies import Grid, Setting, ranking, read, study, summarise
from dsd_lab.studies.figures import figures
from dsd_lab.studies.grid import plan
from dsd_lab.studies.store import Content, Store
from dsd_lab.studies.summary import _ratio
from dsd_lab.viz.pictures import png
from dsd_lab.viz.plane import Place, place_labels, plane
from dsd_lab.viz.style import COLOURS, FAMILY, INK, MARKERS, looks_of, text_width

GRID = Grid(
    {"SDS": SDS(), "VSD": VSD(), "DSD*": DSDStar()},
    ["warm", "cold"],
    [0, 3, 5],
    [Setting(cfg=2.0, steps=4), {"cfg": 3.0, "steps": 3, "lr": 0.1}],
    ddim_steps=5,
)


@pytest.fixture
def prior(small_world):
    return ImageSet(small_world)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished study of GRID on a world like `small_world`: its folder."""
    folder = tmp_path_factory.mktemp("whole")
    study(ImageSet(world()), GRID, folder, progress=False)
    return folder


def world():
    from dsd_lab.worlds.pictures import PictureWorld, Source

    pixels = torch.randint(
        0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(7), dtype=torch.uint8
    )
    return PictureWorld(
        "small",
        ("warm", "cold"),
        pixels,
        torch.tensor([0] * 12 + [1] * 8),
        (Source("made here", "noise", "Apache-2.0"),) * 20,
        {},
        "A credit of $1.",
    )


def go(prior, folder, grid=GRID):
    return study(prior, grid, folder, progress=False)


def without_seconds(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


# ---- what is run ---------------------------------------------------------------------------------


def test_the_plan_puts_each_ddim_before_what_is_compared_with_it(prior):
    cells = plan(prior, GRID)
    assert [(c.name, c.prompt, c.settings["cfg"]) for c in cells[:8]] == [
        ("DDIM", "warm", 2.0),
        ("SDS", "warm", 2.0),
        ("VSD", "warm", 2.0),
        ("DSD*", "warm", 2.0),
        ("DDIM", "warm", 3.0),
        ("SDS", "warm", 3.0),
        ("VSD", "warm", 3.0),
        ("DSD*", "warm", 3.0),
    ]
    assert len(cells) == 16
    for cell in cells:
        if cell.reference is not None:
            ddim_cell = cells[cell.reference]
            assert (ddim_cell.name, ddim_cell.prompt, ddim_cell.settings["cfg"]) == (
                "DDIM",
                cell.prompt,
                cell.settings["cfg"],
            )
    assert cells[1].settings == {
        "cfg": 2.0,
        "steps": 4,
        "lr": 0.05,
        "start": "zeros",
        "optimizer": "adam",
        "refresh": 1,
    }
    assert cells[3].settings["steps"] == 5  # DSD* takes DDIM's steps
    assert cells[5].settings["lr"] == 0.1


def test_settings_that_come_to_the_same_are_run_once(prior):
    settings = [Setting(), Setting(cfg=4), Setting(lr=0.05)]
    cells = plan(prior, Grid({"a": SDS(cfg=4.0), "star": DSDStar()}, ["warm"], [0], settings))
    assert [(c.name, c.settings["cfg"]) for c in cells] == [
        ("DDIM", 4.0),
        ("a", 4.0),
        ("DDIM", 7.5),
        ("star", 7.5),
        ("star", 4.0),
        ("star", 7.5),
    ]
    assert [c.settings["lr"] for c in cells if c.name == "star"] == [1.0, 1.0, 0.05]


def test_rows_are_those_of_compare(prior, tmp_path):
    methods = {"SDS": SDS(cfg=3.0), "VSD": VSD(cfg=3.0), "DSD*": DSDStar(cfg=3.0)}
    want = compare(prior, ["cold"], methods, [1, 2, 4, 8], 6, cfg=3.0, ddim_steps=10)["cold"]
    done = go(prior, tmp_path, Grid(methods, ["cold"], [1, 2, 4, 8], [Setting(steps=6)], 10))
    assert done.finished
    assert [row["seed"] for row in done.rows] == [1, 2, 4, 8] * 4
    pictures = prior.world.images("cold")
    for cell, rows in zip(done.cells, [done.rows[k : k + 4] for k in range(0, 16, 4)], strict=True):
        result, images = want[cell.method], cell.images
        assert torch.equal(images, (result.images * 255).round() / 255)
        assert {row["evaluations"] for row in rows} == {result.evaluations}
        distance, nearest = metrics.distances(images, pictures).min(1)
        assert [row["nearest"] for row in rows] == nearest.tolist()
        assert [row["distance"] for row in rows] == distance.tolist()
        if cell.method != "DDIM":
            agreement = [row["agreement"] for row in rows]
            assert sum(agreement) / 4 == pytest.approx(result.report.agreement.value, abs=2 / 255)
            assert sum(row["same_mode"] for row in rows) / 4 == result.report.same_mode
            assert rows[0]["settings"] == result.settings
        else:
            assert {(row["agreement"], row["same_mode"]) for row in rows} == {(None, None)}
    assert {row["same_mode"] for row in done.rows if row["method"] == "DSD*"} == {True}


def test_the_header_says_what_made_it(whole):
    header = json.loads((whole / "study.json").read_text())
    identity = header["identity"]
    assert identity["methods"]["SDS"] == {
        "class": "SDS", "cfg": 7.5, "repulsion": 0.0, "t_min": 0.02, "t_max": 0.98
    }  # fmt: skip
    assert identity["prompts"] == ["warm", "cold"]
    assert (identity["seeds"], identity["ddim_steps"]) == ([0, 3, 5], 5)
    assert header["about"]["packages"]["torch"] == torch.__version__
    assert header["about"]["cells"] == 16


def test_the_table_has_a_row_a_seed(whole):
    lines = (whole / "table.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == read(whole).rows
    assert len(lines) == 48


# ---- killed and resumed --------------------------------------------------------------------------


def cells_of(folder):
    return sorted((folder / "cells").glob("*.safetensors"))


@pytest.mark.parametrize("kept", [[], [0], [0, 1, 2], [3, 7, 11, 15], list(range(16))])
def test_whatever_cells_are_there_the_others_are_added(prior, whole, tmp_path, kept):
    folder = tmp_path / "killed"
    shutil.copytree(whole, folder)
    (folder / "table.jsonl").unlink()
    for k, file in enumerate(cells_of(folder)):
        if k not in kept:
            file.unlink()
    done = go(prior, folder)
    assert done.finished
    assert without_seconds(done.rows) == without_seconds(read(whole).rows)
    assert prior.evaluations == 3 * sum(
        cell.evaluations for k, cell in enumerate(done.cells) if k not in kept
    )
    for k in kept:
        assert done.rows[3 * k] == read(whole).rows[3 * k]  # seconds and all
    assert (folder / "table.jsonl").is_file()


def test_a_kill_at_any_write_loses_no_more_than_the_cell_under_way(
    prior, whole, tmp_path, monkeypatch
):
    class KilledError(Exception):
        pass

    def dying(self, k, content):
        if k == 5:
            (self.folder / "cells" / ".00005.1.safetensors").write_bytes(b"half")
            raise KilledError
        save(self, k, content)

    save = Store.save
    monkeypatch.setattr(Store, "save", dying)
    with pytest.raises(KilledError):
        go(prior, tmp_path)
    assert len(read(tmp_path).cells) == 5
    monkeypatch.undo()
    assert without_seconds(go(prior, tmp_path).rows) == without_seconds(read(whole).rows)


def test_ctrl_c_keeps_the_finished_cells(prior, whole, tmp_path, monkeypatch):
    before = VSD.gradient

    def gradient(self, state, x, step, draws):
        os.kill(os.getpid(), signal.SIGINT)
        return before(self, state, x, step, draws)

    monkeypatch.setattr(VSD, "gradient", gradient)
    stopped = go(prior, tmp_path)
    assert not stopped.finished
    assert [cell.method for cell in stopped.cells] == ["DDIM", "SDS"]
    assert {s.label for s in summarise(tmp_path)} == {"DDIM", "SDS"}
    assert "pictures-warm" in figures(tmp_path)
    monkeypatch.undo()
    assert without_seconds(go(prior, tmp_path).rows) == without_seconds(read(whole).rows)


def test_pictures_that_lie_channels_last_are_kept(tmp_path):
    """As an autoencoder's decoder leaves them."""
    pictures = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    store = Store.begin(tmp_path, {"of": "pictures"})
    store.save(0, Content({}, {"images": pictures}))
    assert torch.equal(store.load(0).tensors["images"], pictures)


def test_lost_or_damaged_pictures_are_made_again(prior, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    files = cells_of(tmp_path / "a")
    files[1].unlink()
    for file, size in ((files[6], 100), (files[7], 3), (files[8], 0)):
        file.write_bytes(file.read_bytes()[:size])
    assert len(read(tmp_path / "a").cells) == 9  # a DDIM is lost, and with it what it is for
    done = go(prior, tmp_path / "a")
    assert without_seconds(done.rows) == without_seconds(read(whole).rows)
    assert prior.evaluations == 3 * sum(done.cells[k].evaluations for k in (1, 6, 7, 8))


def test_the_pictures_of_another_study_are_not_taken_over(prior, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    (tmp_path / "a" / "study.json").unlink()
    (tmp_path / "a" / "table.jsonl").unlink()
    other = Grid(
        {**GRID.methods, "VSD": VSD(width=0.5)}, GRID.prompts, GRID.seeds, GRID.settings, 5
    )
    done = go(prior, tmp_path / "a", other)
    assert prior.evaluations == sum(row["evaluations"] for row in done.rows)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "begun with version 1, not 3"),
        ({"dsd_lab": "0.0.1"}, 'begun with dsd_lab "0.0.1", not "0.1.0"'),
        ({"table": "other"}, 'begun with table "other"'),
        ({"seeds": [0, 1]}, r"begun with seeds \[0, 1\], not \[0, 3, 5\]"),
        ({"prior": {"prior": "small", "data": "0"}}, "begun with prior"),
        (
            {"methods": {"SDS": {"class": "SDS", "cfg": 3.0}}},
            r'begun with methods {"SDS": {"class": "SDS", "cfg": 3.0}}, not {"SDS"',
        ),
    ],
)
def test_another_study_is_refused_and_left_alone(prior, whole, tmp_path, change, message):
    shutil.copytree(whole, tmp_path / "a")
    file = tmp_path / "a" / "study.json"
    header = json.loads(file.read_text())
    file.write_text(json.dumps(header | {"identity": header["identity"] | change}))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        go(prior, tmp_path / "a")
    assert file.read_bytes() == before
    assert prior.evaluations == 0


def test_what_is_no_study_is_refused_and_left_alone(prior, tmp_path):
    for content in ("a poem", "{}", "[1]", '{"identity": '):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(ValueError, match="give another folder"):
            go(prior, tmp_path)
        assert (tmp_path / "study.json").read_text() == content
    (tmp_path / "study.json").unlink()
    (tmp_path / "table.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="holds a table.jsonl of another version"):
        go(prior, tmp_path)


def test_a_folder_that_is_being_written_to_is_refused(prior, tmp_path):
    go(prior, tmp_path, Grid({"SDS": SDS()}, ["warm"], [0], [Setting(steps=1)], 2))
    with FileLock(tmp_path / "cells" / ".lock"):
        with pytest.raises(ValueError, match="being written to by another study"):
            go(prior, tmp_path, Grid({"SDS": SDS()}, ["warm"], [0], [Setting(steps=1)], 2))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"methods": {}}, ValueError, "methods is empty"),
        ({"methods": [SDS()]}, TypeError, "methods must be a mapping"),
        ({"methods": {"DDIM": SDS()}}, ValueError, '"DDIM" names the reference'),
        ({"methods": {"SDS": "sds"}}, TypeError, "SDS must be a method object such as dsd_lab.DSD"),
        (
            {"methods": {"edit": DDS()}},
            ValueError,
            "edit cannot be studied: DDS edits a given picture",
        ),
        ({"prompts": "warm"}, TypeError, "prompts must be a list"),
        ({"prompts": ["wram"]}, ValueError, 'unknown prompt "wram"; did you mean "warm"'),
        ({"seeds": [1, 1]}, ValueError, "the seeds repeat"),
        ({"seeds": []}, ValueError, "seeds is empty"),
        ({"settings": []}, ValueError, "settings is empty"),
        (
            {"settings": [{"guidance": 3}]},
            ValueError,
            'unknown setting "guidance"; allowed: cfg, steps, lr, start, optimizer',
        ),
        ({"settings": [{"steps": 0}]}, ValueError, "steps must be an int of at least 1"),
        ({"settings": [{"lr": -1}]}, ValueError, "lr must be positive"),
        ({"settings": [{"start": "noise"}]}, ValueError, 'unknown start "noise"'),
        ({"settings": [{"start": torch.zeros(1)}]}, TypeError, "start is a name"),
        ({"settings": [{"cfg": float("nan")}]}, ValueError, "cfg must be finite"),
        ({"ddim_steps": 5000}, ValueError, "5000"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(prior, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        go(prior, tmp_path / "new", Grid(**{**vars(GRID), **change}))
    assert prior.evaluations == 0
    assert not (tmp_path / "new").exists()


def test_points_are_refused_and_an_empty_folder_is_no_study(tmp_path):
    with pytest.raises(TypeError, match="prior of pictures"):
        go(GaussianMixture({"warm": [[0.0, 0.0]]}), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no study in"):
        summarise(tmp_path)


# ---- summed up -----------------------------------------------------------------------------------


def test_the_summary_of_one_prompt_is_evaluates(prior, tmp_path):
    done = go(
        prior,
        tmp_path,
        Grid(
            {"SDS": SDS(), "DSD": DSD()},
            ["warm"],
            range(6),
            [Setting(cfg=3.0, steps=30, lr=0.3)],
            20,
        ),
    )
    images = {cell.method: cell.images for cell in done.cells}
    for s in summarise(tmp_path):
        want = evaluate(images[s.method], prior, "warm", images["DDIM"])
        assert s.modes.value == want.modes
        assert s.nearest.value == len(
            {row["nearest"] for row in done.rows if row["method"] == s.method}
        )
        assert s.even == pytest.approx(want.modes_even)
        assert s.outside.value == pytest.approx(want.outside)
        assert tuple(s.distance) == pytest.approx(tuple(want.distance), rel=1e-12, abs=1e-15)
        assert tuple(s.pairwise) == pytest.approx(tuple(want.pairwise), rel=1e-9)
        assert tuple(s.vendi) == pytest.approx(
            tuple(metrics.vendi_score(images[s.method])), rel=1e-9
        )
        if s.method != "DDIM":
            assert tuple(s.agreement) == pytest.approx(tuple(want.agreement), rel=1e-12, abs=1e-15)
            assert s.same_mode.value == pytest.approx(want.same_mode)
        assert s.seconds > 0


def test_the_summary_of_several_prompts_is_their_mean(prior, whole):
    at = {(s.method, s.settings["cfg"]): s for s in summarise(whole)}
    assert len(at) == 8
    cells = {(c.method, c.prompt, c.settings["cfg"]): c.images for c in read(whole).cells}
    for (method, cfg), s in at.items():
        reports = [
            evaluate(cells[method, p, cfg], prior, p, cells["DDIM", p, cfg])
            for p in ("warm", "cold")
        ]
        assert (s.prompts, s.seeds) == (2, 3)
        assert s.modes.value == pytest.approx(sum(r.modes for r in reports) / 2)
        for name in ("distance", "pairwise"):
            a, b = (getattr(r, name) for r in reports)
            got = getattr(s, name)
            assert got.value == pytest.approx((a.value + b.value) / 2, rel=1e-12)
            assert got.high - got.value == pytest.approx(
                ((a.high - a.value) ** 2 + (b.high - b.value) ** 2) ** 0.5 / 2, rel=1e-9
            )
        dd = sum(evaluate(cells["DDIM", p, cfg], prior, p).modes for p in ("warm", "cold"))
        assert s.relative.value == pytest.approx(sum(r.modes for r in reports) / dd)
    star = at["DSD*", 2.0]
    assert tuple(star.relative) == (1.0, 1.0, 1.0)  # the seeds of both are left out together


def test_stratified_by_hand():
    got = stratified([Estimate(2.0, 1.7, 2.4), Estimate(4.0, 3.6, 4.3)])
    assert tuple(got) == pytest.approx((3.0, 3 - 0.25, 3 + 0.25))
    assert stratified([Estimate(0.1, -1.0, 1.5)], ceiling=1.0) == (0.1, 0.0, 1.0)


def test_the_ranking_is_by_modes_then_distance(whole):
    summaries = summarise(whole)
    order = [(-s.modes.value, s.distance.value) for s in summaries]
    assert order == sorted(order)
    lines = ranking(summaries).split("\n")
    assert len(lines) == 9
    assert len({len(line) for line in lines}) == 1
    assert {s.label for s in summaries} == {
        "DDIM, cfg 2",
        "DDIM, cfg 3",
        "SDS, cfg 2, steps 4, lr 0.05",
        "SDS, cfg 3, steps 3, lr 0.1",
        "VSD, cfg 2, steps 4, lr 0.05",
        "VSD, cfg 3, steps 3, lr 0.1",
        "DSD*, cfg 2, lr 1",
        "DSD*, cfg 3, lr 0.1",
    }
    for s, line in zip(summaries, lines[1:], strict=True):
        assert s.label in line
        assert str(s.distance) in line


def test_two_seeds_have_no_interval_and_one_no_pair(prior, tmp_path):
    for n in (1, 2):
        go(
            prior,
            tmp_path / str(n),
            Grid({"SDS": SDS()}, ["warm"], range(n), [Setting(steps=2)], 5),
        )
        for s in summarise(tmp_path / str(n)):
            assert s.distance.low != s.distance.low
            assert (s.pairwise is None) == (n == 1)
        assert "nan" not in ranking(summarise(tmp_path / str(n)))
        for figure in figures(tmp_path / str(n)).values():
            assert png(figure)


class Unknown(ImageSet):
    """A prior whose pictures a study must not look at."""

    def __new__(cls, *args):
        from dsd_lab.priors import Prior

        exact = ImageSet(*args)

        class Hidden(Prior):
            name = "hidden"
            resolve, _outputs, decode = exact.resolve, exact._outputs, exact.decode

        return Hidden(exact.shape, exact.schedule)


def test_a_prior_without_known_pictures(small_world, tmp_path):
    prior = Unknown(small_world)
    done = go(
        prior,
        tmp_path,
        Grid({"SDS": SDS(), "ASD": ASD()}, ["warm", "cold"], [0, 1, 2], [Setting(steps=3)], 5),
    )
    assert {(row["nearest"], row["distance"], row["same_mode"]) for row in done.rows} == {
        (None, None, None)
    }
    summaries = summarise(tmp_path)
    pairwise = [s.pairwise.value for s in summaries]
    assert pairwise == sorted(pairwise, reverse=True)
    assert all(s.modes is s.distance is s.relative is None for s in summaries)
    assert ranking(summaries).count("\n") == 3
    assert set(figures(tmp_path)) == {"plane", "pictures-warm", "pictures-cold"}


# ---- figures -------------------------------------------------------------------------------------


def test_the_figures_of_a_study(whole):
    made = figures(whole)
    assert set(made) == {"plane", "plane-pairwise", "pictures-warm", "pictures-cold"}
    for figure in made.values():
        assert png(figure).startswith(b"\x89PNG")
    texts = [t.get_text() for t in made["plane"].axes[0].texts]
    assert set(texts) == {s.label for s in summarise(whole)}
    assert r"A credit of \$1." in [t.get_text() for t in made["plane"].texts]


def test_error_bars_and_places_are_the_numbers():
    nan = float("nan")
    figure = plane(
        [
            Place("SDS", Estimate(1.0, 0.5, 2.0), Estimate(3.0, 2.0, 3.5)),
            Place("a $x$", Estimate(2.0, 2.0, 2.0), Estimate(1.0, nan, nan)),
        ],
        "x",
        "y",
    )
    axes = figure.axes[0]
    bars = [[s.tolist() for s in c.get_segments()] for c in axes.collections]
    assert bars == [
        [[[0.5, 3.0], [2.0, 3.0]]],
        [[[1.0, 2.0], [1.0, 3.5]]],
        [[[2.0, 1.0], [2.0, 1.0]]],
    ]
    assert png(figure)
    with pytest.raises(ValueError, match="nothing to show"):
        plane([], "x", "y")


def test_labels_do_not_overlap_even_in_a_crowd():
    g = torch.Generator().manual_seed(2)
    crowd = torch.rand(9, 2, generator=g) * 0.5 + torch.tensor([6.5, 4.2])
    rest = torch.rand(9, 2, generator=g) * torch.tensor([7.35, 4.85])
    points = [tuple(p) for p in torch.cat([crowd, rest]).tolist()]
    names = ["ConsistentODE abstract, cfg 7.5", "DSD", "SDI cached"] * 6
    boxes = place_labels(points, [text_width(name, 9) for name in names], [], (7.35, 4.85))
    for i, a in enumerate(boxes):
        assert min(a[0], a[1], 7.35 - a[2], 4.85 - a[3]) >= -1e-9
        assert not any(a[0] < x < a[2] and a[1] < y < a[3] for x, y in points)
        for b in boxes[:i]:
            assert (
                min(a[2], b[2]) - max(a[0], b[0]) < 1e-9 or min(a[3], b[3]) - max(a[1], b[1]) < 1e-9
            )


def test_labels_side_by_side_do_not_run_into_each_other():
    """As in lesson 12, where a row of places lies at distance 0."""
    row = {"nearest dog": 0.256, "inversion": 0.264, "SDEdit, t = 300": 0.27, "SDEdit": 0.297}
    places = [Place(k, Estimate(x, x - 0.03, x + 0.03), Estimate(0, 0, 0)) for k, x in row.items()]
    places.append(Place("PDS", Estimate(0.178, 0.165, 0.192), Estimate(0.09, 0.07, 0.11)))
    figure = plane(places, "x", "y")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for a, b in itertools.combinations(boxes, 2):
        if min(a.y1, b.y1) > max(a.y0, b.y0):
            assert max(a.x0, b.x0) - min(a.x1, b.x1) > 0.05 * figure.dpi


def test_a_method_looks_the_same_whoever_is_shown_beside_it():
    assert (
        looks_of(["SDS", "mine"])["SDS"]
        == looks_of(["DSD", "SDS", "DDIM"])["SDS"]
        == (COLOURS[0], MARKERS[1], False)
    )
    assert looks_of(["SDS variant"])["SDS variant"] == (COLOURS[0], MARKERS[1], True)
    assert looks_of(["DSD, 10 nodes"])["DSD, 10 nodes"] == (COLOURS[1], MARKERS[2], True)
    assert looks_of(["DDIM"])["DDIM"] == (INK, MARKERS[0], False)
    looks = looks_of(["DDIM", "SDS", "DSD", "SDI cached", "VSD network", "mine"])
    assert len(set(looks.values())) == 6
    assert len(COLOURS) + 1 == len(MARKERS) == len(FAMILY) == len(set(COLOURS)) + 1


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def command(small_world, tmp_path, monkeypatch):
    """`dsd-lab study` on the small world: takes options, returns click's result and the prior."""
    prior = ImageSet(small_world)
    monkeypatch.setattr("dsd_lab.cli.load_prior", lambda name, size: prior)

    def go(*options):
        fixed = ["--prompt", "warm", "--seeds", "3", "--steps", "3", "--out", str(tmp_path / "out")]
        return CliRunner().invoke(cli.app, ["study", *fixed, *options])

    return go, prior


@pytest.mark.slow
def test_the_command_writes_all_and_goes_on(command, tmp_path):
    go, prior = command
    done = go(
        "--method", "sds", "--method", "dsd-star", "--cfg", "2", "--cfg", "3", "--prompt", "cold"
    )
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "cells",
        "pictures-cold.png",
        "pictures-warm.png",
        "plane-pairwise.png",
        "plane.png",
        "ranking.txt",
        "study.json",
        "table.jsonl",
    ]
    assert (out / "ranking.txt").read_text().rstrip("\n") == ranking(summarise(out))
    assert len(read(out).rows) == 2 * 2 * 3 * 3
    table, before = (out / "table.jsonl").read_bytes(), prior.evaluations
    assert (
        go(
            "--method",
            "sds",
            "--method",
            "dsd-star",
            "--cfg",
            "2",
            "--cfg",
            "3",
            "--prompt",
            "cold",
        ).exit_code
        == 0
    )
    assert prior.evaluations == before
    assert (out / "table.jsonl").read_bytes() == table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "dds"], "DDS cannot be studied: DDS edits a given picture"),
        (["--method", "dsdd"], 'unknown method "dsdd"; did you mean "dsd"'),
        (["--steps", "0"], "steps must be an int"),
        (["--cfg", "nan"], "cfg must be finite"),
    ],
)
def test_the_command_says_what_is_wrong(command, tmp_path, options, message):
    done = command[0](*options)
    assert isinstance(done.exception, ValueError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_every_method_that_makes_pictures_can_be_studied(prior, tmp_path):
    editing = ("dds", "pds")
    methods = dict(cli.make_method(name, 2.0) for name in cli.METHOD_NAMES if name not in editing)
    done = go(prior, tmp_path, Grid(methods, ["warm"], [0, 1, 2], [Setting(steps=3)], 5))
    assert done.finished
    steps = {name: 5 if isinstance(m, DSDStar) else 3 for name, m in methods.items()}
    assert {row["method"]: row["evaluations"] for row in done.rows if row["method"] != "DDIM"} == {
        name: m.total_evaluations(prior, steps[name]) for name, m in methods.items()
    }


class Modes:
    """Of a method's samples the modes that they reached, one a seed."""

    def __init__(self, mode):
        self.mode = mode

    def __len__(self):
        return len(self.mode)


def test_the_interval_of_a_share_of_modes_by_hand():
    """Modes 0 0 1 2 against 0 1 2 3: 3/4; each seed left out leaves 1, 1, 2/3, 2/3, whose squares
    about their mean add up to 1/9, times (n - 1) / n = 3/4.
    """
    ours, theirs = (Modes(torch.tensor(mode)) for mode in ([0, 0, 1, 2], [0, 1, 2, 3]))
    value, low, high = _ratio([(ours, theirs)])
    error = 1.96 * (1 / 12) ** 0.5
    assert (value, low, high) == pytest.approx((0.75, 0.75 - error, 0.75 + error))

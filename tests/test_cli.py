import base64
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient.exceptions import CellExecutionError
from PIL import Image
from pipelines import make_pipe
from typer.testing import CliRunner

from dsd_lab import DSD, SDS, DSDStar, ImageSet, Scene, checkpoint, cli, compare, ddim, load_prior
from dsd_lab.course.execute import execute
from dsd_lab.files import (
    LONGEST,
    file_names,
    prepare_folder,
    read_json,
    slug,
    write_file,
    write_json,
)
from dsd_lab.metrics.features import MissingWeights
from dsd_lab.scene import GridField
from dsd_lab.studies.report import deviations, table_text, write_report

METHODS = ["--method", "sds", "--method", "dsd", "--method", "dsd-star"]


@pytest.fixture
def pictures(tmp_path):
    """A folder of 5 + 4 pictures of 8x8 under two labels."""
    g = torch.Generator().manual_seed(5)
    for label, count in (("hot & cold", 5), ("wet", 4)):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for k in range(count):
            pixels = torch.randint(0, 256, (8, 8, 3), generator=g, dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(tmp_path / "mine" / label / f"{k}.png")
    return tmp_path / "mine"


@pytest.fixture
def run(pictures, tmp_path):
    """`dsd-lab run` on the folder: takes further options, returns click's result."""

    def go(*options, prompts=("wet",), methods=METHODS):
        wanted = [part for prompt in prompts for part in ("--prompt", prompt)]
        return CliRunner().invoke(
            cli.app,
            [
                "run",
                "--prior",
                str(pictures),
                "--size",
                "8",
                "--seeds",
                "3",
                "--steps",
                "12",
                "--out",
                str(tmp_path / "out"),
                *wanted,
                *methods,
                *options,
            ],
        )

    return go


def main(monkeypatch, capsys, *words):
    """(exit status, stdout, stderr) of the command."""
    monkeypatch.setattr(sys, "argv", ["dsd-lab", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


# ---- run -----------------------------------------------------------------------------------------


def test_run_writes_the_numbers_of_compare(run, pictures, tmp_path):
    done = run("--cfg", "3")
    assert done.exit_code == 0, done.output
    got = json.loads((tmp_path / "out" / "results.json").read_text())
    want = compare(
        load_prior(pictures, 8),
        ["wet"],
        {"SDS": SDS(cfg=3.0), "DSD": DSD(cfg=3.0), "DSD*": DSDStar(cfg=3.0)},
        range(3),
        12,
        cfg=3.0,
    )["wet"]
    assert list(got["results"]) == ["wet"]
    assert list(got["results"]["wet"]) == ["DDIM", "SDS", "DSD", "DSD*"]
    for name, result in want.items():
        numbers = got["results"]["wet"][name]
        for key, value in vars(result.report).items():
            assert numbers[key] == (value._asdict() if hasattr(value, "_asdict") else value), (
                name,
                key,
            )
        assert numbers["evaluations"] == result.evaluations
        assert numbers["settings"] == result.settings
        assert numbers["finished"] is True
        assert f"\n{name} " in done.stdout
        assert str(result.report.distance) in done.stdout
    about = got["about"]
    assert (about["seeds"], about["steps"], about["size"], about["cfg"]) == ([0, 1, 2], 12, 8, 3.0)
    assert about["torch"] == torch.__version__
    assert done.stdout.rstrip().endswith(str(tmp_path / "out" / "report.html"))


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.heads, self.tag = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        self.links += [
            value for key, value in attrs if key in ("src", "href", "srcset", "data", "action")
        ]

    def handle_data(self, data):
        if self.tag == "h2":
            self.heads.append(data)


def test_the_report_needs_no_other_file(run, tmp_path):
    assert run(prompts=("hot & cold", "wet")).exit_code == 0
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "hot-cold.png",
        "report.html",
        "results.json",
        "wet.png",
    ]
    page = (out / "report.html").read_text()
    parsed = Links()
    parsed.feed(page)
    assert "".join(parsed.heads).startswith("hot & cold")
    assert len(parsed.links) == 2
    for link, name in zip(parsed.links, ("hot-cold.png", "wet.png"), strict=True):
        assert link.startswith("data:image/png;base64,")
        assert base64.b64decode(link.split(",")[1]) == (out / name).read_bytes()
    assert not re.search(r"https?://|@import|url\(", page.replace("base64", ""))
    assert "hot &amp; cold" in page
    assert "Pictures: folder mine." in page
    assert page.count("<tr>") == 2 * 5
    assert "optimizer plain" in page
    with Image.open(out / "wet.png") as grid:
        assert grid.width > 3 * 88  # three pictures of 0.8 inches at 110 dpi beside their labels
        assert grid.height > 4 * 88


def test_a_prompt_may_be_repeated_and_spelt_otherwise(run, tmp_path):
    assert run(prompts=("the  WET", "wet"), methods=["--method", "sds"]).exit_code == 0
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["results"]) == ["wet"]


def test_settings_given_hold_for_all_methods(run, tmp_path):
    assert run("--start", "x0hat", "--lr", "0.5", "--refresh", "2", "--seeds", "4,9").exit_code == 0
    got = json.loads((tmp_path / "out" / "results.json").read_text())
    for name in ("SDS", "DSD"):
        settings = got["results"]["wet"][name]["settings"]
        assert (settings["start"], settings["lr"], settings["refresh"], settings["steps"]) == (
            "x0hat",
            0.5,
            2,
            12,
        )
    assert got["about"]["seeds"] == [4, 9]


def interrupt_at(monkeypatch, step):
    """Ctrl-C while SDS takes this step."""
    before = SDS.gradient

    def gradient(self, state, x, index, draws):
        if index == step:
            os.kill(os.getpid(), signal.SIGINT)
        return before(self, state, x, index, draws)

    monkeypatch.setattr(SDS, "gradient", gradient)


def test_ctrl_c_in_a_run_writes_what_there_is(run, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 5)
    done = run(prompts=("hot & cold", "wet"))
    assert done.exit_code == 0
    assert "stopped early, in SDS: the report holds what there is" in done.stdout
    got = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert {
        prompt: {name: r["finished"] for name, r in rows.items()} for prompt, rows in got.items()
    } == {prompt: {"DDIM": True, "SDS": False} for prompt in ("hot & cold", "wet")}
    assert got["hot & cold"]["SDS"]["evaluations"] == 6 * 2  # the step under way is finished
    assert "<td>SDS<span>stopped early</span>" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "hot-cold.png").is_file()


def test_ctrl_c_before_there_is_anything_writes_nothing(run, tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("dsd_lab.tasks.ddim", stopped)
    assert run().exit_code != 0
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "weet"], 'unknown prompt "weet"; did you mean "wet"?'),
        (["--method", "dsdd"], 'unknown method "dsdd"; did you mean "dsd"?'),
        (["--prior", "icon"], 'unknown prior "icon"; did you mean "icons"?'),
        (["--seeds", "many"], 'cannot read the seeds "many"'),
        (["--size", "4"], "size must be a whole number from 8 to 512"),
        (["--cfg", "nan"], "cfg must be finite"),
        (["--steps", "0"], "steps must be an int of at least 1, got 0"),
        (["--start", "noise"], 'unknown start "noise"; allowed: zeros, x0hat'),
        (["--lr", "-1"], "lr must be positive and finite, got -1.0"),
        (["--refresh", "0"], "refresh must be an int of at least 1, got 0"),
        (
            ["--out", "FILE/below"],
            'cannot write to the folder "FILE/below": Not a directory; choose another with --out',
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    options, message, pictures, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("kept")
    options, message = (
        [part.replace("FILE", str(tmp_path / "file")) for part in words]
        for words in (options, [message])
    )
    given = {
        "--prior": pictures,
        "--prompt": "wet",
        "--seeds": 2,
        "--steps": 4,
        "--size": 8,
        "--out": tmp_path / "out",
        options[0]: options[1],
    }
    status, out, err = main(
        monkeypatch, capsys, "run", *(part for pair in given.items() for part in pair)
    )
    assert status == 2
    line = (
        err.rstrip("\n").split("\r")[-1].removeprefix("\x1b[A").strip()
    )  # after the progress bar, if it came to that
    assert line.startswith(f"dsd-lab: {message[0]}")
    assert "\n" not in line
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").is_dir() or list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes cannot be multiplied"), TypeError("x"), ZeroDivisionError("y")]
)
def test_a_fault_of_the_library_is_not_taken_for_bad_input(error, monkeypatch):
    def fails(*args, **settings):
        raise error

    monkeypatch.setattr(cli, "load_prior", fails)
    monkeypatch.setattr(sys, "argv", ["dsd-lab", "run"])
    with pytest.raises(type(error)) as raised:
        cli.main()
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("8 items at once do not fit"), "8 items at once do not fit"),
        (MemoryError(), "not enough memory; take fewer seeds"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory; take"),
        (torch.OutOfMemoryError("CUDA out of memory."), "not enough memory; take fewer"),
        (MissingWeights("put them there"), "put them there"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_what_a_machine_lacks_is_one_line(error, said, monkeypatch, capsys):
    def fails(*args, **settings):
        raise error

    monkeypatch.setattr(cli, "load_prior", fails)
    status, _, err = main(monkeypatch, capsys, "run")
    assert status == 2 and said in err and len(err.splitlines()) == 1


def test_help_and_no_command(monkeypatch, capsys):
    status, out, _ = main(monkeypatch, capsys, "--help")
    assert status == 0
    assert all(name in out for name in ("run", "lab", "notebooks"))
    status, out, _ = main(monkeypatch, capsys, "run", "--help")
    assert status == 0
    assert "refresh" in out  # colours may stand between the dashes


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [0, 1, 2]),
        ("1", [0]),
        ("3,5,8", [3, 5, 8]),
        ("8,", None),
        ("10-13", [10, 11, 12, 13]),
        ("4-4", [4]),
        ("0", None),
        ("13-10", None),
        ("", None),
        ("-3", None),
        ("1-2-3", None),
        ("1.5", None),
        ("a,b", None),
    ],
)
def test_seeds_are_read(text, seeds):
    if seeds is None:
        with pytest.raises(
            ValueError, match=r"a count \(16\), a list \(3,5,8\) or a range \(10-20\)"
        ):
            cli.parse_seeds(text)
    else:
        assert cli.parse_seeds(text) == seeds


def test_methods_by_name():
    want = {
        "sds": ("SDS", SDS(cfg=3.0)),
        "dsd": ("DSD", DSD(cfg=3.0)),
        "dsd-snap": ("DSD snap", DSD(cfg=3.0, snap=True)),
        "dsd-reference": ("DSD reference", DSD(cfg=3.0, form="reference")),
        "dsd-x0": ("DSD x0", DSD(cfg=3.0, form="x0")),
        "dsd-star": ("DSD*", DSDStar(cfg=3.0)),
    }
    assert set(want) <= set(cli.METHOD_NAMES)
    assert {name: cli.make_method(name, 3.0) for name in want} == want
    made = [cli.make_method(name, 3.0) for name in cli.METHOD_NAMES]
    assert len({label for label, _ in made}) == len(made)
    assert {method.cfg for _, method in made} == {3.0}
    with pytest.raises(
        ValueError, match='unknown method "SDSS"; did you mean "sds".*methods: sds, rfds, rfds-rev'
    ):
        cli.make_method("SDSS", 3.0)


# ---- priors without a world, long prompts, narrow consoles ---------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The folder of a small pipeline, which takes any text."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    make_pipe("pixel").save_pretrained(folder)
    return folder


LONG = " ".join(["red"] * 58)  # 231 letters, 58 of a text encoder's 77 tokens


@pytest.mark.slow
def test_run_on_a_pipelines_folder(pipeline, tmp_path, monkeypatch, capsys):
    words = ["--prior", pipeline, "--method", "sds", "--steps", 3, "--seeds", 3]
    prompts = ["--prompt", "a red cat", "--prompt", LONG]
    out = tmp_path / "out"
    status, text, _ = main(monkeypatch, capsys, "run", *words, *prompts, "--out", out)
    assert status == 0
    assert text.split("\n")[2].split() == ["pairwise", "agreement", "evaluations", "seconds"]
    results = json.loads((out / "results.json").read_text())["results"]
    assert list(results) == ["a red cat", LONG]
    report = results["a red cat"]["SDS"]
    assert report["modes"] is report["distance"] is report["pictures"] is None
    assert 0 < report["agreement"]["value"] < 1
    assert {p.suffix for p in out.iterdir()} == {".json", ".html", ".png"}
    assert len(list(out.iterdir())) == 4
    assert "distinct pictures" not in (out / "report.html").read_text()


@pytest.mark.slow
def test_study_and_prompts_on_a_pipelines_folder(pipeline, tmp_path, monkeypatch, capsys):
    words = ["--prior", pipeline, "--method", "sds", "--steps", 2, "--seeds", 3, "--prompt", LONG]
    status, text, _ = main(monkeypatch, capsys, "study", *words, "--out", tmp_path / "out")
    assert status == 0
    assert "pairwise" in text and "modes" not in text
    names = {p.stem[:12] for p in (tmp_path / "out").glob("*.png")}
    assert names == {"plane", "pictures-red"}
    status, text, _ = main(monkeypatch, capsys, "prompts", "--prior", pipeline)
    assert (status, text) == (0, "tiny takes any text as a prompt\n")


@pytest.mark.slow
def test_a_narrow_console_loses_no_result(pictures, tmp_path):
    (pictures / "wet").rename(pictures / "\u0447\u0430\u0439")
    words = ["--prior", pictures, "--size", 8, "--seeds", 2, "--steps", 2, "--method", "sds"]
    done = subprocess.run(
        [sys.executable, "-m", "dsd_lab.cli", "run", "--out", tmp_path / "out"]
        + ["--prompt", "\u0447\u0430\u0439", *map(str, words)],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u0447" in done.stdout
    assert (tmp_path / "out" / "\u0447\u0430\u0439.png").is_file()


def test_results_are_kept_whatever_happens_to_the_console(run, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise UnicodeEncodeError("ascii", "x", 0, 1, "no such letter")

    monkeypatch.setattr("typer.echo", broken)
    assert run().exit_code != 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["results"]


# ---- compare -------------------------------------------------------------------------------------


@pytest.fixture
def prior(small_world):
    return ImageSet(small_world)


def test_compare_runs_ddim_first_and_counts(prior):
    methods = {"star": DSDStar(cfg=2.0), "plain": SDS(cfg=1.0), "dsd": DSD()}
    results = compare(prior, ["warm"], methods, [4, 7, 9], 10, cfg=2.0, ddim_steps=20)["warm"]
    assert list(results) == ["DDIM", "star", "plain", "dsd"]
    assert results["DDIM"].evaluations == 21 * 2
    for name, method in methods.items():
        begin, step = method.evaluations(prior)
        gradients = 20 if name == "star" else 10
        assert results[name].evaluations == begin + step * gradients, name
        assert results[name].settings["cfg"] == method.cfg
        assert results[name].settings["steps"] == gradients
    assert results["DDIM"].settings == {"steps": 20, "cfg": 2.0}
    assert results["plain"].settings == {
        "start": "zeros",
        "optimizer": "adam",
        "lr": 0.05,
        "steps": 10,
        "cfg": 1.0,
        "refresh": 1,
    }
    path = ddim(prior, prior.noise([4, 7, 9]), prior.condition("warm"), 20, 2.0)
    assert torch.equal(results["DDIM"].images, path.images)
    assert results["DDIM"].report.agreement is None
    assert results["star"].report.agreement.value == pytest.approx(0, abs=1e-5)  # DSD* is DDIM
    assert results["star"].report.same_mode == 1


def test_compare_runs_prompts_in_one_batch_and_tells_them_apart(prior):
    methods = {"SDS": SDS(), "DSD": DSD()}
    both = compare(prior, ["warm", "cold"], methods, [4, 7], 10)
    for prompt in ("warm", "cold"):
        alone = compare(prior, [prompt], methods, [4, 7], 10)[prompt]
        for name in ("DDIM", "SDS", "DSD"):
            torch.testing.assert_close(
                both[prompt][name].images, alone[name].images, rtol=0, atol=1e-3
            )
            assert both[prompt][name].evaluations == alone[name].evaluations
            assert both[prompt][name].report.pictures == len(prior.members(prompt))


def test_compare_shows_its_progress_and_passes_settings_on(prior):
    seen = []
    results = compare(
        prior,
        ["cold"],
        {"SDS": SDS(), "DSD": DSD()},
        [1],
        3,
        lr=0.2,
        optimizer="plain",
        progress=lambda name, run: seen.append((name, run.index)),
    )["cold"]
    assert seen == [("SDS", 1), ("SDS", 2), ("SDS", 3), ("DSD", 1), ("DSD", 2), ("DSD", 3)]
    assert {(r.settings["lr"], r.settings["optimizer"]) for r in list(results.values())[1:]} == {
        (0.2, "plain")
    }


def test_compare_says_what_is_wrong(prior):
    with pytest.raises(ValueError, match='"DDIM" names the reference'):
        compare(prior, ["warm"], {"DDIM": SDS()}, [0])
    with pytest.raises(TypeError, match="seeds must be a sequence of ints"):
        compare(prior, ["warm"], {}, 3)
    with pytest.raises(ValueError, match='unknown prompt "hot"'):
        compare(prior, ["hot"], {}, [0])
    with pytest.raises(TypeError, match="sequence of prompts"):
        compare(prior, "warm", {}, [0])
    with pytest.raises(ValueError, match="repeat"):
        compare(prior, ["warm"], {}, [3, 3])
    with pytest.raises(ValueError, match="lr"):
        compare(prior, ["warm"], {"SDS": SDS()}, [0], lr=-1.0)
    assert prior.evaluations == 0


# ---- files ---------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_file(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_file(path, "\ud800")
    monkeypatch.setattr("os.replace", lambda source, target: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_file(path, "new")
    assert path.read_text() == "old"
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    write_file(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"


def test_prompts_have_files_of_their_own():
    assert slug("A hot  dog!") == "a-hot-dog"
    assert slug("чай") == "чай"
    assert slug("../..") == slug("?") == "prompt"
    assert slug("Cafe\u0301") == slug("Caf\xe9") == "caf\xe9"
    names = file_names(["a b", "a-b", "a-b-2", "?"])
    assert list(names.values()) == ["a-b.png", "a-b-2.png", "a-b-2-2.png", "prompt.png"]


def test_names_of_long_texts_fit_a_file_system_and_stay_apart():
    long = [text * 100 + end for text in ("a word ", "\u0447\u0430\u0439 ") for end in "xy"]
    names = file_names(long).values()
    assert len(set(names)) == 4 and max(len(name.encode()) for name in names) <= LONGEST + 4
    assert [name[:11] for name in names][:2] == ["a-word-a-wo"] * 2


def test_a_home_is_expanded_wherever_something_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare_folder("~/new") == tmp_path / "new"
    assert write_file("~/new/a.txt", "here").read_text() == "here"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]
    scene = Scene(GridField(8))
    assert scene.save("~/scene.safetensors") == tmp_path / "scene.safetensors"
    assert Scene.load("~/scene.safetensors").field.resolution == 8
    checkpoint.save("~/run.safetensors", {"x": torch.ones(2)}, {})
    assert set(checkpoint.load("~/run.safetensors", {})) == {"x"}
    assert write_json("~/a.json", [1]) and read_json("~/a.json", "") == [1]


def test_no_place_in_the_library_expands_a_home_itself():
    """Where nobody knows the home folder, `Path.expanduser` raises; `files.expanded` does not."""
    library = Path(cli.__file__).parent
    texts = {file: file.read_text(encoding="utf-8") for file in library.rglob("*.py")}
    assert [file.name for file, text in texts.items() if "expanduser" in text] == ["files.py"]


def test_the_report_escapes_what_is_not_its_own(prior, tmp_path):
    results = compare(prior, ["warm"], {"<b>$x^2$": SDS()}, [0], 2, ddim_steps=5)["warm"]
    page = write_report(
        tmp_path, {"<i> $1 $2": results}, [0], {"prior": "<p>"}, "a & b"
    ).read_text()
    assert "&lt;i&gt; $1 $2" in page
    assert "&lt;b&gt;$x^2$" in page
    assert "a &amp; b" in page
    assert not re.search("<i>|<b>.x|<p>[^E]", page)


def test_table_and_settings_have_one_line_a_method(prior):
    results = compare(prior, ["warm"], {"SDS": SDS()}, [0, 1], 2, ddim_steps=5)["warm"]
    lines = table_text(results).split("\n")
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split()[-2:] == ["evaluations", "seconds"]
    assert [line.split()[-2] for line in lines[1:]] == ["12", "4"]
    assert deviations(results) == [
        "DDIM: steps 5, cfg 7.5",
        "SDS: start zeros, optimizer adam, lr 0.05, steps 2, cfg 7.5, refresh 1",
    ]


# ---- notebooks -----------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one notebook in the current folder."""
    (tmp_path / "notebooks").mkdir()
    new = nbformat.v4
    cells = [
        new.new_code_cell("from pathlib import Path\nn = 20"),
        new.new_code_cell("n + 1, Path.cwd().name"),
    ]
    path = tmp_path / "notebooks" / "00_start_here.ipynb"
    path.write_text(nbformat.writes(new.new_notebook(cells=cells)))
    monkeypatch.chdir(tmp_path)
    return path


def test_execute_saves_the_outputs_and_nothing_that_changes(course):
    assert 0 < execute(course) < 60
    notebook = nbformat.read(course, as_version=4)
    assert [cell.execution_count for cell in notebook.cells] == [1, 2]
    assert notebook.cells[1].outputs[0].data["text/plain"] == "(21, 'notebooks')"
    assert [cell.metadata for cell in notebook.cells] == [{}, {}]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    text = course.read_text()
    assert text.endswith("}\n")
    assert [p.name for p in course.parent.iterdir()] == [course.name]


def test_execute_leaves_a_failing_notebook_as_it_was(course):
    notebook = nbformat.read(course, as_version=4)
    notebook.cells[1].source = "n / 0"
    course.write_text(nbformat.writes(notebook))
    before = course.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(course)
    assert course.read_bytes() == before
    assert [p.name for p in course.parent.iterdir()] == [course.name]


def test_notebooks_are_executed_by_name_or_all(course, monkeypatch, capsys):
    (course.parent / "01_next.ipynb").write_text("{}")
    done = []
    monkeypatch.setattr(
        "dsd_lab.course.execute.execute", lambda path: done.append(path.name) or 2.4
    )
    assert main(monkeypatch, capsys, "notebooks")[:2] == (
        0,
        "00_start_here.ipynb: 2 s\n01_next.ipynb: 2 s\n",
    )
    assert main(monkeypatch, capsys, "notebooks", "notebooks/01_next.ipynb")[0] == 0
    assert done == ["00_start_here.ipynb", "01_next.ipynb", "01_next.ipynb"]


def test_an_unknown_notebook_runs_none(course, monkeypatch, capsys):
    monkeypatch.setattr("dsd_lab.course.execute.execute", lambda path: pytest.fail("executed"))
    status, _, err = main(monkeypatch, capsys, "notebooks", "00_start_here.ipynb", "07_no.ipynb")
    assert (status, err) == (
        2,
        "dsd-lab: no notebook 07_no.ipynb; there are: 00_start_here.ipynb\n",
    )


def test_a_failing_notebook_is_named(course, monkeypatch, capsys):
    def failing(path):
        raise CellExecutionError("the traceback", "ValueError", "no")

    monkeypatch.setattr("dsd_lab.course.execute.execute", failing)
    status, _, err = main(monkeypatch, capsys, "notebooks")
    assert status == 1
    assert "the traceback" in err
    assert err.endswith("00_start_here.ipynb failed and is left as it was\n")


def test_no_course_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "a" / "b" / "cli.py"))
    status, _, err = main(monkeypatch, capsys, "lab")
    assert status == 2
    assert err.startswith("dsd-lab: no notebooks found: run this in a clone of the project")


# ---- python -m -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        ("bench", ["picture"], 'unknown part "picture"; did you mean "pictures"'),
        ("course.family_mini", ["--only", "famly"], 'unknown study "famly"; did you mean "family"'),
        ("course.mini", ["--workers", "0"], "workers must be an int of at least 1, got 0"),
        ("minis.train_judge", ["icon"], 'unknown world "icon"; did you mean "icons"'),
    ],
)
def test_a_modules_command_ends_in_a_line(module, words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"dsd_lab.{module}", run_name="__main__", alter_sys=True)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith(f"python -m dsd_lab.{module}: {message}")
    assert err.count("\n") == 1

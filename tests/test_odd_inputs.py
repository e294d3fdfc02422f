"""What the command answers to bad or odd input: one line of words, exit status 2, nothing written.

The table of pictures and folders is in test_picture_files, test_inputs and test_worlds.
"""

import os
import shlex
import sys

import pytest
from PIL import Image

from dsd_lab import cli

SEEDS, PRIOR, FOLDER = "give a count", "unknown prior", "cannot write to the folder"
WRONG = {
    "run --seeds x": SEEDS,
    "run --seeds ''": SEEDS,
    "run --seeds 0": "names no seed",
    "run --seeds -3": SEEDS,
    "run --seeds 5-2": "names no seed",
    "run --seeds 1,,2": SEEDS,
    "run --seeds 1,1": "seeds repeat",
    "run --seeds 1000000000000": "too many seeds, at most 100000",
    "run --seeds 0-1000000000000": "too many seeds",
    "run --seeds 99999999999999999999999": "too many seeds",
    "run --seeds 1.5": SEEDS,
    "run --seeds \u0665\u0666x": SEEDS,
    "run --steps 0": "steps must be an int of at least 1, got 0",
    "run --steps -1": "steps must be",
    "run --steps two": "",
    "run --cfg nan": "cfg must be finite",
    "run --cfg inf": "cfg must be finite",
    "run --method nope": "unknown method",
    "run --method SDSS": 'did you mean "sds"',
    "run --method ''": "unknown method",
    "run --prompt nope": 'unknown prompt "nope"',
    "run --prompt ''": 'unknown prompt ""',
    "run --prompt 'a dargon'": 'did you mean "a dragon"',
    "run --prompt \u0416\U0001f409": "unknown prompt",
    f"run --prompt {'long' * 200}": "unknown prompt",
    "run --size 0": "size must be a whole number from 8 to 64, got 0; try 8",
    "run --size 7": "try 8",
    "run --size 100000": "try 64",
    "run --start nowhere": "unknown start",
    "run --lr 0": "lr must be positive",
    "run --lr -1": "lr must be positive",
    "run --lr nan": "lr must be positive",
    "run --lr inf": "lr must be positive",
    "run --lr 1e300": "lr must be positive",
    "run --refresh 0": "refresh must be",
    "run --prior nope": PRIOR,
    "run --prior ''": PRIOR,
    f"run --prior {'long' * 200}": PRIOR,
    "run --prior ~nobody/pictures": PRIOR,
    "run --prior pictures/one.png": "",
    "run --prior empty": "has no sub-folders",
    "run --prior pictures": "has one label",
    "run --prior toybox-novel-view": "is asked by a picture",
    "run --prior damaged": "model_index.json",
    "run --out file": FOLDER,
    "run --out file/inside": FOLDER,
    f"run --out {'long' * 200}": FOLDER,
    "run --nonsense": "",
    "study --cfg nan": "cfg must be finite",
    "study --steps 0": "steps must be",
    "study --seeds ''": SEEDS,
    "study --lr nan": "lr must be positive",
    "study --refresh 0": "refresh must be",
    "study --method nope": "unknown method",
    "study --prior nope": PRIOR,
    "study --out file": FOLDER,
    "study --out damaged-study": "is damaged",
    "prompts --prior nope": PRIOR,
    "prompts --prior empty": "has no sub-folders",
    "train nope": "does not exist",
    "train file": "is a file, not a folder",
    "train empty": "has no sub-folders",
    "train icons --every 0": "every must be",
    "train icons --steps 0": "steps must be",
    "train icons --autoencoder-steps -1": "autoencoder_steps must be",
    "train icons --batch 0": "batch must be",
    "train icons --precision fp99": 'did you mean "fp16"',
    "train icons --device gpu9": "unknown device",
    "train icons --seed -1": "seed must be",
    "train icons --out file/inside": FOLDER,
    "quality nope": PRIOR,
    "quality empty": "has no sub-folders",
    "notebooks nope.ipynb": "no notebook nope.ipynb",
    "nonsense": "",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an odd file or folder of each kind, to be in."""
    for name in ("empty", "pictures/cat", "damaged", "damaged-study/cells"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "one.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "cat" / "one.png")
    for name in ("file", "damaged/model_index.json", "damaged-study/study.json"):
        (tmp_path / name).write_text('{"half of')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(arguments, monkeypatch, capsys):
    """(exit status, stderr) of the command, which must end by itself."""
    monkeypatch.setattr(sys, "argv", ["dsd-lab", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


def everything(place):
    return {p: p.is_file() and p.read_bytes() for p in place.rglob("*")}


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("line", WRONG)
def test_one_line_says_what_is_wrong(line, place, monkeypatch, capsys):
    before = everything(place)
    status, said = answer(shlex.split(line), monkeypatch, capsys)
    assert status == 2 and "Traceback" not in said and WRONG[line] in " ".join(said.split()), said
    if said.startswith("dsd-lab: "):
        assert len(said.splitlines()) == 1
    after = everything(place)
    made = {p.name for p in after.keys() - before.keys()}
    assert made <= {"results", "study", "my-mini", "samples"}  # folders, tried for writing
    assert all(after[p] == content for p, content in before.items())


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize("command", ["run", "study"])
def test_a_folder_that_cannot_be_written(command, place, monkeypatch, capsys):
    status, said = answer([command, "--out", "/proc/nowhere"], monkeypatch, capsys)
    assert status == 2 and FOLDER in said


@pytest.mark.slow
def test_no_option_ends_in_a_traceback(place, monkeypatch, capsys):
    """Random texts and numbers for all options of `run` and `study`, on eight-pixel pictures."""
    given, strategies = (
        pytest.importorskip("hypothesis").given,
        pytest.importorskip("hypothesis.strategies"),
    )
    settings = pytest.importorskip("hypothesis").settings
    text = strategies.text(max_size=12).filter(lambda t: "\0" not in t)
    number = strategies.one_of(
        strategies.integers(-3, 3), strategies.floats(), strategies.integers(), text
    ).map(str)
    name = strategies.sampled_from(["cfg", "lr", "refresh", "size", "steps", "seeds", "start"])
    options = strategies.dictionaries(name | strategies.sampled_from(["method", "prompt"]), number)

    @settings(max_examples=60, deadline=None, database=None)
    @given(command=strategies.sampled_from(["run", "study"]), options=options)
    def ends(command, options):
        small = {"steps": "1", "seeds": "1", "size": "8", "method": "sds", "prompt": "a dragon"}
        chosen = [f"--{key}={value}" for key, value in (small | options).items()]
        monkeypatch.setattr(sys, "argv", ["dsd-lab", command, *chosen, "--out", str(place / "o")])
        try:
            cli.main()
        except SystemExit as end:
            assert end.code in (0, 2)
        capsys.readouterr()

    ends()

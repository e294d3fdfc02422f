"""What bad or odd input is answered: by the command one line of words, exit status 2 and nothing
written; by the library the right value, or one sentence.

More pictures and folders are in test_picture_files, test_inputs and test_worlds, damaged files in
test_damaged, pipelines in test_pipeline, numbers that are none in test_checks.
"""

import ast
import dataclasses
import os
import shlex
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import make_pipe, make_unet

from dsd_lab import (
    CFD,
    DSD,
    FSD,
    SDS,
    VSD,
    Camera,
    GaussianMixture,
    NoiseSchedule,
    Scene,
    cli,
    ddim,
    distill,
    input_view,
    load_prior,
)
from dsd_lab.cameras import orbit
from dsd_lab.checkpoint import load, save
from dsd_lab.distill import STAGES, fit_stages
from dsd_lab.files import LONGEST, expanded, slug
from dsd_lab.priors import PipelinePrior
from dsd_lab.scene import GridField
from dsd_lab.worlds import folder

PIPELINE = Path(cli.__file__).parent / "models/icons-mini"
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
    "run --prior toybox": "is asked for views from cameras",
    "run --prior damaged": "model_index.json",
    "run --out file": FOLDER,
    "run --out file/inside": FOLDER,
    f"run --out {'long' * 200}": FOLDER,
    f"run --prompt '{'word ' * 200}'": "unknown prompt",
    "run --prior toybox-novel-view-mini": "is asked by a picture",
    "study --prior toybox-novel-view": "is asked by a picture",
    "run --prior spoilt": "is damaged",
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
def place(tmp_path, monkeypatch, request):
    """A folder with an odd file or folder of each kind, to be in."""
    for name in ("empty", "pictures/cat", "damaged", "damaged-study/cells"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "one.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "cat" / "one.png")
    for name in ("file", "damaged/model_index.json", "damaged-study/study.json"):
        (tmp_path / name).write_text('{"half of')
    if "spoilt" in request.node.name:
        shutil.copytree(PIPELINE, tmp_path / "spoilt")
        file = tmp_path / "spoilt/unet/diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:100])
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

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
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


# ---- the library, and the faults that were found by trying it ------------------------------------

ZERO_SNR = {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"}
CAFE = "caf\u00e9"


def pictures(place, *names, mode="RGB", colour="red", size=32, kind="png"):
    """A folder with a picture under each label."""
    for name in names:
        (place / "world" / name).mkdir(parents=True)
        Image.new(mode, (size, size), colour).save(place / "world" / name / f"one.{kind}")
    return place / "world"


def sixteen_bits(place):
    for name in ("grey", "other"):
        (place / "world" / name).mkdir(parents=True)
        deep = Image.fromarray(np.full((32, 32), 20000, np.uint16))
        deep.save(place / "world" / name / "one.png")
    return round(float(folder(place / "world", 32).images("grey").mean()), 2)


def stray_pixel(place):
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((200, 40, 40, 255), (24, 24, 40, 40))
    image.putpixel((0, 0), (0, 0, 0, 255))
    columns = input_view(image).mask[0].any(0).nonzero()
    return int(columns.max() - columns.min() + 1) in (54, 55, 56, 57)


def told_apart(place):
    mixture = GaussianMixture({CAFE: [[0.0, 0.0]], "tea": [[1.0, 1.0]]})
    return mixture.condition(unicodedata.normalize("NFD", CAFE.upper())).prompt


def offloaded(place):
    import accelerate

    pipe = make_pipe("sd15")
    accelerate.cpu_offload(pipe.unet)
    PipelinePrior(pipe, device="cpu")


def pipe_of(**unet):
    pipe = make_pipe("sd15")
    pipe.unet = make_unet(4, **unet)
    return PipelinePrior(pipe, device="cpu")


def half_a_checkpoint(place):
    file = save(place / "run.safetensors", {"x": torch.ones(99)}, {})
    file.write_bytes(file.read_bytes()[:100])
    load(file, {})


def other_captions(place):
    load(save(place / "run.safetensors", {}, {"captions": "1"}), {"captions": "2"})


def nothing_at_the_end(place):
    class Broken(GaussianMixture):
        def _outputs(self, queries):
            return [{term: q.x * torch.nan for term in q.terms} for q in queries]

    prior = Broken({"a": [[0.0, 0.0]]})
    ddim(prior, prior.noise([0]), prior.condition("a"), cfg=1)


def without_home(place):
    names = [name for name in ("HOME", "USERPROFILE") if os.environ.pop(name, None)]
    return isinstance(expanded("~nobody-of-this-name/x"), Path) and bool(names)


def bom(place):
    shutil.copytree(PIPELINE, place / "marked")
    index = place / "marked/model_index.json"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    return load_prior(place / "marked", device="cpu").name


def deep_folders(place):
    world = pictures(place, "cat", "dog/inner/most", "@eaDir")
    Image.new("RGB", (8, 8)).save(world / "cat" / "two.tif")
    (world / "cat" / "notes.txt").write_text("no picture")
    with pytest.warns(UserWarning, match="left out, as no pictures of a label: cat.notes.txt"):
        found = folder(world, 8)
    return found.prompts, len(found)


# what is done -> what comes of it: a value, or words of the one sentence that is raised
LIBRARY = {
    "2 a stray opaque pixel": (stray_pixel, True),
    "3 a suffix that is none": (
        lambda place: Scene(GridField(8)).export_mesh(place / "a.stl"),
        "must end in .glb",
    ),
    "4 zero SNR with epsilon": (lambda _: NoiseSchedule.from_diffusers(ZERO_SNR), "pure noise"),
    "4 a path that is not finite": (
        nothing_at_the_end,
        "not finite at step 1 of the path, t = 999",
    ),
    "4 a start that is not finite": (
        lambda _: distill(told_mixture(), "a", SDS(), [0], 2, start=torch.full((1, 2), torch.nan)),
        "the start is not finite",
    ),
    "5 sixteen bits of grey": (sixteen_bits, 0.31),
    "6 a label composed otherwise": (told_apart, (CAFE,)),
    "7 a UNet that is told its guidance": (
        lambda _: pipe_of(time_cond_proj_dim=256),
        "is told its guidance",
    ),
    "8 a UNet that is shown a picture": (
        lambda _: pipe_of(encoder_hid_dim_type="image_proj", encoder_hid_dim=32),
        "is shown a picture too",
    ),
    "8 weights that are elsewhere": (offloaded, "remove_all_hooks"),
    "9 half a checkpoint": (half_a_checkpoint, "delete it to begin from the start"),
    "10 no home": (without_home, True),
    "11 a label of 250 letters": (lambda _: len(slug("l" * 250).encode()) <= LONGEST, True),
    "11 a name that Windows keeps": (lambda _: slug("con") != "con", True),
    "15 a form given to what was made": (
        lambda _: dataclasses.replace(DSD(), form="reference").lowest,
        0.32,
    ),
    "15 particles given to what was made": (
        lambda _: dataclasses.replace(VSD(), particles="lora").rate,
        1e-4,
    ),
    "19 what FSD and CFD do in 3-D": (
        lambda _: all("which is not built" in " ".join(m.__doc__.split()) for m in (FSD, CFD)),
        True,
    ),
    "20 other captions": (other_captions, "captions '1' there, '2' here"),
    "22 default stages of a small prior": (
        lambda _: max(s.size for s in fit_stages(STAGES, load_prior("toybox", size=32))),
        32,
    ),
    "a BOM": (bom, "marked"),
    "flow sigmas": (
        lambda _: NoiseSchedule.from_diffusers({"use_flow_sigmas": True}),
        "flow matching (use_flow_sigmas)",
    ),
    "an orbit of True": (lambda _: orbit(True), "views must be an int of at least 1, got True"),
    "a spacing of True": (lambda _: DSD(spacing=True), "spacing must be an int"),
    "a camera at True": (lambda _: Camera(azimuth=True), "azimuth must be a number"),
    "sub-sub-folders, .tif and @eaDir": (deep_folders, (("cat", "dog"), 3)),
    "labels that differ by case": (
        lambda place: folder(pictures(place, "Cat", "cat", "dog")),
        "two sub-folders named",
    ),
    "no surface": (lambda _: Scene(GridField(8)).mesh(threshold=1e9), "no surface at density"),
    "a size of text": (lambda _: load_prior("icons", size="64"), "size must be a whole number"),
    "a seed below 0": (lambda _: told_mixture().noise([-1]), "every seed must be an int"),
    "no seeds": (lambda _: told_mixture().noise([]), "seeds is empty"),
}


def told_mixture():
    return GaussianMixture({"a": [[0.0, 0.0]], "b": [[1.0, 1.0]]})


@pytest.mark.parametrize("name", LIBRARY)
def test_what_the_library_answers(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    act, answer = LIBRARY[name]
    if not isinstance(answer, str) or name == "a BOM":
        assert act(tmp_path) == answer
        return
    with pytest.raises((ValueError, TypeError)) as said:
        act(tmp_path)
    assert answer in str(said.value) and "\n" not in str(said.value)


# each fault that was found, and the tests that fail where it is there again
FAULTS = {
    "1 a pipeline's folder": "test_run_on_a_pipelines_folder",
    "2 a stray pixel, dust, a watermark, noise": "test_the_frame_stays "
    "test_a_stray_pixel_is_left_out_with_a_word test_a_toy_is_known_beside_a_stray_pixel",
    "3 colours of a .glb": "test_a_glb_by_the_numbers_of_its_specification "
    "test_three_js_shows_the_balls_colour test_ply_and_obj_keep_srgb",
    "4 numbers that are not finite": "test_epsilon_cannot_begin_at_pure_noise "
    "test_every_method_is_finite_where_the_last_level_is_pure_noise "
    "test_a_path_stops_at_the_first_value_that_is_not_finite "
    "test_a_step_that_fails_changes_nothing "
    "test_training_stops_before_a_value_that_is_not_finite",
    "5 sixteen bits": "test_sixteen_bits_are_scaled test_folder_of_sixteen_bit_pictures "
    "test_a_picture_of_sixteen_bits",
    "6 names": "test_every_name_that_is_looked_up "
    "test_names_are_compared_composed_and_without_case "
    "test_a_folder_is_found_by_its_name_composed_otherwise",
    "7 a guidance embedding": "test_pipelines_of_another_kind",
    "8 pictures and hooks": "test_pipelines_of_another_kind test_weights_that_are_elsewhere",
    "9 checkpoints, precisions, every": "test_a_training_checkpoint "
    "test_another_precision_in_one_kernel test_every_is_checked_before_any_work",
    "10 a cache that cannot be written": "test_a_cache_that_cannot_be_written_is_a_warning",
    "11 long names": "test_names_of_long_texts_fit_a_file_system_and_stay_apart "
    "test_study_and_prompts_on_a_pipelines_folder",
    "12 narrow consoles": "test_a_narrow_console_loses_no_result "
    "test_results_are_kept_whatever_happens_to_the_console",
    "13 lessons that are opened": "test_a_stored_lesson_shows_a_picture_for_each",
    "14 variants and shards": "test_weights_of_any_variant test_weights_in_shards",
    "15 defaults": "test_what_is_none_is_the_forms_own",
    "16 devices": "test_a_path_runs_on_its_device_with_the_numbers_of_the_cpu",
    "17 counts": "test_smaller_stages_count_on_the_prior_that_is_held",
    "18 particles of a camera": "test_particles_of_vsd_are_those_of_a_camera",
    "19 what is not built": "test_what_the_library_answers test_every_view_has_the_seeds_noise",
    "20 captions and cameras": "test_another_training_in_the_same_folder_is_refused "
    "test_other_cameras_are_another_training",
    "21 LPIPS": "test_lpips_builds_its_network_once",
    "22 default stages": "test_default_stages_fit_the_prior",
    "~": "test_a_home_is_expanded_wherever_something_is_written",
    "deeper pictures, other suffixes": "test_folder_takes_pictures_deeper_inside_and_of_all_kinds "
    "test_every_suffix_is_read",
    "@eaDir": "test_folder_leaves_the_systems_out_and_says_what_else",
    "a BOM": "test_json_with_a_byte_order_mark",
    "flow sigmas": "test_other_flows_are_not_taken_for_what_they_are_not",
    "another training": "test_another_training_in_the_same_folder_is_refused",
    "orbit(True)": "test_true_is_no_number",
    "a drag": "test_of_a_drags_values_the_newest_is_drawn",
}


def test_each_fault_has_its_tests():
    there = {
        node.name
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert {int(name.split()[0]) for name in FAULTS if name[0].isdigit()} == set(range(1, 23))
    assert {test for tests in FAULTS.values() for test in tests.split()} <= there
    assert len(WRONG) + len(LIBRARY) >= 60


@pytest.mark.filterwarnings("ignore:left out of the object")
def test_a_toy_is_known_beside_a_stray_pixel():
    """The ten first toys that the exact prior of new views knows in a clean picture."""
    prior = load_prior("toybox-novel-view")
    world, camera, known, beside = prior.world, prior.world.cameras[8], 0, 0

    def seen(image):
        return prior.answers(input_view(image, camera)).tolist()

    for k in range(7, len(world), 16):
        rgb = world.views[k, 8].permute(1, 2, 0).numpy()
        alpha = np.uint8(255 * (rgb < 250).any(-1, keepdims=True))
        image = Image.fromarray(np.concatenate([rgb, alpha], -1))
        if k not in seen(image):
            continue  # put into the middle it looks like another
        image.putpixel((0, 0), (10, 10, 10, 255))
        known, beside = known + 1, beside + (k in seen(image))
    assert known >= 10 and beside == known

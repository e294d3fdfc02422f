"""Files of every kind that the library writes or comes with, cut off after 100 bytes, or empty: one
line names the file and what to do, or it is made anew; nothing else is lost.
"""

import shutil
from pathlib import Path

import pytest
import torch
from pipelines import make_pipe

import dsd_lab.priors as priors
from dsd_lab import SDS, Scene, distill_scene, load_prior
from dsd_lab.checkpoint import load, save
from dsd_lab.course.measured import Table
from dsd_lab.distill import Stage
from dsd_lab.minis.card import credit_of
from dsd_lab.minis.recipe import Recipe
from dsd_lab.minis.training import Training
from dsd_lab.priors import ViewSet, load_pipeline
from dsd_lab.priors.network import quiet
from dsd_lab.scene import GridField
from dsd_lab.studies import summarise
from dsd_lab.studies.store import Content, Store
from dsd_lab.worlds.icons import load as load_icons
from dsd_lab.worlds.toybox import views
from dsd_lab.worlds.toybox.world import resized

LIBRARY = Path(__file__).parents[1] / "dsd_lab"
DAMAGE = {"empty": 0, "cut off": 100}
DELETE, AGAIN = "delete it", "copy, download or train it again"


def spoil(file: Path, damage: str) -> Path:
    file.write_bytes(file.read_bytes()[: DAMAGE[damage]])
    return file


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "pipeline"
    with quiet():
        make_pipe("sd15").save_pretrained(folder)
    return folder


def refused(file: Path, remedy: str, read) -> None:
    with pytest.raises(ValueError) as said:
        read()
    text = str(said.value)
    assert str(file) in text and remedy in text and "\n" not in text, text


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint(damage, tmp_path):
    file = spoil(save(tmp_path / "run.safetensors", {"x": torch.ones(99)}, {"seed": 1}), damage)
    refused(file, DELETE, lambda: load(file, {"seed": 1}))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_of_a_scene(damage, toy_world, tmp_path):
    def begun():
        prior = ViewSet(resized(toy_world, 16))
        return distill_scene(prior, "a chair", SDS(), 0, 2, stages=(Stage(16, 8, 1.0, 1),))

    file = spoil(begun().save(tmp_path / "scene.safetensors"), damage)
    refused(file, DELETE, lambda: begun().resume(file))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_training_checkpoint(damage, tmp_path):
    def begun():
        return Training("net", torch.nn.Linear(9, 9), 5, 0.1, Recipe(), tmp_path, {})

    begun().save()
    refused(spoil(tmp_path / "net.safetensors", damage), DELETE, begun)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_scene(damage, tmp_path):
    file = spoil(Scene(GridField(8)).save(tmp_path / "scene.safetensors"), damage)
    refused(file, "scene.save", lambda: Scene.load(file))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_pipelines_file(damage, name, pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    file = spoil(folder / name, damage)
    refused(file, AGAIN, lambda: load_pipeline(folder, device="cpu"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_index_of_a_pipeline(damage, pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "copy")
    spoil(folder / "model_index.json", damage)
    refused(folder, "model_index.json", lambda: load_pipeline(folder, device="cpu"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_shipped_network(damage, tmp_path, monkeypatch):
    monkeypatch.setattr("dsd_lab.priors.MODELS", tmp_path)
    shutil.copytree(LIBRARY / "models/icons-mini", tmp_path / "icons-mini")
    priors._mini.cache_clear()
    file = spoil(tmp_path / "icons-mini/unet/diffusion_pytorch_model.safetensors", damage)
    try:
        refused(file, "again", lambda: load_prior("icons-mini", device="cpu"))
    finally:
        priors._mini.cache_clear()


@pytest.mark.parametrize("damage", DAMAGE)
def test_shipped_pictures(damage, tmp_path):
    shutil.copytree(LIBRARY / "worlds/icons_data", tmp_path / "data")
    file = spoil(tmp_path / "data/icons.npz", damage)
    refused(file, "reinstall dsd_lab", lambda: load_icons(tmp_path / "data"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_trainings_facts(damage, tmp_path):
    file = tmp_path / "training.json"
    file.write_text('{"credit": "' + "x" * 200 + '"}')
    refused(spoil(file, damage), "train the mini again", lambda: credit_of(str(tmp_path)))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_lessons_table(damage, tmp_path, monkeypatch):
    file = tmp_path / "objects.json"
    file.write_text('{"about": "' + "x" * 200 + '"}')
    monkeypatch.setattr(Table, "path", spoil(file, damage))
    refused(file, "python -m dsd_lab.course.objects` makes it anew", Table("objects").load)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_studys_header(damage, tmp_path):
    Store.begin(tmp_path, {"of": "x" * 200})
    file = spoil(tmp_path / "study.json", damage)
    for read in (lambda: Store.begin(tmp_path, {"of": "x" * 200}), lambda: summarise(tmp_path)):
        refused(file, "give another folder, or delete", read)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_studys_cell_is_computed_again_and_no_other(damage, tmp_path):
    store, computed = Store.begin(tmp_path, {"of": "this"}), []

    def compute(cell):
        computed.append(cell)
        return Content({"cell": cell}, {"x": torch.full((50,), float(cell))})

    store.fill([0, 1, 2], compute)
    spoil(store._file(1), damage)
    contents = store.fill([0, 1, 2], compute)
    assert computed == [0, 1, 2, 1] and [c.facts["cell"] for c in contents] == [0, 1, 2]


@pytest.mark.parametrize("damage", DAMAGE)
def test_cached_toys_are_rendered_again(damage, toy_world, tmp_path, monkeypatch):
    monkeypatch.setenv("DSD_LAB_CACHE", str(tmp_path))
    rendered = torch.zeros(6, 6, 3, 64, 64, dtype=torch.uint8)
    calls = []
    monkeypatch.setattr(views, "rendered_views", lambda *a: calls.append(a) or rendered)
    toys, cameras = toy_world.toys, toy_world.cameras
    views.cached_views(toys, cameras)
    (file,) = tmp_path.glob("*.npz")
    spoil(file, damage)
    assert torch.equal(views.cached_views(toys, cameras), rendered) and len(calls) == 2
    views.cached_views(toys, cameras)
    assert len(calls) == 2  # and the cache is whole again

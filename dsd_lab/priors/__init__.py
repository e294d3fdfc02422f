"""Diffusion priors: what they predict, on which conditions, and how to get one by name."""

import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from weakref import WeakKeyDictionary

import torch

from ..checks import did_you_mean, meant
from ..files import find_path
from ..worlds import World, folder, icons, toy_shop, toybox
from .base import Prediction, Prior, Query, check_cfg, guidance_terms, guide
from .condition import Condition
from .device import pick_device
from .exact import ExactPrior, GaussianMixture, ImageSet
from .loading import load_novel_view, load_pipeline
from .memory import PRESETS, Memory, memory_for
from .multi_view import MultiViewPrior
from .network import NetworkPrior
from .novel_view import NovelViewSet
from .pipeline import PipelinePrior
from .view_prompts import ViewPrompts
from .views import ViewSet
from .zero123 import NovelViewPrior

__all__ = [
    "Condition",
    "ExactPrior",
    "GaussianMixture",
    "ImageSet",
    "Memory",
    "MultiViewPrior",
    "NovelViewPrior",
    "NovelViewSet",
    "PRESETS",
    "PipelinePrior",
    "Prediction",
    "Prior",
    "Query",
    "ViewPrompts",
    "ViewSet",
    "call_of",
    "check_cfg",
    "guidance_terms",
    "guide",
    "load_novel_view",
    "load_pipeline",
    "load_prior",
    "memory_for",
]

PIPELINE_PARTS = ("model_index.json", "unet", "transformer", "config.json", "snapshots")
MODELS = Path(__file__).resolve().parents[1] / "models"  # the networks that come with the package
MINIS: dict[str, Callable[[], World] | None] = {  # and the world each one has seen
    "icons-mini": lambda: icons(64),
    "toybox-mini": toy_shop,
    "toybox-multi-view-mini": toy_shop,
    "toybox-novel-view-mini": None,
}


@lru_cache(maxsize=4)
def _icons(size: int) -> ImageSet:
    return ImageSet(icons(size))


@lru_cache(maxsize=4)
def _toybox(size: int, joint: bool = False) -> ViewSet:
    return ViewSet(toybox(size), joint=joint)


@lru_cache(maxsize=4)
def _new_views(size: int, joint: bool = False) -> NovelViewSet:
    return NovelViewSet(toybox(size), joint=joint)


EXACT = {
    "icons": _icons,
    "toybox": _toybox,
    "toybox-joint": partial(_toybox, joint=True),
    "toybox-novel-view": _new_views,
    "toybox-novel-view-joint": partial(_new_views, joint=True),
}


@lru_cache(maxsize=4)
def _mini(name: str, device: str | torch.device, dtype: torch.dtype | None) -> NetworkPrior:
    if not (MODELS / name).is_dir():
        raise ValueError(
            f'the network of "{name}" is not in this copy of the package: '
            f"there is no folder {MODELS / name}"
        )
    world = MINIS[name]
    return load_pipeline(
        MODELS / name, device, dtype, world=None if world is None else world(), name=name
    )


_hub = lru_cache(maxsize=1)(load_pipeline)  # these are large: one is kept
_calls: WeakKeyDictionary[Prior, tuple] = WeakKeyDictionary()


def call_of(prior: Prior) -> tuple | None:
    """The arguments (name, size, download, device, dtype) by which `load_prior` makes the prior
    again, in any process; None if it was made otherwise.
    """
    return _calls.get(prior)


def load_prior(
    name: str | Path,
    size: int = 64,
    *,
    download: bool = False,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
) -> Prior:
    """A prior by name: a shipped one, a pipeline's folder, a folder of pictures, or a hub id, the
    first of these that fits.

    "icons" (exact); "toybox" (exact, objects seen from cameras); "toybox-novel-view" (exact, what
    other cameras see given a picture), and both with "-joint" (all views denoised together, as
    multi-view diffusion models do); "icons-mini" (a small network); "toybox-mini" (one that is told
    the camera, any); "toybox-multi-view-mini" (one that denoises four views jointly);
    "toybox-novel-view-mini" (one of new views); a folder with a model_index.json, as diffusers
    saves pipelines of the families that it knows (README), those like Zero-1-to-3 too, or one of
    the hub's cache, models--owner--name; a folder of pictures with one sub-folder a label (exact);
    "owner/name", a pipeline on the Hugging Face hub.
    size: side of an exact prior's pictures in pixels; 32 makes a smaller, faster prior. A network
    has its own.
    download: whether a hub id may be fetched from the network; else it must have been before.
    device: "auto" is the CPU for exact priors. device and dtype of a network: see `NetworkPrior`.
    Raises ValueError for an unknown name (with the nearest) or an unusable folder.
    """
    path = find_path(name)
    prior = _load(path, str(name), size, download, device, dtype)
    again = str(path.resolve()) if os.path.isdir(path) else str(name)
    _calls.setdefault(prior, (again, size, download, str(device), dtype))
    return prior


def _load(path: Path, name: str, size: int, download: bool, device, dtype) -> Prior:
    """As `load_prior`; path: where a file or folder of that name is, if there is one."""
    if not os.path.isdir(path):
        name = meant(name, [*EXACT, *MINIS]) or name
    exact_device = "cpu" if device == "auto" else pick_device(device)
    if name in EXACT:
        return EXACT[name](size).to(exact_device)
    if name in MINIS:
        return _mini(name, device, dtype)
    if name and os.path.isdir(path):  # false too for a name too long to be one
        if any((path / part).exists() for part in PIPELINE_PARTS):
            return load_pipeline(path, device, dtype)
        return ImageSet(folder(path, size)).to(exact_device)
    if os.path.isfile(path) or name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _hub(name, device, dtype, download)
    hint, shipped = did_you_mean(name, [*EXACT, *MINIS]), '", "'.join([*EXACT, *MINIS])
    raise ValueError(
        f'unknown prior "{name}";{hint} allowed: "{shipped}", a folder of pictures with one '
        'sub-folder a label, a folder with a model_index.json, or a hub id "owner/name"'
    )

"""A folder of a user's pictures, one sub-folder a label, as a picture world."""

import os
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..checks import folded
from ..files import find_path
from ..picture_files import SUFFIXES, read_picture
from .pictures import LARGEST, PictureWorld, Source, check_size

# what file managers, disks, archives and cameras leave beside a user's pictures
SYSTEM = {
    "@eadir", "#recycle", "$recycle.bin", "__macosx", "__pycache__", "desktop.ini", "lost+found",
    "system volume information", "thumbs.db", "ehthumbs.db",
}  # fmt: skip


def folder(path, size: int = 64) -> PictureWorld:
    """Your own pictures as a world: one sub-folder per label, whose name is the prompt.

    Every picture is turned upright, put on white, padded to a square (never cropped) and resized to
    size x size. Pictures deeper inside a label's folder are taken too; system and hidden folders
    are not, and a warning says what else was left out. Raises ValueError, saying which file or
    folder and what is allowed, if that cannot be done.
    """
    check_size(size, LARGEST)
    root = find_path(path)
    if not os.path.isdir(root):
        what = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise ValueError(f"{root} {what}; give a folder with one sub-folder of pictures per label")
    labels, left_out = _labels(root)
    rows = [(i, file) for i, files in enumerate(labels.values()) for file in files]
    pixels = np.stack([_page(file, size) for _, file in rows])
    if left_out:
        names = ", ".join(left_out[:4]) + (", ..." if len(left_out) > 4 else "")
        warnings.warn(f"{root}: left out, as no pictures of a label: {names}", stacklevel=2)
    return PictureWorld(
        name=root.resolve().name,
        prompts=tuple(labels),
        pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        label=torch.tensor([i for i, _ in rows]),
        sources=tuple(Source(list(labels)[i], file.name, "not stated") for i, file in rows),
        credit=f"Pictures: folder {root.resolve().name}.",
    )


def _labels(root: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The pictures of each label, and the names of what else a user may have meant to be used."""
    inside = sorted(entry for entry in _entries(root) if not _of_system(entry))
    left_out = [entry.name for entry in inside if not entry.is_dir()]
    labels: dict[str, list[Path]] = {}
    for place in filter(Path.is_dir, inside):
        label = _label(place)
        if folded(label) in map(folded, labels):
            raise ValueError(
                f'{root} has two sub-folders named "{label}", compared without case; make them one'
            )
        files = sorted(_files(place))
        labels[label] = [file for file in files if file.suffix.lower() in SUFFIXES]
        left_out += [str(file.relative_to(root)) for file in files if file not in labels[label]]
        if not labels[label]:
            raise ValueError(
                f"{place} has no pictures ({', '.join(SUFFIXES)}); put some in, or remove the "
                "folder"
            )
    if not labels:
        raise ValueError(
            f"{root} has no sub-folders; give each label a sub-folder with its pictures"
        )
    if len(labels) == 1:
        raise ValueError(
            f'{root} has one label, "{label}"; it needs at least two labels: with one, conditional '
            "and unconditional predictions are the same, so guidance does nothing"
        )
    return labels, left_out


def _label(place: Path) -> str:
    """A folder's name as a prompt; what is not Unicode in it is replaced."""
    return unicodedata.normalize("NFC", os.fsencode(place.name).decode(errors="replace"))


def _entries(place: Path) -> list[Path]:
    """What is in a folder. Raises ValueError if it cannot be read."""
    try:
        return list(place.iterdir())
    except OSError as error:
        raise ValueError(f"{place} cannot be read: {error.strerror or error}") from error


def _files(place: Path) -> list[Path]:
    """All files in a folder and its sub-folders but the system's; links to folders aren't
    followed.
    """
    entries = [entry for entry in _entries(place) if not _of_system(entry)]
    inner = [f for e in entries if e.is_dir() and not e.is_symlink() for f in _files(e)]
    return [entry for entry in entries if entry.is_file()] + inner


def _of_system(entry: Path) -> bool:
    """Whether a file or folder is hidden, or one of the system's."""
    return entry.name.startswith(".") or folded(entry.name) in SYSTEM


def _page(file: Path, size: int) -> np.ndarray:
    """One picture in the middle of a white square: uint8 (size, size, 3)."""
    try:
        picture = read_picture(file)
    except ValueError as error:
        raise ValueError(f"cannot read the picture {error}; replace or remove it") from error
    side = max(picture.size)
    page = Image.new("RGBA", (side, side), "white")
    page.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.array(page.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))

"""Maintainer's tool: build the `icons` world from the sets of drawings that icons.toml names.

    python -m dsd_lab.worlds.build_icons           # fetch the pinned sets with npm, write the files
    python -m dsd_lab.worlds.build_icons --cache F # use .tgz files already fetched by `npm pack`
    python -m dsd_lab.worlds.build_icons --check   # rebuild and compare with the shipped files

Needs `npm` (to fetch) and `pip install resvg-py` (to draw). Users never run or import this file.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jinja2
import numpy as np
from PIL import Image

from ...files import write_file
from ..shipped import checksum

DATA = Path(__file__).parents[1] / "icons_data"
SIZE = 64  # pixels per side
NEAR = 0.03  # RMSE per channel, in [0, 1]: closer pictures count as the same one
FEWEST = 6  # pictures per prompt after merging


TABLES = tomllib.loads(Path(__file__).with_name("icons.toml").read_text(encoding="utf-8"))
SETS = tuple(SimpleNamespace(**art) for art in TABLES["sets"])


class Picture(NamedTuple):
    """One drawing on its way into the world."""

    prompt: str
    set: str
    name: str
    licence: str
    image: np.ndarray  # uint8 (64, 64, 3)


def normalise(name):
    """Bring an icon name to the form the sets share: no code-point prefix, lower case, letters and
    digits.
    """
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^u[0-9a-f]{4,5}-", "", name.lower()))


def noun(prompt):
    """A prompt without its article, which is how prompts are sorted."""
    return re.sub(r"^(a|an|the) ", "", prompt)


def find(icon_set, wanted):
    """The drawings in one set for the wanted names, in that order, each at most once.

    `icon_set` is the parsed icons.json of a set. An alias stands for its parent; one that also
    turns or mirrors the parent is another picture of the same drawing, and is passed over.
    """
    by_name = {}
    for name, alias in sorted(icon_set.get("aliases", {}).items()):
        if set(alias) == {"parent"} and alias["parent"] in icon_set["icons"]:
            by_name.setdefault(normalise(name), alias["parent"])
    own = {}
    for name in sorted(icon_set["icons"]):
        own.setdefault(normalise(name), name)
    by_name |= own  # a set's own drawing of a name goes before an alias
    found = (by_name.get(normalise(name)) for name in wanted)
    return list(dict.fromkeys(name for name in found if name))


def group(table, icon_sets):
    """List (prompt, set, icon name), prompts by noun and then in the order of `icon_sets`.

    Raises ValueError when two prompts claim one drawing.
    """
    rows, owner = [], {}
    for prompt in sorted(table, key=noun):
        for key, icon_set in icon_sets.items():
            for name in find(icon_set, table[prompt]):
                if owner.setdefault((key, name), prompt) != prompt:
                    raise ValueError(
                        f'{key}/{name} is under both "{owner[key, name]}" and "{prompt}"'
                    )
                rows.append((prompt, key, name))
    return rows


def svg(icon_set, name):
    """The drawing as a square SVG document; another aspect is kept and centred, which is SVG's
    default.
    """
    icon = icon_set["icons"][name]
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = [icon.get(key, icon_set.get(key, default)) for key, default in defaults.items()]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'
    )


def render(document):
    """Draw an SVG document of 64x64 on white, antialiased: uint8 (64, 64, 3)."""
    import resvg_py  # here, so that the rest of this file works without it

    png = bytes(resvg_py.svg_to_bytes(svg_string=document, skip_system_fonts=True))
    drawing = Image.open(io.BytesIO(png)).convert("RGBA")
    page = Image.new("RGBA", drawing.size, "white")
    return np.asarray(Image.alpha_composite(page, drawing).convert("RGB"))


def rmse(image, others):
    """Root mean square difference per channel, in [0, 1]: (H, W, 3) against (n, H, W, 3) gives
    (n,).
    """
    difference = (np.asarray(others, np.float64) - np.asarray(image, np.float64)) / 255
    return np.sqrt((difference**2).mean(axis=(1, 2, 3)))


def merge(images, near=NEAR):
    """Positions of the pictures to keep: each at least `near` from every one kept before it."""
    kept = []
    for i, image in enumerate(images):
        if not kept or rmse(image, [images[k] for k in kept]).min() >= near:
            kept.append(i)
    return kept


def is_blank(image):
    """Whether a picture is next to white all over: it was not drawn, or not in a way that shows."""
    return (255 - image.min(axis=2) > 16).mean() < 0.02


def fetch(folder):
    """Fetch the pinned sets into `folder` with the npm client."""
    packages = [f"@iconify-json/{s.key}@{s.version}" for s in SETS]
    subprocess.run(
        ["npm", "pack", "--silent", *packages], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )


def load_set(art, folder):
    """Read one set's icons.json from its .tgz; ValueError if its version or licence is not the one
    stated.
    """
    with tarfile.open(Path(folder) / f"iconify-json-{art.key}-{art.version}.tgz") as archive:
        package, info, icons = (
            json.load(archive.extractfile(f"package/{name}.json"))
            for name in ("package", "info", "icons")
        )
    licence = info["license"]["spdx"]
    if package["version"] != art.version:
        raise ValueError(f"{art.key}: version {package['version']}, wanted {art.version}")
    if licence != getattr(art, "package_licence", art.licence):
        raise ValueError(
            f"{art.key}: licence {licence}; look at it again before shipping its drawings"
        )
    return icons


def collect(folder):
    """Draw every picture of the table and merge the near-copies: a list of Picture, in shipping
    order.

    Raises ValueError if a prompt is left with too few pictures or two prompts with one picture.
    """
    icon_sets = {art.key: load_set(art, folder) for art in SETS}
    licences = {art.key: art.licence for art in SETS}
    drawn = []
    for prompt, key, name in group(TABLES["prompts"], icon_sets):
        image = None if f"{key}/{name}" in TABLES["left_out"] else render(svg(icon_sets[key], name))
        if image is not None and not is_blank(image):
            drawn.append(Picture(prompt, key, name, licences[key], image))

    pictures = []
    for prompt in dict.fromkeys(p.prompt for p in drawn):
        mine = [p for p in drawn if p.prompt == prompt]
        kept = [mine[i] for i in merge([p.image for p in mine])]
        if len(kept) < FEWEST:
            raise ValueError(f'"{prompt}" has {len(kept)} pictures after merging, needs {FEWEST}')
        for picture in kept:
            if (
                pictures
                and (distance := rmse(picture.image, [p.image for p in pictures])).min() < NEAR
            ):
                other = pictures[int(distance.argmin())]
                raise ValueError(f"{picture[:3]} is nearly the same picture as {other[:3]}")
        pictures += kept
    return pictures


def pack(pictures):
    """The arrays of the data file, as a dict."""
    prompts = list(dict.fromkeys(p.prompt for p in pictures))
    aliases = TABLES["aliases"]
    if unknown := sorted(set(aliases.values()) - set(prompts)):
        raise ValueError(f"aliases of prompts that do not exist: {unknown}")
    return {
        "images": np.stack([p.image for p in pictures]),
        "label": np.array([prompts.index(p.prompt) for p in pictures], np.int16),
        "prompts": np.array(prompts),
        "set": np.array([p.set for p in pictures]),
        "name": np.array([p.name for p in pictures]),
        "licence": np.array([p.licence for p in pictures]),
        "alias": np.array(list(aliases)),
        "alias_prompt": np.array(list(aliases.values())),
    }


def write(arrays, path):
    """Write an .npz and its .sha256 beside it, whole or not at all; fixed time stamps make the same
    arrays the same bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980-01-01
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    data = buffer.getvalue()
    write_file(path, data)
    write_file(f"{path}.sha256", checksum(data, Path(path).name) + "\n")


def attribution(arrays):
    """The text of ATTRIBUTION.md."""
    template = Path(__file__).with_name("ATTRIBUTION.md.jinja").read_text(encoding="utf-8")
    counts = {art.key: int((arrays["set"] == art.key).sum()) for art in SETS}
    return jinja2.Template(template, keep_trailing_newline=True).render(sets=SETS, counts=counts)


def differences(built, shipped):
    """Names of the arrays that are missing from one of two data files, or not equal."""
    both = set(built) & set(shipped)
    return sorted(
        (set(built) ^ set(shipped)) | {k for k in both if not np.array_equal(built[k], shipped[k])}
    )


def main(argv=None):
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument(
        "--cache", metavar="FOLDER", help="folder with .tgz files that `npm pack` fetched"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the shipped files, write nothing"
    )
    options = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as folder:
        if not options.cache:
            fetch(folder)
        arrays = pack(collect(options.cache or folder))
    text = attribution(arrays)

    if options.check:
        with np.load(DATA / "icons.npz", allow_pickle=False) as shipped:
            wrong = differences(arrays, dict(shipped))
        if (DATA / "ATTRIBUTION.md").read_text(encoding="utf-8") != text:
            wrong.append("ATTRIBUTION.md")
        print(
            f"differs from the shipped files: {', '.join(wrong)}"
            if wrong
            else "same as the shipped files"
        )
        return 1 if wrong else 0

    DATA.mkdir(exist_ok=True)
    write(arrays, DATA / "icons.npz")
    (DATA / "ATTRIBUTION.md").write_text(text, encoding="utf-8")
    counts = np.bincount(arrays["label"])
    print(f"{len(arrays['prompts'])} prompts, {len(arrays['images'])} pictures")
    print(f"per prompt: {counts.min()} to {counts.max()}, median {np.median(counts):g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

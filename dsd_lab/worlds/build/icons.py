"""Maintainer's tool: build the `icons` world from seven sets of drawings.

    python -m dsd_lab.worlds.build_icons                 # fetch the pinned sets with npm, write icons_data/
    python -m dsd_lab.worlds.build_icons --cache FOLDER  # use .tgz files already fetched by `npm pack`
    python -m dsd_lab.worlds.build_icons --check         # rebuild and compare with the shipped files

Needs `npm` (to fetch) and `pip install resvg-py` (to draw). Users never run or import this file.
"""

import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

DATA = Path(__file__).parents[1] / "icons_data"
SIZE = 64  # pixels per side
NEAR = 0.03  # RMSE per channel, in [0, 1]: closer pictures count as the same one
FEWEST = 6  # pictures per prompt after merging


class ArtSet(NamedTuple):
    """One artist's set: where it is packed, and whom to credit."""

    key: str  # the package is @iconify-json/<key>
    version: str
    title: str
    author: str
    licence: str
    project: str  # on GitHub


# The order decides which of two near-copies stays: the first. The licences are those of the
# drawings.
SETS = (
    ArtSet("noto", "1.2.9", "Noto Emoji", "Google", "Apache-2.0", "googlefonts/noto-emoji"),
    ArtSet("noto-v1", "1.2.5", "Noto Emoji v1", "Google", "Apache-2.0", "googlefonts/noto-emoji"),
    ArtSet("twemoji", "1.2.5", "Twemoji", "Twitter", "CC-BY-4.0", "jdecked/twemoji"),
    ArtSet("fluent-emoji", "1.2.7", "Fluent Emoji", "Microsoft", "MIT", "microsoft/fluentui-emoji"),
    ArtSet(
        "fluent-emoji-flat",
        "1.2.6",
        "Fluent Emoji Flat",
        "Microsoft",
        "MIT",
        "microsoft/fluentui-emoji",
    ),
    ArtSet("emojione", "1.2.3", "EmojiOne 2", "Emoji One", "CC-BY-4.0", "EmojiTwo/emojitwo"),
    ArtSet("fxemoji", "1.2.2", "FxEmojis", "Mozilla", "CC-BY-4.0", "mozilla/fxemoji"),
)

# What the packages' own info.json must say, where it differs from the licence of the drawings:
# FxEmojis puts its code under Apache-2.0 and its visual design under CC BY 4.0; the package names
# only the first.
PACKAGE_LICENCE = {"fxemoji": "Apache-2.0"}

# prompt: icon names that show it. A name is looked up in every set, whatever its hyphens or code
# prefix.
PROMPTS = """
an airplane: airplane, airplane-departure, small-airplane
an alarm clock: alarm-clock
an apple: red-apple, green-apple
a balloon: balloon
a banana: banana
a bear: bear, polar-bear
a bee: honeybee
a beer: beer-mug
a bicycle: bicycle
a bird: bird, dove, dove-of-peace, parrot
a book: closed-book, blue-book, green-book, orange-book
a bus: bus, oncoming-bus
a butterfly: butterfly
a cactus: cactus
a cake: birthday-cake, shortcake
a camel: camel, two-hump-camel, bactrian-camel, dromedary-camel
a camera: camera, camera-with-flash
a car: automobile, oncoming-automobile, sport-utility-vehicle
a carrot: carrot
a castle: castle, european-castle, japanese-castle
a cat: cat, cat-face, cat-side, black-cat
cherries: cherries
a chick: baby-chick, hatching-chick
a chicken: chicken, rooster
a christmas tree: christmas-tree
a cloud: cloud
a cow: cow, cow-face
a crab: crab
a crescent moon: crescent-moon, first-quarter-moon-face, last-quarter-moon-face
a crown: crown
a diamond: gem-stone, gem
a dog: dog, dog-face, dog-side, poodle, guide-dog
a dolphin: dolphin
a doughnut: doughnut
a dragon: dragon, dragon-face, dragon-head, dragon-side
an elephant: elephant
fire: fire
a fish: fish, tropical-fish, blowfish
a flower: blossom, hibiscus, cherry-blossom
a fox: fox, fox-face
french fries: french-fries
a frog: frog
a ghost: ghost
a gift: wrapped-gift, present
glasses: glasses, sunglasses, dark-sunglasses
a globe: globe-showing-americas, globe-showing-asia-australia, globe-showing-europe-africa, americas-globe, \
asia-australia-globe, europe-africa-globe
grapes: grapes
a guitar: guitar
a hamburger: hamburger
a hat: top-hat, womans-hat
a heart: red-heart, blue-heart, green-heart, yellow-heart, heart-blue, heart-green, heart-yellow
a helicopter: helicopter
a horse: horse, horse-face
a hot dog: hot-dog
a hot drink: hot-beverage, teacup-without-handle
a house: house, house-with-garden, house-building
an ice cream: ice-cream, soft-ice-cream
a jack-o'-lantern: jack-o-lantern
a key: key, old-key
a lemon: lemon
a light bulb: light-bulb
a lion: lion
a lollipop: lollipop
a monkey: monkey, monkey-face
a motorcycle: motorcycle, motor-scooter
a mountain: mountain, snow-capped-mountain, snow-mountains, mount-fuji
a mouse: mouse, mouse-face, mouse-side
a mushroom: mushroom, brown-mushroom
an octopus: octopus
an orange: tangerine
an owl: owl
a padlock: locked, unlocked, lock, open-lock
a palm tree: palm-tree
a panda: panda, panda-face
a penguin: penguin
a pig: pig, pig-face, pig-side
a pineapple: pineapple
a pizza: pizza, slice-of-pizza
a rabbit: rabbit, rabbit-face, bunny, bunny-side
a rainbow: rainbow
a rocket: rocket
a rose: rose
a sailboat: sailboat
a sheep: ewe, ram, sheep
a ship: ship, passenger-ship
a skull: skull
a snail: snail
a snake: snake
a snowflake: snowflake
a snowman: snowman, snowman-without-snow
a soccer ball: soccer-ball
a spider: spider
a star: star, glowing-star
a strawberry: strawberry
the sun: sun, sun-with-face
a sunflower: sunflower
a tent: tent, camping
a tiger: tiger, tiger-face, tiger-side
a train: locomotive, steam-locomotive, train, high-speed-train
a tree: evergreen-tree, deciduous-tree, evergreen
a truck: delivery-truck, articulated-lorry
a turtle: turtle
an umbrella: umbrella, closed-umbrella, umbrella-with-rain-drops
a unicorn: unicorn
a volcano: volcano
a watermelon: watermelon
a whale: whale, spouting-whale, spurting-whale
"""

# What else people type for a prompt.
ALIASES = """
plane: an airplane
clock: an alarm clock
honeybee: a bee
bike: a bicycle
automobile: a car
kitten: a cat
cherry: cherries
rooster: a chicken
xmas tree: a christmas tree
gem: a diamond
puppy: a dog
donut: a doughnut
flame: fire
fries: french fries
present: a gift
earth: a globe
grape: grapes
burger: a hamburger
hotdog: a hot dog
coffee: a hot drink
jack-o-lantern: a jack-o'-lantern
pumpkin: a jack-o'-lantern
bulb: a light bulb
moon: a crescent moon
motorbike: a motorcycle
lock: a padlock
bunny: a rabbit
boat: a sailboat
football: a soccer ball
lorry: a truck
"""

# "set/name": why a person would not call it by its prompt, or why it is no good at this size.
LEFT_OUT = {
    "fxemoji/heartblue": "most of it lies outside its own page",
    "fxemoji/sunglasses": "a face that wears sunglasses",
    "emojione/motorcycle": "more of a rider than of a motorcycle",
    "noto-v1/train": "would pass for a yellow bus",
}


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


def parse_table(text):
    """Read lines `key: value, value` into a dict of lists; a key twice raises ValueError."""
    table = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, _, values = line.partition(":")
        if key in table:
            raise ValueError(f'"{key}" stands twice in the table')
        table[key] = [value.strip() for value in values.split(",")]
    return table


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
    if licence != PACKAGE_LICENCE.get(art.key, art.licence):
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
    for prompt, key, name in group(parse_table(PROMPTS), icon_sets):
        image = None if f"{key}/{name}" in LEFT_OUT else render(svg(icon_sets[key], name))
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
    aliases = {alias: prompt for alias, [prompt] in parse_table(ALIASES).items()}
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
    """Write an .npz and its .sha256 beside it; fixed time stamps make the same arrays the same
    bytes.

    Each is written under another name and then renamed, so a stopped build leaves no half file.
    """
    path = Path(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980-01-01
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    data = buffer.getvalue()
    checksum = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode()
    for target, content in ((path, data), (Path(f"{path}.sha256"), checksum)):
        part = Path(f"{target}.part")
        part.write_bytes(content)
        os.replace(part, target)


def attribution(arrays):
    """The text of ATTRIBUTION.md."""
    lines = [
        "# Icons: whose drawings these are",
        "",
        "`icons.npz` holds drawings from these sets, all changed in the same way:",
        "rasterised to 64x64 on white, grouped under prompts, near-copies merged.",
        "Nobody named here endorses this project.",
        "",
        "| Set | Package | Author | Licence | Project | Pictures |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for s in SETS:
        count = int((arrays["set"] == s.key).sum())
        lines.append(
            f"| {s.title} | `@iconify-json/{s.key}` {s.version} | {s.author} | {s.licence} "
            f"| <https://github.com/{s.project}> | {count} |"
        )
    lines += [
        f"| all | | | | | {len(arrays['images'])} |",
        "",
        "Fluent Emoji is Copyright (c) Microsoft Corporation. Twemoji is Copyright Twitter, Inc",
        "and other contributors. FxEmojis is Copyright 2015 Mozilla Foundation: its code is under Apache-2.0",
        "(the licence its package names), its visual design, which is what is used here, under CC BY 4.0.",
        "",
        "The full texts lie beside this file: `LICENSE-APACHE-2.0.txt`, `LICENSE-MIT-FLUENT.txt` and",
        "`LICENSE-CC-BY-4.0.txt` (<https://creativecommons.org/licenses/by/4.0/>).",
        "The set, name and licence of every picture are in `icons.npz` and in `icons().sources`.",
        "",
        "This file is written by `dsd_lab/worlds/build_icons.py`.",
        "",
    ]
    return "\n".join(lines)


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

"""The picture worlds: what is shipped, how prompts and sizes resolve, and what errors say."""

import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dsd_lab.worlds import PictureWorld, folder, icons
from dsd_lab.worlds.build import icons as build_icons
from dsd_lab.worlds.icons import DATA, load
from dsd_lab.worlds.pictures import Source

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def world():
    return icons()


# What is shipped


def test_icons_counts(world):
    per_prompt = torch.bincount(world.label, minlength=len(world.prompts))
    assert len(world.prompts) >= 95 and len(set(world.prompts)) == len(world.prompts)
    assert 700 <= len(world) <= 1200
    assert per_prompt.min() >= 6
    assert world.pixels.shape == (len(world), 3, 64, 64)
    assert (DATA / "icons.npz").stat().st_size < 8_000_000


def test_icons_named_prompts(world):
    wanted = "a hamburger, a dragon, an apple, a tree, a mushroom, a cat, a castle, a rocket".split(
        ", "
    )
    assert set(wanted) <= set(world.prompts)


def test_icons_are_sorted_by_noun(world):
    nouns = [build_icons.noun(prompt) for prompt in world.prompts]
    assert nouns == sorted(nouns)
    assert (world.label.diff() >= 0).all()


def test_icons_have_no_near_copies(world):  # neither within a prompt nor under two
    flat = world.images().flatten(1)
    distance = torch.cdist(flat, flat, compute_mode="use_mm_for_euclid_dist") / flat.shape[1] ** 0.5
    assert distance.fill_diagonal_(1).min() >= 0.0299  # the builder compares in double precision


def test_icons_show_something_on_white(world):
    assert not any(
        build_icons.is_blank(image) for image in world.pixels.permute(0, 2, 3, 1).numpy()
    )
    assert world.images().amax(dim=(1, 2, 3)).min() > 0.9


def test_icons_licences_and_sources(world):
    assert {s.licence for s in world.sources} == {
        "Apache-2.0",
        "CC-BY-4.0",
        "MIT",
    }  # no share-alike
    assert len(world.sources) == len(world) == len(set(world.sources))
    assert all(source.set and source.name for source in world.sources)
    stated = {art.key: art.licence for art in build_icons.SETS}
    assert all(stated[source.set] == source.licence for source in world.sources)


def test_icons_attribution_counts_every_picture(world):
    text = (DATA / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for art in build_icons.SETS:
        count = sum(source.set == art.key for source in world.sources)
        assert re.search(rf"`@iconify-json/{art.key}` {art.version} .* \| {count} \|", text)
    assert "rasterised to 64x64 on white, grouped under prompts, near-copies merged" in text
    for licence in ("APACHE-2.0", "CC-BY-4.0", "MIT-FLUENT"):
        assert (DATA / f"LICENSE-{licence}.txt").stat().st_size > 1000
    assert {"Google", "Microsoft", "Mozilla"} <= set(re.findall(r"\w+", world.credit))


def test_icons_are_the_tables(world):
    assert set(world.prompts) == set(build_icons.TABLES["prompts"])
    assert set(world.aliases) == set(build_icons.TABLES["aliases"])


def test_damage_is_detected(tmp_path):
    for name in ("icons.npz", "icons.npz.sha256"):
        shutil.copy(DATA / name, tmp_path)
    content = bytearray((tmp_path / "icons.npz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "icons.npz").write_bytes(content)
    with pytest.raises(ValueError, match="checksum; reinstall dsd_lab, or rebuild .*build_icons"):
        load(tmp_path)


def test_missing_data_is_detected(tmp_path):
    with pytest.raises(ValueError, match="is missing or cannot be read; reinstall"):
        load(tmp_path)


# Prompts


@pytest.mark.parametrize("said", ["a dragon", "Dragon", " the  DRAGON ", "an dragon"])
def test_resolve_ignores_case_spaces_and_article(world, said):
    assert world.resolve(said) == "a dragon"


def test_every_alias_resolves(world):
    for alias, prompt in world.aliases.items():
        assert world.resolve(alias) == world.resolve(f"A {alias}") == prompt
    assert world.resolve("burger") == "a hamburger"


def test_unknown_prompt_names_the_nearest(world):
    count = len(world.prompts)
    listed = f"{count} prompts; `dsd-lab prompts` or prior.prompts lists them"
    message = f'unknown prompt "a dargon"; did you mean "a dragon"? ({listed})'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        world.resolve("a dargon")
    with pytest.raises(ValueError, match='^unknown prompt "qqqq" .107 prompts;'):
        world.images("qqqq")


@pytest.mark.parametrize("wrong", [None, 3, ["a cat"]])
def test_prompt_must_be_a_string(world, wrong):
    with pytest.raises(TypeError, match="a prompt is a string such as"):
        world.resolve(wrong)


def test_images_and_index(world):
    positions = world.index("a cat")
    assert positions.dtype == torch.int64
    assert {world.prompts[i] for i in world.label[positions]} == {"a cat"}
    cats = world.images("cat")
    assert cats.dtype == torch.float32 and 0 <= cats.min() and cats.max() <= 1
    assert torch.equal((cats * 255).round().byte(), world.pixels[positions])
    assert len(world.images()) == len(world)


# Sizes


def tiny(side=16, count=1):
    pixels = (
        torch.arange(count * 3 * side * side).reshape(count, 3, side, side).remainder(251).byte()
    )
    sources = tuple(Source("hand", str(i), "none") for i in range(count))
    return PictureWorld("tiny", ("a", "b"), pixels, torch.zeros(count, dtype=torch.int64), sources)


def test_resized_takes_the_mean_of_each_block():
    world = tiny()
    small = world.resized(8)
    block = world.pixels[0, 1, 2:4, 6:8].tolist()
    assert small.pixels[0, 1, 1, 3] == round(sum(block[0] + block[1]) / 4)
    assert small.pixels.shape == (1, 3, 8, 8) and small.pixels.dtype == torch.uint8


def test_resized_where_it_does_not_divide_keeps_the_mean(world):
    small = world.resized(24)
    assert small.pixels.shape[-1] == 24
    assert abs(small.images().mean() - world.images().mean()) < 0.005
    assert small.prompts == world.prompts and small.sources == world.sources


def test_resized_to_its_own_size_is_itself(world):
    assert world.resized(64) is world
    assert icons(32) is icons(32)


@pytest.mark.parametrize(("size", "nearest"), [(4, 8), (65, 64), (32.0, 8), (True, 8), ("32", 8)])
def test_resized_refuses_other_sizes(world, size, nearest):
    with pytest.raises(
        ValueError, match=rf"size must be a whole number from 8 to 64, got .*; try {nearest}"
    ):
        world.resized(size)


def test_world_checks_its_parts():
    world = tiny()
    with pytest.raises(ValueError, match="pixels must be uint8"):
        PictureWorld("x", world.prompts, world.images(), world.label, world.sources)
    with pytest.raises(ValueError, match="equally many"):
        PictureWorld("x", world.prompts, world.pixels, world.label, ())
    assert repr(world) == "PictureWorld('tiny': 1 pictures of 16x16, 2 prompts)"


# Your own pictures


@pytest.fixture
def mine(tmp_path):
    for label in ("a red square", "blue"):
        (tmp_path / label).mkdir()
    Image.new("RGB", (20, 20), RED).save(tmp_path / "a red square" / "b.png")
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(
        tmp_path / "a red square" / "a.PNG"
    )  # all transparent
    Image.new("RGB", (40, 10), BLUE).save(tmp_path / "blue" / "wide.png")
    (tmp_path / "blue" / "notes.txt").write_text("not a picture")
    return tmp_path


def test_folder_round_trip(mine):
    world = folder(mine, size=16)
    assert world.prompts == ("a red square", "blue")
    assert world.label.tolist() == [0, 0, 1]
    assert [source[:2] for source in world.sources] == [
        ("a red square", "a.PNG"), ("a red square", "b.png"), ("blue", "wide.png"),
    ]  # fmt: skip
    assert world.pixels.shape == (3, 3, 16, 16)
    assert (world.pixels[0] == 255).all()  # transparent became white
    assert (world.pixels[1] == torch.tensor(RED)[:, None, None]).all()
    wide = world.pixels[2].permute(1, 2, 0)
    assert wide[0, 8].tolist() == wide[15, 8].tolist() == [255, 255, 255]  # padded, not cropped
    assert wide[8, 0].tolist() == wide[8, 15].tolist() == list(BLUE)
    assert world.resolve("Red Square") == "a red square"


def test_folder_turns_pictures_upright(mine):
    picture = Image.new("RGB", (32, 32), RED)
    picture.paste(BLUE, (0, 0, 32, 16))  # blue above red, and a tag that says: turn by a half
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(mine / "blue" / "turned.png", exif=exif)
    turned = folder(mine, size=32).pixels[2]
    assert turned[:, 4, 16].tolist() == list(RED) and turned[:, 28, 16].tolist() == list(BLUE)


def test_folder_that_is_not_there(mine):
    with pytest.raises(ValueError, match="does not exist; give a folder with one sub-folder"):
        folder(mine / "nowhere")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        folder(mine / "blue" / "wide.png")


def test_folder_without_sub_folders(mine):
    with pytest.raises(ValueError, match="has no sub-folders"):
        folder(mine / "blue")


def test_folder_with_an_empty_sub_folder(mine):
    (mine / "green").mkdir()
    with pytest.raises(ValueError, match=r"green has no pictures \(.avif, .*, .webp\)"):
        folder(mine)


def test_folder_with_a_broken_file(mine):
    good = (mine / "blue" / "wide.png").read_bytes()
    for content in (b"not a picture", good[:50]):
        (mine / "blue" / "broken.png").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"cannot read the picture .*broken\.png .*; replace or remove"
        ):
            folder(mine)


def test_folder_with_one_label(mine):
    shutil.rmtree(mine / "blue")
    with pytest.raises(
        ValueError, match="needs at least two labels: with one, conditional and uncond"
    ):
        folder(mine)


def test_folder_refuses_other_sizes(mine):
    with pytest.raises(
        ValueError, match="size must be a whole number from 8 to 512, got 4000; try 512"
    ):
        folder(mine, size=4000)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_folder_takes_pictures_deeper_inside_and_of_all_kinds(mine):
    (mine / "blue" / "more" / "yet").mkdir(parents=True)
    for name in ("c.tif", "more/d.avif", "more/yet/e.jfif"):
        Image.new("RGB", (20, 20), BLUE).save(mine / "blue" / name)
    world = folder(mine, size=16)
    names = sorted(source.name for source in world.sources if source.set == "blue")
    assert names == ["c.tif", "d.avif", "e.jfif", "wide.png"]


def test_folder_leaves_the_systems_out_and_says_what_else(mine):
    """A NAS's thumbnails, an archive's leavings and hidden files are no labels and no pictures."""
    for name in ("@eaDir", "__MACOSX", ".cache", "blue/@eaDir"):
        (mine / name).mkdir()
        Image.new("RGB", (20, 20), RED).save(mine / name / "thumb.png")
    for name in (".DS_Store", "blue/Thumbs.db", "blue/._wide.png", "Desktop.ini"):
        (mine / name).write_bytes(b"binary")
    (mine / "loose.png").write_bytes((mine / "blue" / "wide.png").read_bytes())
    with pytest.warns(UserWarning, match=r"left out, .*: loose.png, blue/notes.txt$"):
        world = folder(mine, size=16)
    assert world.prompts == ("a red square", "blue") and len(world) == 3


def test_folder_of_sixteen_bit_pictures(mine):
    Image.new("I;16", (16, 16), 20000).save(mine / "a red square" / "0.png")
    with pytest.warns(UserWarning, match="left out"):
        assert folder(mine, size=16).pixels[0].unique().tolist() == [78]


@pytest.mark.filterwarnings("ignore:.*left out")
def test_names_are_compared_composed_and_without_case(mine):
    (mine / "blue").rename(mine / "cafe\u0301 bleu")
    world = folder(mine, size=16)
    for prompt in ("caf\u00e9 bleu", "cafe\u0301 bleu", "the CAFE\u0301  Bleu"):
        assert world.resolve(prompt) == "caf\u00e9 bleu"
    (mine / "caf\u00e9 bleu").mkdir()
    with pytest.raises(ValueError, match="two sub-folders named"):
        folder(mine, size=16)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_folder_is_found_by_its_name_composed_otherwise(mine):
    mine.rename(mine.with_name("Stra\u00dfe a\u0300"))
    assert len(folder(mine.with_name("strasse \u00e0"), size=16)) == 3


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_label_that_is_not_unicode(mine):
    os.rename(mine / "blue", os.fsencode(mine) + b"/caf\xe9")
    assert folder(mine, size=16).prompts == ("a red square", "caf\ufffd")


# The builder


SMALL_SETS = {
    "one": {
        "icons": {"hot-dog": {}, "cat-face": {}, "cat": {}},
        "aliases": {"kitty": {"parent": "cat"}, "left-cat": {"parent": "cat", "hFlip": True}},
    },
    "two": {"icons": {"u1f431-catface": {}, "u1f32d-hotdog": {}}},
}


def test_normalise():
    assert (
        build_icons.normalise("u1f354-hamburger")
        == build_icons.normalise("Ham-burger")
        == "hamburger"
    )
    assert build_icons.normalise("unicorn") == "unicorn"  # no code point, though it begins with u


def test_find_takes_each_drawing_once():
    wanted = ["kitty", "cat", "cat-face", "left-cat", "dog"]
    assert build_icons.find(SMALL_SETS["one"], wanted) == ["cat", "cat-face"]


def test_group_is_the_same_in_any_order_of_the_table():
    table = {"a hot dog": ["hot-dog"], "a cat": ["cat", "cat-face"]}
    rows = build_icons.group(table, SMALL_SETS)
    assert rows == [
        ("a cat", "one", "cat"), ("a cat", "one", "cat-face"), ("a cat", "two", "u1f431-catface"),
        ("a hot dog", "one", "hot-dog"), ("a hot dog", "two", "u1f32d-hotdog"),
    ]  # fmt: skip
    assert build_icons.group(dict(reversed(table.items())), SMALL_SETS) == rows


def test_group_refuses_a_drawing_under_two_prompts():
    with pytest.raises(ValueError, match='one/cat is under both "a cat" and "a pet"'):
        build_icons.group({"a pet": ["kitty"], "a cat": ["cat"]}, SMALL_SETS)


def test_merge_keeps_the_first_of_near_copies():
    grey = np.full((4, 4, 3), 100, np.uint8)
    images = [grey, grey + 7, grey + 8, grey]  # 7 / 255 = 0.0275 is near, 8 / 255 = 0.0314 is not
    assert build_icons.merge(images) == [0, 2]
    assert build_icons.rmse(images[0], images)[2] == pytest.approx(8 / 255)


def test_written_file_is_the_same_bytes_and_loads(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    prompts = build_icons.TABLES["prompts"]
    pictures = [build_icons.Picture(prompt, "one", prompt, "MIT", image) for prompt in prompts]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build_icons.write(build_icons.pack(pictures), tmp_path / name / "icons.npz")
    first, second = ((tmp_path / name / "icons.npz").read_bytes() for name in ("a", "b"))
    assert first == second
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["icons.npz", "icons.npz.sha256"]
    assert load(tmp_path / "a").sources[0].licence == "MIT"


def test_differences():
    built = {"x": np.arange(3), "y": np.arange(3)}
    assert build_icons.differences(built, dict(built)) == []
    assert build_icons.differences(built, {"x": np.arange(4), "z": np.arange(3)}) == ["x", "y", "z"]


def test_render_on_white_and_centred():
    pytest.importorskip("resvg_py")
    wide = {
        "icons": {
            "bar": {"body": '<path fill="#f00" d="M0 0h20v10H0z"/>', "width": 20, "height": 10}
        }
    }
    image = build_icons.render(build_icons.svg(wide, "bar"))
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert image[32, 2].tolist() == image[32, 61].tolist() == list(RED)
    assert image[8, 32].tolist() == image[55, 32].tolist() == [255, 255, 255]
    assert not build_icons.is_blank(image)
    assert build_icons.is_blank(
        build_icons.render(build_icons.svg({"icons": {"no": {"body": ""}}}, "no"))
    )

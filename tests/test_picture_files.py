"""Picture files of every mode, depth, byte order and profile, against values worked out by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from dsd_lab.picture_files import SUFFIXES, read_picture

COLOUR = (200, 120, 60)
GREY = round(20000 / 65535 * 255)  # 78: a value of 16 bits


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def of_mode(mode: str) -> Image.Image:
    """A plain picture of COLOUR in a mode."""
    picture = Image.new("RGB", (16, 16), COLOUR)
    if mode == "LAB":
        ends = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(picture, *ends, outputMode="LAB")
    steps = {"La": ("LA",), "RGBa": ("RGBA",), "PA": ("P",)}.get(mode, ())
    for step in (*steps, mode):
        picture = picture.convert(step)
    return picture


def png(depth: int, kind: int, pixel: bytes, chunks: bytes = b"") -> io.BytesIO:
    """A PNG of 16 x 16 equal pixels, written by hand."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, kind, 0, 0, 0))
    rows = zlib.compress((b"\0" + pixel * 16) * 16)
    end = chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + chunks + end)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def colour_of(source) -> tuple[int, ...]:
    """The one colour of a plain picture, as it is read."""
    picture = read_picture(source)
    assert picture.mode == "RGBA" and len(picture.getcolors()) == 1
    return picture.getpixel((0, 0))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_colour_modes(mode):
    assert colour_of(of_mode(mode)) == pytest.approx((*COLOUR, 255), abs=2)


@pytest.mark.parametrize("mode", ["L", "LA", "La"])
def test_grey_modes(mode):
    assert colour_of(of_mode(mode)) == (137, 137, 137, 255)  # 0.299 R + 0.587 G + 0.114 B


def test_two_colours_and_palettes():
    assert colour_of(Image.new("1", (16, 16), 1)) == (255, 255, 255, 255)
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, *COLOUR])
    assert colour_of(palette) == (*COLOUR, 255)
    palette.info["transparency"] = 1
    assert colour_of(palette)[3] == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I", "F"])
def test_sixteen_bits_are_scaled(mode):
    assert colour_of(Image.new(mode, (16, 16), 20000)) == (GREY, GREY, GREY, 255)


@pytest.mark.parametrize(
    "mode, value, grey",
    [("I", 120, 120), ("I", 2**31 - 1, 127), ("F", 0.5, 128), ("F", 120.0, 120), ("F", 1.2, 255)],
)
def test_the_smallest_range_that_holds_the_values(mode, value, grey):
    assert colour_of(Image.new(mode, (16, 16), value))[0] == grey


@pytest.mark.parametrize("mode, value", [("I", -5), ("F", -5.0), ("F", np.nan), ("F", np.inf)])
def test_values_that_are_no_colours(mode, value):
    with pytest.raises(ValueError, match="the picture: .*(negative|finite)"):
        read_picture(Image.new(mode, (16, 16), value))


@pytest.mark.parametrize(
    "form, mode",
    [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B"), ("TIFF", "I"), ("TIFF", "F"),
     ("JPEG2000", "I;16"), ("PPM", "I")],
)  # fmt: skip
def test_sixteen_bits_in_files(form, mode, tmp_path):
    Image.new(mode, (16, 16), 20000).save(tmp_path / "grey", form)
    assert colour_of(tmp_path / "grey")[:3] == (GREY,) * 3


def test_a_files_depth_is_known_without_its_values(tmp_path):
    """A dark picture of 16 bits stays dark: its format says the range."""
    for form in ("PNG", "PPM"):
        mode = "I" if form == "PPM" else "I;16"
        Image.new(mode, (16, 16), 200).save(tmp_path / "dark", form)
        assert colour_of(tmp_path / "dark")[0] == 1


def test_sixteen_bits_of_several_channels():
    values = struct.pack(">HHHH", 20000, 40000, 60000, 65535)
    assert colour_of(png(16, 2, values[:6])) == pytest.approx((78, 156, 233, 255), abs=1)
    assert colour_of(png(16, 6, values)) == pytest.approx((78, 156, 233, 255), abs=1)
    assert colour_of(png(16, 4, values[:2] + values[6:])) == (GREY, GREY, GREY, 255)
    clear = chunk(b"tRNS", values[:2])
    assert colour_of(png(16, 0, values[:2], clear))[3] == 0
    assert colour_of(png(16, 0, values[2:4], clear))[3] == 255


def test_a_colour_profile_is_applied(tmp_path):
    """A profile whose red and green primaries are exchanged shows red as green."""
    turned = srgb_profile().replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ")
    turned = turned.replace(b"?XYZ", b"gXYZ")
    for mode in ("RGB", "RGBA", "P"):
        picture = Image.new("RGB", (16, 16), (204, 51, 51)).convert(mode)
        assert colour_of(picture)[0] >= 200, mode
        picture.save(tmp_path / "turned.png", icc_profile=turned)
        seen = colour_of(tmp_path / "turned.png")
        assert seen[0] < 100 and seen[1] > 180, mode
    Image.new("RGB", (16, 16), COLOUR).save(tmp_path / "same.png", icc_profile=srgb_profile())
    assert colour_of(tmp_path / "same.png")[:3] == pytest.approx(COLOUR, abs=1)


def test_a_profile_that_cannot_be_used_is_said(tmp_path):
    for profile in (b"no profile", srgb_profile()[:200]):
        Image.new("RGB", (16, 16), COLOUR).save(tmp_path / "odd.png", icc_profile=profile)
        with pytest.warns(UserWarning, match="profile cannot be used .*taken as sRGB"):
            assert colour_of(tmp_path / "odd.png") == (*COLOUR, 255)


def test_transparency_survives_a_profile(tmp_path):
    picture = Image.new("RGBA", (16, 16), (*COLOUR, 100))
    picture.save(tmp_path / "clear.png", icc_profile=srgb_profile())
    assert colour_of(tmp_path / "clear.png") == pytest.approx((*COLOUR, 100), abs=1)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_film_is_its_first_frame(form, tmp_path):
    first, second = (Image.new("RGB", (16, 16), c) for c in ((255, 0, 0), (0, 0, 255)))
    first.save(tmp_path / "film", form, save_all=True, append_images=[second])
    assert colour_of(tmp_path / "film")[0] > 240


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation(turn, tmp_path):
    """Exif's eight orientations, each undone: red is left above again."""
    upright = Image.new("RGB", (16, 24), "blue")
    upright.paste((255, 0, 0), (0, 0, 8, 12))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transposition that undoes the turn
    stored = upright if turn == 1 else upright.transpose(Image.Transpose(back[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "turned.png", exif=exif)
    assert read_picture(tmp_path / "turned.png").convert("RGB").tobytes() == upright.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read(suffix, tmp_path):
    place = tmp_path / f"picture{suffix}"
    mode = "L" if suffix == ".pgm" else "RGB"
    Image.new("RGB", (16, 16), COLOUR).convert(mode).save(place)
    want = (137, 137, 137) if mode == "L" else COLOUR
    assert read_picture(place).getpixel((8, 8))[:3] == pytest.approx(want, abs=6)


def test_damaged_files(tmp_path):
    place = tmp_path / "picture"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "AVIF", "BMP", "TGA", "JPEG2000", "PPM"):
        Image.fromarray(noise).save(place, form)
        whole = place.read_bytes()
        for end in (0, 1, 20, len(whole) // 2):
            place.write_bytes(whole[:end])
            with pytest.raises(ValueError, match="picture is not a picture that can be read"):
                read_picture(place)


def test_sides(tmp_path):
    Image.new("RGB", (10, 20)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="small.png: .*from 16 to 30 pixels, got 10"):
        read_picture(tmp_path / "small.png", (16, 30))

"""The picture that a reconstruction starts from: what of it is object, where it comes to stand, and
what is refused.
"""

import io
import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dsd_lab import Camera, InputView, input_view
from dsd_lab.inputs import FILL, LARGEST, SMALLEST

RED, WALL = (204, 51, 0), (90, 120, 150)


def picture(width=40, height=40, box=(10, 10, 30, 30), colour=RED, wall=WALL, alpha=None):
    """A PIL image of a box (left, top, right, bottom) before a plain wall, or before nothing (alpha
    0).
    """
    pixels = np.zeros((height, width, 3 if alpha is None else 4), np.uint8)
    pixels[..., :3] = wall
    left, top, right, bottom = box
    pixels[top:bottom, left:right, :3] = colour
    if alpha is not None:
        pixels[top:bottom, left:right, 3] = alpha
    return Image.fromarray(pixels)


def span(mask):
    """First and last row and column of the object."""
    rows, columns = ((mask[0] > 0.5).any(axis).nonzero()[:, 0] for axis in (1, 0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


# ---- what is object


def test_transparency_says_what_is_object():
    """A 20 x 20 box in a square of round(20 / 0.85) = 24: in 24 pixels nothing is resized, and the
    box begins at 2.
    """
    view = input_view(picture(alpha=255), size=24)
    want = torch.zeros(1, 24, 24)
    want[:, 2:22, 2:22] = 1
    torch.testing.assert_close(view.mask, want)
    colour = torch.tensor(RED)[:, None, None] / 255
    torch.testing.assert_close(
        view.image, want * colour + 1 - want
    )  # on white, whatever colour lies under what is clear
    assert view.camera == Camera() and view.image.dtype == torch.float32


def test_what_is_half_clear_is_mixed_with_white():
    view = input_view(picture(alpha=153), size=24)  # 0.6
    assert view.mask.unique().tolist() == pytest.approx([0, 0.6])
    inside = view.image[:, 12, 12]
    torch.testing.assert_close(inside, torch.tensor([0.8 * 0.6 + 0.4, 0.2 * 0.6 + 0.4, 0.4]))


def test_a_plain_background_is_removed():
    clear, plain = input_view(picture(alpha=255), size=24), input_view(picture(), size=24)
    assert torch.equal(clear.mask, plain.mask) and torch.equal(clear.image, plain.image)
    opaque = input_view(
        picture(alpha=255).convert("RGB").convert("RGBA"), size=24
    )  # an alpha that says nothing
    assert torch.equal(opaque.mask, plain.mask)


def test_a_background_may_vary_a_little():
    """Up to 0.08 a channel around its median: 20 of 255 counts as background, 21 does not."""
    for step, left_out in ((20, 0), (21, 1)):
        image = np.array(picture())
        image[3, 3] = np.array(WALL) + (step, 0, 0)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert span(input_view(Image.fromarray(image), size=24).mask) == (2, 21, 2, 21)
        assert len(said) == left_out


def test_a_hole_with_the_backgrounds_colour_is_object():
    """What the object surrounds is the object's, by pixels that share an edge; a bay that is open
    to the border is not.
    """
    image = np.array(picture())
    image[14:18, 14:18] = WALL  # a hole
    image[26:30, 20:22] = WALL  # a bay at the lower edge
    image[24:26, 22:24] = WALL  # and a hole that touches it by a corner
    view = input_view(Image.fromarray(image), size=24)
    want = torch.zeros(24, 24)
    want[2:22, 2:22] = 1
    want[18:22, 12:14] = 0
    assert torch.equal(view.mask[0], want)
    torch.testing.assert_close(view.image[:, 7, 7], torch.tensor(WALL) / 255)
    torch.testing.assert_close(view.image[:, 20, 12], torch.ones(3))


def test_an_object_may_touch_the_border():
    assert span(input_view(picture(box=(18, 10, 22, 40)), size=35).mask)[:2] == (
        2,
        31,
    )  # 4 of 160 border pixels are not wall
    with pytest.raises(ValueError, match="its border is not of one colour"):
        input_view(picture(box=(8, 10, 32, 40)))  # 24 are: more than one in ten


# ---- where it comes to stand


@pytest.mark.parametrize("box", [(2, 3, 22, 33), (50, 60, 70, 90)])
def test_the_object_is_in_the_middle_wherever_it_was(box):
    """20 wide and 30 high: the longer side decides the square, round(30 / 0.85) = 35 pixels."""
    view = input_view(picture(100, 120, box), size=35)
    assert span(view.mask) == (2, 31, 7, 26)
    assert view.mask.sum() == 600


@pytest.mark.parametrize("size", [16, 64, 100])
def test_it_spans_its_share_at_every_size(size):
    for box in ((40, 100, 240, 200), (100, 40, 200, 240)):  # wide, and high
        view = input_view(picture(300, 300, box), size=size)
        top, bottom, left, right = span(view.mask)
        longer, shorter = sorted((bottom - top + 1, right - left + 1), reverse=True)
        assert view.image.shape == (3, size, size) and view.mask.shape == (1, size, size)
        assert longer == pytest.approx(FILL * size, abs=2) and shorter == pytest.approx(
            FILL * size / 2, abs=2
        )
        assert top + bottom == pytest.approx(size - 1, abs=2) and left + right == pytest.approx(
            size - 1, abs=2
        )
        assert view.mask.mean().item() == pytest.approx(FILL**2 / 2, rel=0.03)
        assert torch.equal(view.image[:, 0, 0], torch.ones(3))


def test_large_pictures_are_reduced_and_left_as_they_were():
    image = picture(2048, 1024, (512, 256, 1024, 768), alpha=255)
    view = input_view(image, size=20)
    assert span(view.mask)[0] == span(view.mask)[2] and image.size == (2048, 1024)
    assert view.mask.mean().item() == pytest.approx(FILL**2, rel=0.03)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "CMYK", "RGBA"])
def test_other_kinds_of_pictures(mode):
    image = picture(alpha=255 if "A" in mode else None)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    assert span(input_view(image, size=24).mask) == (2, 21, 2, 21)


def test_files(tmp_path, monkeypatch):
    picture(alpha=255).save(tmp_path / "own.png")
    picture().save(tmp_path / "photo.jpg", quality=95)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (tmp_path / "own.png", str(tmp_path / "photo.jpg"), "~/own.png"):
        view = input_view(name, Camera(30, 10), size=24)
        assert view.mask.sum().item() == pytest.approx(400, abs=40) and view.camera == Camera(
            30, 10
        )


# ---- pictures as tensors


def tensor(size=16):
    image = torch.ones(3, size, size)
    image[:, 4:10, 3:12] = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(0)) * 0.9
    return image


def test_a_tensor_is_taken_as_it_is():
    image = tensor()
    image[0, 0, 0] = 1 - 1 / 255  # as good as white
    image[2, 15, 15] = 1 - 3 / 255  # not white in one channel
    view = input_view(image, Camera(5), size=16)
    assert torch.equal(view.image, image)
    want = torch.zeros(1, 16, 16)
    want[:, 4:10, 3:12] = want[:, 15, 15] = 1
    assert torch.equal(view.mask, want) and view.camera == Camera(5)
    assert not input_view(image.double().requires_grad_(), size=16).image.requires_grad
    assert torch.equal(
        input_view(image).image, view.at_size(64).image
    )  # 64 px unless told otherwise


def test_a_view_is_taken_as_it_is():
    view = input_view(tensor(), Camera(5), size=16)
    assert input_view(view, size=16) is view
    other = input_view(view, size=8)
    assert other.image.shape == (3, 8, 8) and other.camera == Camera(5)


def test_at_size_by_hand():
    image = torch.arange(3 * 16, dtype=torch.float32).reshape(3, 4, 4) / 48
    mask = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [0] * 4, [1] * 4])[None].float()
    view = InputView(image, mask, Camera(7))
    half, double = view.at_size(2), view.at_size(8)
    torch.testing.assert_close(half.image, image.reshape(3, 2, 2, 2, 2).mean((2, 4)))  # block means
    torch.testing.assert_close(half.mask, torch.tensor([[[0.25, 1], [0.5, 0.5]]]))
    assert view.at_size(4) is view and half.camera == double.camera == Camera(7)
    row = torch.tensor(
        [0, 0.25, 0.75, 1, 1, 1, 1, 1]
    )  # straight lines between pixel centres, which are at +0.5
    torch.testing.assert_close(double.mask[0, 0], row)
    torch.testing.assert_close(
        double.mask[0, 1], 0.75 * row + 0.25 * torch.tensor([0, 0, 0, 0.25, 0.75, 1, 1, 1])
    )


def test_a_view_is_itself_alone():
    """It is a key: two of the same picture are two, and neither can be written to."""
    one, other = (InputView(tensor(), torch.ones(1, 16, 16)) for _ in "ab")
    assert one != other and len({one, other}) == 2
    with pytest.raises(FrozenInstanceError):
        one.camera = Camera(5)


# ---- what is refused


def noisy(low=0, high=256):
    return Image.fromarray(
        np.random.default_rng(0).integers(low, high, (40, 40, 3), dtype=np.uint8)
    )


def of(value, *shape):
    return torch.full(shape or (3, 16, 16), float(value))


@pytest.mark.parametrize(
    "image, error, message",
    [
        (None, TypeError, "a picture is a tensor .3, S, S., a PIL image or a path, got NoneType"),
        (3, TypeError, "got int"),
        (np.zeros((16, 16, 3)), TypeError, "got ndarray"),
        (["a.png"], TypeError, "got list"),
        ("nowhere/own.png", ValueError, "there is no picture nowhere/own.png"),
        (".", ValueError, "there is no picture"),
        (
            noisy(),
            ValueError,
            "no transparency and no plain background to remove: "
            "its border is not of one colour; give a PNG",
        ),
        (picture(alpha=0), ValueError, "the picture is empty"),
        (picture(box=(0, 0, 0, 0)), ValueError, "the picture is empty"),
        (
            picture(100, 100, (50, 50, 57, 57), alpha=255),
            ValueError,
            "the picture is empty",
        ),  # 49 of 10000 pixels
        (
            picture(box=(0, 0, 40, 40), alpha=255),
            ValueError,
            "the picture is empty",
        ),  # opaque, of one colour
        (picture(100, 100, (0, 0, 100, 99), alpha=255), ValueError, "the whole picture is object"),
        (
            picture(100, 100, (1, 1, 100, 100), wall=(0, 0, 0)),
            ValueError,
            "border is not of one colour",
        ),
        (picture(15, 40), ValueError, "sides must be from 16 to 8192 pixels, got 15"),
        (picture(8193, 16), ValueError, "sides must be from 16 to 8192 pixels, got 8193"),
        (of(0.5, 3, 15, 15), ValueError, "from 16 to 8192 pixels, got 15"),
        (torch.zeros(1).expand(3, 8200, 8200), ValueError, "got 8200"),
        (
            of(0.5, 1, 3, 16, 16),
            ValueError,
            r"must be \(3, S, S\) in \[0, 1\], got \(1, 3, 16, 16\)",
        ),
        (of(0.5, 4, 16, 16), ValueError, r"got \(4, 16, 16\)"),
        (of(0.5, 16, 16, 3), ValueError, r"got \(16, 16, 3\)"),
        (of(0.5, 3, 16, 20), ValueError, r"got \(3, 16, 20\)"),
        (of(1.1), ValueError, "must lie in .0, 1., got 1.1 to 1.1"),
        (of(-0.1), ValueError, "got -0.1 to -0.1"),
        (of("nan"), ValueError, "must lie in .0, 1., got nan"),
        (of("inf"), ValueError, "must lie in .0, 1., got inf"),
        ((tensor() * 255).byte(), ValueError, "got 0 to 255"),
        (of(1), ValueError, "the picture is empty"),
        (of(0.5), ValueError, "the whole picture is object"),
    ],
)
def test_pictures_that_it_refuses(image, error, message):
    with pytest.raises(error, match=message):
        input_view(image)


def test_shares_of_object_on_the_edge():
    for pixels, fine in ((49, False), (51, True)):  # of 100 x 100, a half per cent
        image = torch.ones(3, 100, 100)
        image[:, :1, :pixels] = 0
        if fine:
            assert input_view(image, size=100).mask.sum() == pixels
        else:
            with pytest.raises(ValueError, match="empty"):
                input_view(image)
    image = torch.zeros(3, 100, 100)
    image[:, :2] = 1
    assert input_view(image, size=100).mask.mean().item() == pytest.approx(0.98)


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "notes.png").write_text("no picture at all")
    with pytest.raises(ValueError, match="notes.png is not a picture that can be read"):
        input_view(tmp_path / "notes.png")
    noisy().save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    with pytest.raises(ValueError, match="half.png is not a picture that can be read"):
        input_view(tmp_path / "half.png")


@pytest.mark.parametrize("camera", [0, "front", (0, 20), [Camera()]])
def test_cameras_that_it_refuses(camera):
    with pytest.raises(TypeError, match="camera must be a Camera"):
        input_view(tensor(), camera)


def test_limits():
    assert (SMALLEST, LARGEST, FILL) == (16, 8192, 0.85)
    assert input_view(picture(16, 20, (4, 4, 12, 12), alpha=255)).image.shape == (3, 64, 64)


# ---- what moves a frame, and what must not


def thing(size):
    """A photo of an ellipse on a stalk before a plain, light wall."""
    k = size / 256
    photo = Image.new("RGB", (size, size), (205, 205, 200))
    draw = ImageDraw.Draw(photo)
    draw.ellipse([60 * k, 80 * k, 180 * k, 190 * k], fill=(180, 60, 40))
    draw.rectangle([110 * k, 60 * k, 130 * k, 90 * k], fill=(60, 110, 40))
    return photo


def dusty(photo):
    draw, size = ImageDraw.Draw(photo), photo.width
    for x, y in np.random.default_rng(0).integers(0, size, (30, 2)).tolist():
        photo.putpixel((x, y), (20, 20, 20))
    draw.line([5, 5, size // 4, 12], fill=(30, 30, 30))  # a hair
    return photo


def marked(photo):
    size = photo.width
    ImageDraw.Draw(photo).text((0.7 * size, 0.93 * size), "(c) ACME", fill=(90, 90, 90))
    return photo


def grainy(photo):
    noise = np.random.default_rng(0).normal(0, 10, (photo.height, photo.width, 3))
    return Image.fromarray((np.asarray(photo) + noise).clip(0, 255).round().astype(np.uint8))


@pytest.mark.filterwarnings("ignore:left out of the object")
@pytest.mark.parametrize("size", [64, 256, 1000])
@pytest.mark.parametrize("spoil", [dusty, marked, grainy])
def test_the_frame_stays(spoil, size):
    clean, view = input_view(thing(size)), input_view(spoil(thing(size)))
    assert span(view.mask) == pytest.approx(span(clean.mask), abs=1)
    assert (view.image - clean.image).abs().mean() < 0.02


def test_a_stray_pixel_is_left_out_with_a_word():
    image = picture(64, 64, (20, 20, 36, 36), alpha=255)
    alone = input_view(image)
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 100))  # its rim, half clear
    with pytest.warns(UserWarning, match=r"left out of the object: 1 part .*\(1 pixels\).*mask="):
        view = input_view(image)
    assert torch.equal(view.mask, alone.mask) and torch.equal(view.image, alone.image)


def test_parts_of_like_size_all_count():
    image = picture(64, 64, (10, 10, 30, 30), alpha=255)
    image.paste((*RED, 255), (50, 50, 56, 56))  # 36 of 400 pixels, more than a twentieth
    assert span(input_view(image, size=54).mask) == pytest.approx((4, 49, 4, 49), abs=1)


def test_colours_close_to_the_background_are_said():
    image = picture(wall=(120, 120, 120), colour=(145, 145, 145))
    with pytest.warns(UserWarning, match="doubtful what is object.*transparent, or input_view"):
        input_view(image)


def test_a_mask_of_ones_own(tmp_path):
    mask = Image.new("L", (40, 40))
    mask.paste(255, (10, 10, 30, 30))
    mask.save(tmp_path / "mask.png")
    want = input_view(picture(alpha=255), size=24)
    for given in (mask, tmp_path / "mask.png"):  # of a picture without any plain background
        view = input_view(Image.composite(picture(), noisy(), mask), size=24, mask=given)
        assert torch.equal(view.mask, want.mask) and torch.equal(view.image, want.image)
    with pytest.raises(ValueError, match=r"the mask must be of the picture's size"):
        input_view(picture(), mask=mask.resize((20, 20)))
    with pytest.raises(ValueError, match=r"a mask goes with a file or a PIL image"):
        input_view(tensor(), mask=mask)


def test_a_view_is_shown_in_a_notebook():
    """The picture and its mask side by side."""
    shown = Image.open(io.BytesIO(input_view(picture(alpha=255), size=24)._repr_png_()))
    assert shown.size == (2 * 144, 144)
    assert shown.getpixel((72, 72)) == RED and shown.getpixel((144 + 72, 72)) == (255, 255, 255)


@pytest.mark.parametrize("value", [20000, 60000])
def test_a_picture_of_sixteen_bits(tmp_path, value):
    pixels = np.zeros((40, 40), np.uint16)
    pixels[10:30, 10:30] = value
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    view = input_view(tmp_path / "grey.png", size=24)
    assert view.image[:, 12, 12].tolist() == pytest.approx([value / 65535] * 3, abs=1 / 255)


def test_a_file_by_a_name_that_is_composed_otherwise(tmp_path):
    picture(alpha=255).save(tmp_path / "cafe\u0301.PNG")
    assert input_view(tmp_path / "caf\u00e9.png").mask.any()

"""Picture files of every kind that Pillow reads, in one form: upright, sRGB, 8 bits, RGBA."""

import io
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm",
    ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
RANGES = (255, 2**16 - 1, 2**32 - 1)  # the largest value of a picture of 8, 16 and 32 bits


def read_picture(source: str | Path | Image.Image, sides: tuple[int, int] = (1, 2**16)):
    """A file's or PIL image's picture, upright, in sRGB: a PIL image of mode RGBA.

    Values of more than 8 bits are scaled by their range, an embedded colour profile is applied, and
    a film is its first frame. sides: the fewest and most pixels a side. Raises ValueError, with the
    file and what is wrong, for what cannot be read.
    """
    given = isinstance(source, Image.Image)
    name = "the picture" if given else source
    try:
        with nullcontext(source) if given else Image.open(source) as picture:
            check_sides(picture.size, sides)
            return _rgba(picture)
    except _Refused as error:
        raise ValueError(f"{name}: {error}") from None
    except Exception as error:  # Pillow's readers raise whatever the parsing of a bad file meets
        raise ValueError(f"{name} is not a picture that can be read: {error}") from error


class _Refused(ValueError):
    """A picture that can be read and not used."""


def check_sides(size: Sequence[int], sides: tuple[int, int]) -> None:
    """Raises ValueError for a side of a picture below the fewest or above the most pixels."""
    fewest, most = sides
    for side in size:
        if not fewest <= side <= most:
            raise _Refused(f"a picture's sides must be from {fewest} to {most} pixels, got {side}")


def _rgba(picture: Image.Image) -> Image.Image:
    """The picture upright and in sRGB, mode RGBA."""
    bits = (getattr(picture, "tag_v2", None) or {}).get(258, ())  # a TIFF's bits a sample
    form, profile = picture.format, picture.info.get("icc_profile")
    picture = ImageOps.exif_transpose(picture)  # a copy
    if picture.mode[0] in "IF":
        picture = _eight_bits(picture, 2 ** bits[0] - 1 if bits and bits[0] < 32 else None, form)
    if picture.mode in ("1", "HSV", "La", "P", "PA", "RGBX", "RGBa", "YCbCr"):
        clear = "A" in picture.mode.upper() or "transparency" in picture.info
        steps = {"La": ("LA", "RGBA"), "HSV": ("RGB",), "1": ("L",)}
        for mode in steps.get(picture.mode, ("RGBA" if clear else "RGB",)):
            picture = picture.convert(mode)
    return _to_srgb(picture, profile)


def _eight_bits(picture: Image.Image, largest: int | None, form: str | None) -> Image.Image:
    """A grey picture of 16 or 32 bits, or of floats, as mode L, or LA if one value is transparent.

    largest: the largest value of its kind; None: what its mode and file format say, else the
    smallest usual range that holds its values (a float's usual range is 0 to 1, too).
    """
    values = np.asarray(picture)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise _Refused("the picture holds values that are not finite")
    if values.min() < 0 and not (values.dtype.kind == "f" and values.min() > -0.1):
        raise _Refused(f"a picture's values must not be negative, got {values.min():g}")
    if largest is None and (picture.mode.startswith("I;16") or form in ("PNG", "PPM")):
        largest = RANGES[1] if values.dtype.kind != "f" else None
    if largest is None:
        usual = (1, *RANGES) if values.dtype.kind == "f" else RANGES
        # a float may overshoot white a little, as after sharpening
        largest = next((n for n in usual if values.max() <= n * (1.5 if n == 1 else 1)), usual[-1])
    scaled = (values.astype(np.float64) / largest).clip(0, 1)
    grey = Image.fromarray((scaled * 255).round().astype(np.uint8))
    if isinstance(clear := picture.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """A picture of mode L, LA, RGB, RGBA, CMYK or LAB as RGBA, by its colour profile if any."""
    if picture.mode == "LAB" and not profile:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    if not profile:
        return picture.convert("RGBA")
    clear = picture.mode in ("LA", "RGBA") or "transparency" in picture.info
    alpha = picture.convert("RGBA").getchannel("A") if clear else None
    colour = picture.convert(picture.mode[:-1]) if picture.mode in ("LA", "RGBA") else picture
    try:
        own, srgb = ImageCms.getOpenProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        colour = ImageCms.profileToProfile(colour, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        warnings.warn(
            f"the picture's colour profile cannot be used ({error}): its colours are taken as sRGB",
            stacklevel=2,
        )
    result = colour.convert("RGBA")
    if alpha is not None:
        result.putalpha(alpha)
    return result

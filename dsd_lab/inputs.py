"""The picture that a reconstruction starts from: an object before white, what of it is object, and
from where it is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .cameras import Camera

SMALLEST, LARGEST = 16, 8192  # pixels a side
PLAIN = 0.08  # how far a background pixel's colour may be from the background's, in [0, 1]
# share of the picture that an own picture's object is made to span, about what the toys do
FILL = 0.85


@dataclass(frozen=True, eq=False)
class InputView:
    """One picture of an object: image (3, S, S) in [0, 1] before white, mask (1, S, S) of the
    object, and its camera.

    A camera's azimuth is only a name for where the picture is taken from: 0 calls that side the
    front. Its elevation, distance and field of view are assumptions about the picture, and a wrong
    elevation bends the object.
    """

    image: Tensor
    mask: Tensor
    camera: Camera = Camera()

    def to(self, device: str | torch.device) -> InputView:
        """The same view on a device."""
        return InputView(self.image.to(device), self.mask.to(device), self.camera)

    def at_size(self, size: int) -> InputView:
        """The same view in size x size pixels."""
        if size == self.image.shape[-1]:
            return self

        def resize(x):
            return F.interpolate(
                x[None], (size, size), mode="area" if size < x.shape[-1] else "bilinear"
            )[0]

        return InputView(resize(self.image), resize(self.mask), self.camera)


def input_view(image, camera: Camera | None = None, size: int = 64) -> InputView:
    """An `InputView` of size x size pixels from a picture: a tensor, a PIL image or a file's path.

    A tensor (3, S, S) in [0, 1] is taken as it is, an object before white. A file or PIL image with
    transparency says by it what is object; without, its background must be plain, and what lies
    within it is the object. Such a picture is cropped around the object, made square, and the
    object made to span 85 % of it, as the toys do at the default camera.
    camera: where it is taken from; `Camera()`, from the front and 20 degrees above, at distance 3
    with a field of view of 40 degrees, unless given. Raises TypeError or ValueError, saying what is
    wrong, for anything that cannot be used.
    """
    if camera is not None and not isinstance(camera, Camera):
        raise TypeError(f"camera must be a Camera, got {camera!r}")
    if isinstance(image, InputView):
        if camera not in (None, image.camera):
            raise ValueError(
                f"the picture has its camera, {image.camera}; make it anew for another"
            )
        return image.at_size(size)
    camera = camera or Camera()
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or image.shape[1] != image.shape[2]:
            raise ValueError(
                f"a picture as a tensor must be (3, S, S) in [0, 1], got {tuple(image.shape)}"
            )
        _check_side(image.shape[1])
        if not bool(torch.isfinite(image).all()) or image.min() < 0 or image.max() > 1:
            raise ValueError(
                f"a picture's values must lie in [0, 1], got {float(image.min()):g} to {float(image.max()):g}"
            )
        image = image.detach().float().cpu()
        mask = (image < 1 - 2 / 255).any(0, keepdim=True).float()
        return InputView(image, _object(mask), camera).at_size(size)
    colour, mask = _opened(image)
    return InputView(*_framed(colour, _object(mask), size), camera)


def _opened(source) -> tuple[Tensor, Tensor]:
    """A file's or PIL image's colours (3, H, W) and the mask of its object (1, H, W), both in [0,
    1].
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        if not path.is_file():
            raise ValueError(f"there is no picture {path}")
        try:
            with Image.open(path) as picture:
                picture.load()
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    elif isinstance(source, Image.Image):
        picture = source
    else:
        raise TypeError(
            f"a picture is a tensor (3, S, S), a PIL image or a path, got {type(source).__name__}"
        )
    for side in picture.size:
        _check_side(side)
    picture = ImageOps.exif_transpose(picture)  # upright, and a copy
    picture.thumbnail((1024, 1024))
    pixels = (
        torch.from_numpy(np.asarray(picture.convert("RGBA")).copy()).permute(2, 0, 1).float() / 255
    )
    colour, alpha = pixels[:3], pixels[3:]
    return colour, alpha if alpha.min() < 0.5 else _not_background(colour)


def _not_background(colour: Tensor) -> Tensor:
    """Where a picture without transparency is not its plain background, which surrounds the object:
    (1, H, W).
    """
    from skimage.measure import label

    border = torch.cat([colour[:, 0], colour[:, -1], colour[:, :, 0], colour[:, :, -1]], 1)
    background = border.median(1).values
    spread = (border - background[:, None]).abs().amax(0)
    if (spread > PLAIN).double().mean() > 0.1:
        raise ValueError(
            "the picture has no transparency and no plain background to remove: its border is not of one colour; "
            "give a PNG whose background is transparent, or a photo before a plain wall"
        )
    like = (colour - background[:, None, None]).abs().amax(0) <= PLAIN
    regions = torch.from_numpy(label(like.numpy(), connectivity=1))
    outside = torch.cat([regions[0], regions[-1], regions[:, 0], regions[:, -1]]).unique()
    return (~torch.isin(regions, outside[outside > 0])).float()[None]


def _object(mask: Tensor) -> Tensor:
    """The mask. Raises ValueError if next to nothing, or everything, is object."""
    share = float((mask > 0.5).double().mean())
    if share < 0.005:
        raise ValueError("the picture is empty: nothing in it stands out from its background")
    if share > 0.98:
        raise ValueError(
            "the whole picture is object: leave some background around it, plain or transparent"
        )
    return mask


def _framed(colour: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The object in the middle of a white square, spanning `FILL` of it: image (3, size, size) and
    mask (1, size, size).
    """
    rows, columns = ((mask[0] > 0.5).any(axis).nonzero()[:, 0] for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    inside = (slice(None), slice(top, top + height), slice(left, left + width))
    side = round(max(height, width) / FILL)
    square = torch.zeros(4, side, side)
    down, right = (side - height) // 2, (side - width) // 2
    square[:, down : down + height, right : right + width] = torch.cat(
        [colour[inside] * mask[inside], mask[inside]]
    )
    small = F.interpolate(square[None], (size, size), mode="area" if side > size else "bilinear")[0]
    return (small[:3] + 1 - small[3:]).clamp(0, 1), small[3:]


def _check_side(side: int) -> None:
    if not SMALLEST <= side <= LARGEST:
        raise ValueError(
            f"a picture's sides must be from {SMALLEST} to {LARGEST} pixels, got {side}"
        )

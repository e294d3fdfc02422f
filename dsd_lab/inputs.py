"""The picture that a reconstruction starts from: an object before white, what of it is object, and
from where it is seen.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .cameras import Camera
from .files import find_path
from .notebook import as_png, in_notebook
from .picture_files import check_sides, read_picture

SMALLEST, LARGEST = 16, 8192  # pixels a side
PLAIN = 0.08  # how far a background pixel's colour may be from the background's, in [0, 1]
NOISIEST = 0.25  # and how far at most where the background is noisy
FILL = 0.85  # share of the picture that a photo's object is made to span, about what the toys do
SMALL = 1 / 20  # a part below this share of the largest part's area is no part of the object
MASK_HINT = (
    "give a PNG whose background is transparent, or input_view(picture, mask=...) with a picture "
    "of the same size that is white where the object is"
)


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

    def _repr_png_(self) -> bytes:
        """The picture and its mask side by side, at least 128 pixels high, for notebooks."""
        return as_png(torch.stack([self.image, self.mask.expand_as(self.image)]), 128)

    def at_size(self, size: int) -> InputView:
        """The same view in size x size pixels."""
        if size == self.image.shape[-1]:
            return self

        def resize(x):
            return F.interpolate(
                x[None], (size, size), mode="area" if size < x.shape[-1] else "bilinear"
            )[0]

        return InputView(resize(self.image), resize(self.mask), self.camera)


def input_view(image, camera: Camera | None = None, size: int = 64, mask=None) -> InputView:
    """An `InputView` of size x size pixels from a picture: a tensor, a PIL image or a file's path.

    A tensor (3, S, S) in [0, 1] is taken as it is, an object before white. A file or PIL image with
    transparency says by it what is object; without, its background must be plain, and what lies
    within it is the object. Parts far smaller than the largest (dust, a watermark) are left out,
    with a warning. Such a picture is cropped around the object, made square, and the object made to
    span 85 % of it, as the toys do at the default camera.
    camera: where it is taken from; `Camera()`, from the front and 20 degrees above, at distance 3
    with a field of view of 40 degrees, unless given. mask: a picture of the file's or PIL image's
    size, a path or a PIL image, white where the object is. Raises TypeError or ValueError, saying
    what is wrong, for anything that cannot be used.
    """
    if camera is not None and not isinstance(camera, Camera):
        raise TypeError(f"camera must be a Camera, got {camera!r}")
    if mask is not None and isinstance(image, (InputView, Tensor)):
        raise ValueError("a mask goes with a file or a PIL image; InputView(image, mask) has both")
    if isinstance(image, InputView):
        if camera not in (None, image.camera):
            raise ValueError(
                f"the picture has its camera, {image.camera}; make it anew for another"
            )
        return image.at_size(size)
    camera = camera or Camera()
    if isinstance(image, Tensor):
        return _of_tensor(image, camera).at_size(size)
    colour, mask, doubts = _opened(image, mask)
    mask, left_out = _without_small_parts(_object(mask))
    view = InputView(*_framed(colour, _object(mask), size), camera)
    doubts += left_out
    if doubts:
        warnings.warn(f"{'; '.join(doubts)}: if that is wrong, {MASK_HINT}", stacklevel=2)
    if doubts and in_notebook():
        from IPython.display import display

        display(view)
    return view


def _of_tensor(image: Tensor, camera: Camera) -> InputView:
    """The view of a picture (3, S, S) in [0, 1] before white."""
    if image.ndim != 3 or image.shape[0] != 3 or image.shape[1] != image.shape[2]:
        raise ValueError(
            f"a picture as a tensor must be (3, S, S) in [0, 1], got {tuple(image.shape)}"
        )
    check_sides(image.shape[1:], (SMALLEST, LARGEST))
    if not bool(torch.isfinite(image).all()) or image.min() < 0 or image.max() > 1:
        low, high = float(image.min()), float(image.max())
        raise ValueError(f"a picture's values must lie in [0, 1], got {low:g} to {high:g}")
    image = image.detach().float().cpu()
    mask = (image < 1 - 2 / 255).any(0, keepdim=True).float()
    return InputView(image, _object(mask), camera)


def _opened(source, mask=None) -> tuple[Tensor, Tensor, list[str]]:
    """A file's or PIL image's colours (3, H, W), the mask of its object (1, H, W), both in [0, 1],
    and why the mask may be wrong.
    """
    pixels = _pixels(source)
    colour, alpha = pixels[:3], pixels[3:]
    if mask is not None:
        given = _pixels(mask)
        if given.shape != pixels.shape:
            raise ValueError(
                f"the mask must be of the picture's size, {tuple(pixels.shape[1:])} pixels high "
                f"and wide where it is used, got {tuple(given.shape[1:])}"
            )
        return colour, given[:3].mean(0, keepdim=True) * given[3:], []
    if alpha.min() < 0.5:
        return colour, alpha, []
    return colour, *_not_background(colour)


def _pixels(source) -> Tensor:
    """A file's or PIL image's pixels, RGBA (4, H, W) in [0, 1], of at most 1024 a side."""
    import numpy as np
    from PIL import Image

    if isinstance(source, (str, Path)):
        source = find_path(source)
        if not os.path.isfile(source):
            raise ValueError(f"there is no picture {source}")
    elif not isinstance(source, Image.Image):
        raise TypeError(
            f"a picture is a tensor (3, S, S), a PIL image or a path, got {type(source).__name__}"
        )
    picture = read_picture(source, (SMALLEST, LARGEST))
    picture.thumbnail((1024, 1024))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _not_background(colour: Tensor) -> tuple[Tensor, list[str]]:
    """Where a picture without transparency is not its plain background, which surrounds the object:
    (1, H, W), and what makes that doubtful.

    A pixel is like the background within PLAIN, or 4.5 standard deviations of the border's noise.
    """
    from skimage.measure import label

    edges = (colour[:, 0], colour[:, -1], colour[:, :, 0], colour[:, :, -1])
    border = torch.cat(edges, 1)
    background = border.median(1).values
    # neighbours differ by the noise of two pixels, whatever the light does along the edge
    steps = torch.cat([edge.diff(dim=1) for edge in edges], 1).abs().median(1).values.max()
    noise = float(steps) * 1.4826 / 2**0.5
    limit = min(max(PLAIN, 4.5 * noise), NOISIEST)
    if ((border - background[:, None]).abs().amax(0) > limit).double().mean() > 0.1:
        raise ValueError(
            "the picture has no transparency and no plain background to remove: its border is not "
            f"of one colour; {MASK_HINT}, or a photo before a plain wall"
        )
    distance = (colour - background[:, None, None]).abs().amax(0)

    def within(limit):
        regions = torch.from_numpy(label((distance <= limit).numpy(), connectivity=1))
        outside = torch.cat([regions[0], regions[-1], regions[:, 0], regions[:, -1]]).unique()
        return ~torch.isin(regions, outside[outside > 0])

    mask, surer = within(limit), within(1.5 * limit)
    doubts = []
    if surer.sum() < 0.8 * mask.sum():
        doubts.append("it is doubtful what is object, its colours are close to the background's")
    return mask.float()[None], doubts


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


def _without_small_parts(mask: Tensor) -> tuple[Tensor, list[str]]:
    """The mask (1, H, W) without parts far smaller than the largest, and what was left out."""
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label

    core = (mask[0] > 0.5).numpy()
    parts = torch.from_numpy(label(core, connectivity=2))
    areas = parts.flatten().bincount()
    areas[0] = 0
    kept = areas >= SMALL * areas.max()
    dropped = (areas > 0) & ~kept
    if not dropped.any():
        return mask, []
    # a pixel that is half clear goes with the part that is nearest
    nearest = distance_transform_edt(~core, return_distances=False, return_indices=True)
    mask = mask * kept[parts[tuple(torch.from_numpy(nearest).long())]]
    count, pixels = int(dropped.sum()), int(areas[dropped].sum())
    parts = "1 part" if count == 1 else f"{count} parts"
    return mask, [f"left out of the object: {parts} far smaller than the rest ({pixels} pixels)"]


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

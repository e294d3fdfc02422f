"""What keeps a distilled scene a thing and not a fog: terms that look at a rendering alone, after
the reference set-up of DSD.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from .render import Rendering

LATENT = 4 * 64 * 64  # values a view in the reference's distillation loss


class Ramp(NamedTuple):
    """A weight that goes evenly from `start` to `end` while progress goes from 0 to `until`, and
    stays there.
    """

    start: float
    end: float
    until: float


REFERENCE = {
    "orientation": 0.1,
    "sparsity": Ramp(0.15, 0.0, 0.3),
    "opaque": 0.1,
    "z_variance": 1.0,
    "convexity": 1.0,
}


def orientation(rendering: Rendering) -> Tensor:
    """Matter that is seen should not face away from the camera.

        sum over samples of  stopgrad(weights) max(0, facing)^2  /  pixels with opacity > 0

    facing = normal . direction is above 0 where a surface is seen from behind. By hand: two pixels
    hit, one sample with weight 0.5 and facing 0.6, all others facing the camera: 0.5 * 0.36 / 2 =
    0.09. Source: Ref-NeRF, arXiv 2112.03907.
    """
    facing = _with_normals(rendering.facing)
    hit = (rendering.opacity > 0).sum().clamp(min=1)
    return (rendering.weights.detach() * facing.clamp(min=0).square()).sum() / hit


def sparsity(rendering: Rendering) -> Tensor:
    """Most of the picture should be empty.

        mean over pixels of  sqrt(opacity^2 + 0.01)

    By hand: opacities 0 and sqrt(0.08) give (0.1 + 0.3) / 2 = 0.2.
    """
    return (rendering.opacity.square() + 0.01).sqrt().mean()


def opaque(rendering: Rendering) -> Tensor:
    """A pixel should be full or empty: the entropy of its opacity o, in nats.

        mean over pixels of  -(o ln o + (1 - o) ln(1 - o)),   o clamped to [0.001, 0.999]

    By hand: a pixel of opacity 1/2 counts ln 2 = 0.693, an empty or full one 0.0079 and with no
    gradient.
    """
    o = rendering.opacity.clamp(1e-3, 1 - 1e-3)
    return -(o * o.log() + (1 - o) * (1 - o).log()).mean()


def z_variance(rendering: Rendering) -> Tensor:
    """What a pixel shows should lie at one distance: thin surfaces, not fog.

        mean over pixels with opacity > 0.5 of  sum_i share_i (z_i - zbar)^2,
            share = weights / opacity,  zbar = share . z

    By hand: weights 0.4 and 0.4 at z = 2 and 3 have shares of 1/2, zbar = 2.5 and a variance of
    0.25. 0 if no pixel is as full as that. Source: HiFA, arXiv 2305.18766.
    """
    full = rendering.weights.sum(1)
    share = rendering.weights / full.clamp(min=1e-5)[:, None]
    mean = (share * rendering.z).sum(1, keepdim=True)
    variance = (share * (rendering.z - mean).square()).sum(1)
    counted = (full > 0.5).to(variance.dtype)
    return (variance * counted).sum() / counted.sum().clamp(min=1)


def convexity(rendering: Rendering, resolution: int = 8) -> Tensor:
    """The reference's naive convexity: neighbours in a coarse normal map should turn away from each
    other.

        map = opacity (normals + 1) / 2, as it is displayed, made `resolution` pixels a side
        -(mean over pairs of (left x right).y + mean over pairs of (down x up).y)

    For true normals, y up (the reference has z up; its axes are ours in another order) and a camera
    at eye level, (left x right).y is the sine of the angle by which the surface bends round the
    vertical axis from a pixel to the one on its right: above 0 on a ball, below 0 in a bowl. By
    hand: normals (-0.6, 0, 0.8) and (0.6, 0, 0.8) seen from the front give 0.8 * 0.6 + 0.6 * 0.8 =
    0.96. It does not measure all that its name says. The product of a vertical pair lies along the
    horizon, so its y says next to nothing about bending. And the displayed map is used as it is:
    with o = 1, left' x right' = (left x right + (1, 1, 1) x (right - left)) / 4, whose second part
    depends on where the camera stands, and at the outline the fall of opacity counts too. It is
    kept as it is in the code that the published results come from.
    """
    normals = _with_normals(rendering.normals)
    shown = rendering.opacity * (normals + 1) / 2
    shown = F.interpolate(shown, (resolution, resolution), mode="bilinear", align_corners=False)

    def cross_y(a, b):
        return (a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]).mean()

    return -(
        cross_y(shown[..., :-1], shown[..., 1:]) + cross_y(shown[..., 1:, :], shown[..., :-1, :])
    )


TERMS = {term.__name__: term for term in (orientation, sparsity, opaque, z_variance, convexity)}


def regularisation(
    rendering: Rendering, progress: float = 0.0, weights: Mapping[str, float | Ramp] = REFERENCE
) -> Tensor:
    """The weighted sum of the terms named in `weights`, a scalar; terms of weight 0 are not worked
    out.

        sum over names of  weight(progress) * term(rendering)

    progress: of the run, 0 to 1. The reference's weights stand beside a distillation loss summed
    over the 4 * 64 * 64 values of a latent, mean over views. A loss summed over the E = 3 * size *
    size values of a picture has E / 16384 times as many terms, so to keep the balance multiply by E
    / LATENT (0.1875 at 32 pixels, 0.75 at 64); a loss that is a mean over values: by 1 / LATENT.
    Pixels are not latents, so that is where to begin, not the last word.
    Raises ValueError for unknown names, progress outside 0..1, or a rendering without the normals
    that a term needs.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be from 0 to 1, got {progress}")
    if unknown := set(weights) - set(TERMS):
        raise ValueError(f"unknown terms {', '.join(sorted(unknown))}; allowed: {', '.join(TERMS)}")
    at = {name: weight_at(weight, progress) for name, weight in weights.items()}
    return sum(
        (weight * TERMS[name](rendering) for name, weight in at.items() if weight),
        rendering.opacity.new_zeros(()),
    )


def weight_at(weight: float | Ramp, progress: float) -> float:
    """A weight at some progress of the run: itself, or where its ramp stands."""
    if not isinstance(weight, Ramp):
        return weight
    return weight.start + (weight.end - weight.start) * min(1.0, progress / weight.until)


def _with_normals(values):
    if values is None:
        raise ValueError("this term needs normals; render with normals=True")
    return values

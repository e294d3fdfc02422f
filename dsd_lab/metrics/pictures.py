"""Fidelity, diversity and agreement with DDIM, measured against the pictures that a prior knows, or
was trained on.

All distances between pictures are RMSE per channel with pictures in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..priors import Prior
from ..worlds import PictureWorld
from .features import blocks, clip_score, inception_fid, lpips

__all__ = [
    "Estimate",
    "Report",
    "Unknown",
    "bootstrap",
    "clip_score",
    "clipped",
    "coverage",
    "distances",
    "effective_modes",
    "evaluate",
    "evaluate_unknown",
    "frechet_distance",
    "inception_fid",
    "jackknife",
    "kid",
    "lpips",
    "mean_pairwise",
    "modes_even",
    "precision_recall",
    "saturation",
    "table",
    "vendi_score",
]

RADIUS = 0.1  # a mode counts as reached by pictures at most this far from it
# pictures a set for neighbourhoods and covariances; below it they say more about the number than
# about the set
FEWEST = 64
WIDTH = 0.1  # RMSE at which Vendi's kernel has fallen to exp(-1/2)


class Estimate(NamedTuple):
    """A value with its 95 % interval over seeds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Report:
    """What a set of samples of one prompt reaches.

    samples, pictures: how many were made, and how many the prompt has. modes: distinct nearest
    pictures within `RADIUS`; nearest: distinct nearest pictures at any distance; modes_even: the
    count that so many even draws would give on average; effective_modes: exp(entropy) of how the
    samples fall on their nearest pictures; distance: to the nearest picture; outside: share of
    samples in no mode's radius; pairwise: distance between samples; agreement: distance to the
    reference, seed by seed; same_mode: share of seeds with the reference's nearest picture. None
    where there is too little to tell, or no reference.
    """

    samples: int
    pictures: int
    modes: int
    nearest: int
    modes_even: float
    effective_modes: Estimate | None
    distance: Estimate
    outside: float
    pairwise: Estimate | None
    agreement: Estimate | None = None
    same_mode: float | None = None


def distances(images: Tensor, others: Tensor) -> Tensor:
    """RMSE per channel between every pair: images (B, ...), others (N, ...) -> float64 (B, N)."""
    a, b = images.flatten(1).double(), others.flatten(1).double()
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / math.sqrt(a.shape[1])


def modes_even(samples: int, pictures: int) -> float:
    """The mean number of distinct pictures in `samples` even draws from `pictures`: K (1 - (1 -
    1/K)^n).
    """
    return pictures * (1 - (1 - 1 / pictures) ** samples)


def effective_modes(mode: Tensor) -> float:
    """exp(entropy) of how often each mode occurs; mode: int64 (n,)."""
    p = torch.unique(mode, return_counts=True)[1].double() / len(mode)
    return float(torch.exp(-(p * p.log()).sum()))


def mean_pairwise(matrix: Tensor) -> float:
    """Mean of the off-diagonal entries of a symmetric distance matrix (n, n)."""
    n = len(matrix)
    return float(matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


def bootstrap(values: Tensor, resamples: int = 2000) -> Estimate:
    """The mean over seeds with its percentile bootstrap interval; values (n,)."""
    values = values.double()
    pick = torch.randint(
        len(values), (resamples, len(values)), generator=torch.Generator().manual_seed(0)
    )
    low, high = torch.quantile(
        values[pick].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)
    ).tolist()
    return Estimate(float(values.mean()), low, high)


def jackknife(
    statistic: Callable[[Tensor], float],
    samples: int,
    floor: float = 0.0,
    ceiling: float = math.inf,
) -> Estimate:
    """A statistic of a set of seeds with its jackknife interval, value +- 1.96 standard errors,
    from `floor` to `ceiling`.

    statistic: takes the seeds' positions, int64. For what a bootstrap gets wrong, since it repeats
    seeds: distances between seeds and counts of distinct things. Source: Efron and Stein, Annals of
    Statistics 9 (1981) 586.
    """
    everyone = torch.arange(samples)
    value = statistic(everyone)
    without = torch.tensor(
        [statistic(everyone[everyone != i]) for i in range(samples)], dtype=torch.float64
    )
    error = float(((samples - 1) / samples * (without - without.mean()).square().sum()).sqrt())
    return Estimate(value, max(value - 1.96 * error, floor), min(value + 1.96 * error, ceiling))


def evaluate(
    images: Tensor,
    prior: Prior,
    prompt: str,
    reference: Tensor | None = None,
    radius: float = RADIUS,
) -> Report:
    """Compare samples of one prompt, (B, 3, H, W) in [0, 1], with the prompt's pictures and with a
    reference.

    reference: DDIM's pictures from the same seeds, (B, 3, H, W), for the agreement. Raises
    TypeError for a prior without known pictures, ValueError for shapes or values that do not fit.
    """
    world = getattr(prior, "world", None)
    if not isinstance(world, PictureWorld):
        raise TypeError(
            f"evaluate needs a prior with a world of pictures (an ImageSet or a mini of one), got {prior.name}"
        )
    pictures = world.images(prompt)
    _check(tuple(pictures.shape[1:]), images=images, reference=reference)
    n = len(images)
    distance, mode = distances(images, pictures).min(1)
    between = distances(images, images)
    agreement = same = None
    if reference is not None:
        agreement = bootstrap(apart(images, reference))
        same = float((mode == distances(reference, pictures).argmin(1)).double().mean())
    return Report(
        samples=n,
        pictures=len(pictures),
        modes=len(mode[distance <= radius].unique()),
        nearest=len(mode.unique()),
        modes_even=modes_even(n, len(pictures)),
        effective_modes=jackknife(lambda i: effective_modes(mode[i]), n, floor=1.0)
        if n > 2
        else None,
        distance=bootstrap(distance),
        outside=float((distance > radius).double().mean()),
        pairwise=jackknife(lambda i: mean_pairwise(between[i][:, i]), n) if n > 2 else None,
        agreement=agreement,
        same_mode=same,
    )


@dataclass(frozen=True)
class Unknown:
    """What can be told without the prior's pictures: pairwise and agreement, as in `Report`."""

    samples: int
    pairwise: Estimate | None
    agreement: Estimate | None = None


def evaluate_unknown(images: Tensor, reference: Tensor | None = None) -> Unknown:
    """Compare samples (B, 3, H, W) in [0, 1] with each other and with a reference, for a prior
    whose pictures are not known.

    reference: DDIM's pictures from the same seeds, for the agreement. Raises ValueError for shapes
    or values that do not fit.
    """
    _check(tuple(images.shape[1:]), images=images, reference=reference)
    between, n = distances(images, images), len(images)
    return Unknown(
        n,
        jackknife(lambda i: mean_pairwise(between[i][:, i]), n) if n > 2 else None,
        None if reference is None else bootstrap(apart(images, reference)),
    )


def apart(images: Tensor, reference: Tensor) -> Tensor:
    """RMSE between the pictures of two equally long batches, one by one: float64 (B,)."""
    return (images.double() - reference.double()).flatten(1).square().mean(1).sqrt()


WHITE = 250 / 255  # a pixel with all channels above it is background


def saturation(images: Tensor) -> float:
    """Mean HSV saturation, (max - min) / max over the channels, of the pixels that are not white;
    images (B, 3, H, W).
    """
    high, low, shown = images.amax(1), images.amin(1), images.amin(1) < WHITE
    return (
        float(((high - low) / high.clamp(min=1e-6))[shown].double().mean())
        if bool(shown.any())
        else 0.0
    )


def clipped(images: Tensor) -> float:
    """Share of channel values at 0 or 1 among the pixels that are not white: what a decoder has cut
    off; images (B, 3, H, W).

    Drawings have pure black and pure colours of their own, so compare it with the data's.
    """
    shown = (images.amin(1, keepdim=True) < WHITE).expand_as(images)
    return (
        float(((images <= 0) | (images >= 1))[shown].double().mean()) if bool(shown.any()) else 0.0
    )


# ---- sets of pictures against sets of pictures ---------------------------------------------------


class PrecisionRecall(NamedTuple):
    """Share of the samples that lie among the data, and of the data that lie among the samples."""

    precision: Estimate
    recall: Estimate


def precision_recall(images: Tensor, data: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of samples (n, 3, H, W) against data (m, 3, H, W), in pixel
    space (RMSE).

    A set's manifold is the union of the balls around its members, each as wide as the distance to
    the member's k-th nearest other. precision: share of images in the data's manifold (bootstrap
    interval over images); recall: share of data in the images' (jackknife). Raises ValueError for
    fewer than 64 of either. Source: arXiv 1904.06991.
    """
    _check_sets(images, data, FEWEST, "precision and recall")
    _check_k(k)
    between, own = distances(images, data), distances(images, images)
    inside = (between <= _radii(distances(data, data), k)).any(1)

    def recall(i):
        return float((between[i] <= _radii(own[i][:, i], k)[:, None]).any(0).double().mean())

    return PrecisionRecall(bootstrap(inside), jackknife(recall, len(images), ceiling=1.0))


def coverage(images: Tensor, data: Tensor, k: int = 5) -> Estimate:
    """Share of data (m, 3, H, W) with one of the images (n, 3, H, W) no farther than its k-th
    nearest other datum.

    In pixel space (RMSE), with a jackknife interval over images. Raises ValueError for fewer than
    64 of either.
    Source: arXiv 2002.09797, eq. 6.
    """
    _check_sets(images, data, FEWEST, "coverage")
    _check_k(k)
    near = distances(images, data) <= _radii(distances(data, data), k)
    return jackknife(lambda i: float(near[i].any(0).double().mean()), len(images), ceiling=1.0)


def _radii(own: Tensor, k: int) -> Tensor:
    """The distance from each member to its k-th nearest other, from the set's distance matrix (n,
    n): (n,).
    """
    return own.kthvalue(k + 1, dim=1).values  # the nearest is itself


def vendi(between: Tensor, width: float = WIDTH) -> float:
    """Vendi score from a distance matrix (n, n): exp(-sum l ln l) of the eigenvalues l of exp(-d^2
    / (2 width^2)) / n.
    """
    kernel = torch.exp(-(between.double() ** 2) / (2 * width**2)) / len(between)
    share = torch.linalg.eigvalsh(kernel).clamp(min=0)
    return float(torch.exp(torch.special.entr(share).sum()))


def vendi_score(images: Tensor, width: float = WIDTH) -> Estimate:
    """How many different pictures there seem to be among images (B, 3, H, W): 1 if all are alike, B
    if all are far apart.

    width: the kernel's, in RMSE. With a jackknife interval over images; raises ValueError for fewer
    than 3.
    Source: arXiv 2210.02410, with the kernel exp(-d^2 / (2 width^2)) on RMSE distances.
    """
    _check(tuple(images.shape[1:]), images=images)
    if len(images) < 3:
        raise ValueError(
            f"the Vendi score with its interval needs at least 3 images, got {len(images)}"
        )
    if not 0 < width < math.inf:
        raise ValueError(f"width must be positive and finite (RMSE), got {width}")
    between = distances(images, images)
    return jackknife(lambda i: vendi(between[i][:, i], width), len(images), floor=1.0)


def frechet(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> float:
    """Squared Frechet distance of two Gaussians: |m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2)."""
    values, vectors = torch.linalg.eigh(cov)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other_cov @ root).clamp(min=0).sqrt().sum()
    return float((mean - other_mean).square().sum() + cov.trace() + other_cov.trace() - 2 * cross)


def frechet_distance(images: Tensor, data: Tensor) -> Estimate:
    """Squared Frechet distance between Gaussians fitted to the mean colours of 4 x 4 blocks. It is
    not Inception-FID.

    images (n, 3, H, W), data (m, 3, H, W), both in [0, 1]; 48 features. With a jackknife interval
    over images; finite sets make it too high, so compare only equal n (or use `kid`). Raises
    ValueError for fewer than 64 of either.
    """
    _check_sets(images, data, FEWEST, "the Frechet distance")
    x, y = blocks(images), blocks(data)
    fixed = y.mean(0), y.T.cov()
    return jackknife(lambda i: frechet(x[i].mean(0), x[i].T.cov(), *fixed), len(x))


def kid(images: Tensor, data: Tensor, whole: bool = False) -> Estimate:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 on the mean colours of 4 x 4 blocks, d =
    48.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)

    images (n, 3, H, W), data (m, 3, H, W), in [0, 1]. For small sets too, where it may be negative.
    whole: the data are all there is and not a sample of it (an exact prior's pictures), so their
    own mean includes i = j. With a jackknife interval over images. Raises ValueError for fewer than
    3 images or 2 data. Source: arXiv 1801.01401, eq. 4, but in this feature space, not in
    Inception's.
    """
    _check_sets(images, data, 3, "KID", 1 if whole else 2)
    x, y = blocks(images), blocks(data)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    own, across, others = kernel(x, x), kernel(x, y).mean(1), kernel(y, y)
    among = float(others.mean()) if whole else mean_pairwise(others)
    return jackknife(
        lambda i: mean_pairwise(own[i][:, i]) + among - 2 * float(across[i].mean()),
        len(x),
        floor=-math.inf,
    )


def _check(shape: tuple[int, ...], **batches: Tensor | None) -> None:
    """Raises ValueError unless each batch is (B, *shape) in [0, 1], and all are equally long."""
    given = {name: batch for name, batch in batches.items() if batch is not None}
    for name, batch in given.items():
        if batch.ndim != 4 or tuple(batch.shape[1:]) != shape or not len(batch):
            raise ValueError(
                f"{name} must be (B, {', '.join(map(str, shape))}) with B >= 1, got {tuple(batch.shape)}"
            )
        if not bool(((batch >= 0) & (batch <= 1)).all()):
            raise ValueError(
                f"{name} must lie in [0, 1], got {batch.min():.3f} to {batch.max():.3f}; decode them first"
            )
    if len({len(batch) for batch in given.values()}) > 1:
        images, reference = map(len, given.values())
        raise ValueError(
            f"{images} images but {reference} references; give one a seed, in the same order"
        )


def _check_sets(
    images: Tensor, data: Tensor, fewest: int, what: str, fewest_data: int | None = None
) -> None:
    """Raises ValueError unless there are two sets of pictures of one size in [0, 1], each with
    enough of them.
    """
    _check(tuple(images.shape[1:]), images=images)
    _check(tuple(images.shape[1:]), data=data)
    for name, batch, least in (("images", images, fewest), ("data", data, fewest_data or fewest)):
        if len(batch) < least:
            raise ValueError(
                f"{what}: at least {least} {name} are needed, got {len(batch)}"
                + ("; kid works with few" if least == FEWEST else "")
            )


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < FEWEST - 1:
        raise ValueError(f"k must be an int in 1..{FEWEST - 2}, got {k!r}")


# ---- text ----------------------------------------------------------------------------------------

COLUMNS = (
    "modes",
    "nearest",
    "even",
    "effective",
    "distance",
    "outside",
    "pairwise",
    "agreement",
    "same mode",
)


def table(reports: Mapping[str, Report], columns: Sequence[str] = COLUMNS) -> str:
    """The reports as aligned lines of text, a heading and one a method, with their intervals;
    `columns` says what of them.
    """

    def effective(e):
        return f"{e.value:.1f} [{e.low:.1f}, {e.high:.1f}]" if e else "-"

    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ValueError(f'no column "{unknown[0]}"; there are: {", ".join(COLUMNS)}')
    rows = [("", *columns)]
    for name, r in reports.items():
        cells = (
            f"{r.modes}/{r.pictures}",
            str(r.nearest),
            f"{r.modes_even:.1f}",
            effective(r.effective_modes),
            str(r.distance),
            f"{r.outside:.0%}",
            str(r.pairwise or "-"),
            str(r.agreement or "-"),
            "-" if r.same_mode is None else f"{r.same_mode:.0%}",
        )
        rows.append((name, *(cells[COLUMNS.index(column)] for column in columns)))
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(width[0]), *map(str.rjust, row[1:], width[1:])]) for row in rows
    )

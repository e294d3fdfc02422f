"""Sets of pictures against sets: precision and recall, coverage, Vendi, Frechet, KID."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import positive
from .estimates import Estimate, bootstrap, jackknife
from .features import blocks
from .pictures import check_pictures, distances, mean_pairwise

# pictures a set for neighbourhoods and covariances; below it they say more about the number than
# about the set
FEWEST = 64
WIDTH = 0.1  # RMSE at which Vendi's kernel has fallen to exp(-1/2)
Features = Callable[[Tensor], Tensor]  # of pictures (n, 3, H, W): (n, d), such as a judge's


def pixels(images: Tensor) -> Tensor:
    """Pictures as they are: their distances are RMSE."""
    return images


class PrecisionRecall(NamedTuple):
    """Share of the samples that lie among the data, and of the data that lie among the samples."""

    precision: Estimate
    recall: Estimate


def precision_recall(
    images: Tensor, data: Tensor, k: int = 3, features: Features = pixels
) -> PrecisionRecall:
    """Improved precision and recall of samples (n, 3, H, W) against data (m, 3, H, W), in pixel
    space (RMSE), or in that of features.

    A set's manifold is the union of the balls around its members, each as wide as the distance to
    the member's k-th nearest other. precision: share of images in the data's manifold (bootstrap
    interval over images); recall: share of data in the images' (jackknife). Raises ValueError for
    fewer than 64 of either. Source: arXiv 1904.06991.
    """
    images, data = _two_sets(images, data, FEWEST, "precision and recall")
    _check_k(k)
    x, y = features(images), features(data)
    between, among = distances(x, y), distances(x, x)
    inside = (between <= _radii(distances(y, y), k)).any(1)

    def recall(i):
        return float((between[i] <= _radii(among[i][:, i], k)[:, None]).any(0).double().mean())

    return PrecisionRecall(bootstrap(inside), jackknife(recall, len(images), ceiling=1.0))


def coverage(images: Tensor, data: Tensor, k: int = 5, features: Features = pixels) -> Estimate:
    """Share of data (m, 3, H, W) with one of the images (n, 3, H, W) no farther than its k-th
    nearest other datum.

    In pixel space (RMSE), or in that of features, with a jackknife interval over images. Raises
    ValueError for fewer than 64 of either.
    Source: arXiv 2002.09797, eq. 6.
    """
    images, data = _two_sets(images, data, FEWEST, "coverage")
    _check_k(k)
    x, y = features(images), features(data)
    near = distances(x, y) <= _radii(distances(y, y), k)
    return jackknife(lambda i: float(near[i].any(0).double().mean()), len(images), ceiling=1.0)


def _radii(between: Tensor, k: int) -> Tensor:
    """The distance from each member to its k-th nearest other, from the set's distance matrix (n,
    n): (n,).
    """
    return between.kthvalue(k + 1, dim=1).values  # the nearest is itself


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
    check_pictures(tuple(images.shape[1:]), images=images)
    if len(images) < 3:
        raise ValueError(
            f"the Vendi score with its interval needs at least 3 images, got {len(images)}"
        )
    positive("width", width)
    between = distances(images, images)
    return jackknife(lambda i: vendi(between[i][:, i], width), len(images), floor=1.0)


def frechet(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> float:
    """Squared Frechet distance of two Gaussians:

    |m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2)
    """
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
    images, data = _two_sets(images, data, FEWEST, "the Frechet distance")
    x, y = blocks(images), blocks(data)
    fixed = y.mean(0), y.T.cov()
    return jackknife(lambda i: frechet(x[i].mean(0), x[i].T.cov(), *fixed), len(x))


def kid(images: Tensor, data: Tensor, whole: bool = False, features: Features = blocks) -> Estimate:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 on d features, by default the mean
    colours of 4 x 4 blocks, d = 48.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)

    images (n, 3, H, W), data (m, 3, H, W), in [0, 1]. For small sets too, where it may be negative.
    whole: the data are all there is and not a sample of it (an exact prior's pictures), so their
    own mean includes i = j. With a jackknife interval over images. Raises ValueError for fewer than
    3 images or 2 data. Source: arXiv 1801.01401, eq. 4, but not in Inception's
    features.
    """
    images, data = _two_sets(images, data, 3, "KID", 1 if whole else 2)
    x, y = features(images), features(data)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    within, across, others = kernel(x, x), kernel(x, y).mean(1), kernel(y, y)
    among = float(others.mean()) if whole else mean_pairwise(others)
    return jackknife(
        lambda i: mean_pairwise(within[i][:, i]) + among - 2 * float(across[i].mean()),
        len(x),
        floor=-math.inf,
    )


def _two_sets(
    images: Tensor, data: Tensor, fewest: int, what: str, fewest_data: int | None = None
) -> tuple[Tensor, Tensor]:
    """Both sets, on the CPU. Raises ValueError unless they are pictures of one size in
    [0, 1], each with enough of them.
    """
    check_pictures(tuple(images.shape[1:]), images=images)
    check_pictures(tuple(images.shape[1:]), data=data)
    for name, batch, least in (("images", images, fewest), ("data", data, fewest_data or fewest)):
        if len(batch) < least:
            raise ValueError(
                f"{what}: at least {least} {name} are needed, got {len(batch)}"
                + ("; kid works with few" if least == FEWEST else "")
            )
    return images.cpu(), data.cpu()


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < FEWEST - 1:
        raise ValueError(f"k must be an int in 1..{FEWEST - 2}, got {k!r}")

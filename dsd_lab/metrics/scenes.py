"""Fidelity and diversity of objects in 3-D, judged from cameras that no optimisation has used."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..cameras import HELD_OUT, Camera, orbit
from ..inputs import InputView
from ..scene import Scene
from ..scene.fit import psnr
from ..worlds import ToyboxWorld, Toys, render
from .estimates import Estimate, bootstrap, jackknife
from .features import MissingWeights, lpips
from .pictures import RADIUS, distances, mean_pairwise

JANUS = 60  # degrees beyond which a view counts as one of another side


@dataclass(frozen=True)
class ObjectReport:
    """What some scenes of one prompt reach. Distances are RMSE per channel over all held-out views
    together.

    scenes, objects: how many were made, and how many the prompt has. nearest: each scene's nearest
    object, a position among the prompt's. distances: how far each scene is from it; distance: their
    mean. distinct: different nearest objects;
    reached: different nearest objects within `RADIUS`. pairwise: between scenes. psnr: of each
    scene against its nearest object, the mean, in decibels.
    """

    scenes: int
    objects: int
    nearest: tuple[int, ...]
    distances: tuple[float, ...]
    distance: Estimate
    distinct: int
    reached: int
    pairwise: Estimate | None
    psnr: float


@lru_cache(maxsize=16)
def true_views(
    world: ToyboxWorld, prompt: str, cameras: tuple[Camera, ...] = HELD_OUT, size: int = 64
) -> Tensor:
    """The prompt's objects as they are, from any cameras: (n, V, 3, size, size) in [0, 1]."""
    return render(world.toys.subset(world.index(prompt)), cameras, size).rgb


def judge(
    scenes: Sequence[Scene],
    world: ToyboxWorld,
    prompt: str,
    cameras: Sequence[Camera] = HELD_OUT,
    size: int = 64,
) -> ObjectReport:
    """Compare scenes of one prompt with the prompt's objects and with each other, from held-out
    cameras.
    """
    return judge_views(
        torch.stack([scene.images(cameras, size) for scene in scenes]), world, prompt, cameras
    )


def judge_views(
    views: Tensor, world: ToyboxWorld, prompt: str, cameras: Sequence[Camera] = HELD_OUT
) -> ObjectReport:
    """`judge` for pictures already made, (B, V, 3, H, W) in [0, 1], one a camera. Raises ValueError
    for another number.
    """
    if views.ndim != 5 or views.shape[1] != len(cameras):
        raise ValueError(
            f"views must be (B, {len(cameras)}, 3, H, W), one a camera, got {tuple(views.shape)}"
        )
    objects = true_views(world, prompt, tuple(cameras), views.shape[-1])
    distance, nearest = distances(views, objects).min(1)
    return ObjectReport(
        scenes=len(views),
        objects=len(objects),
        nearest=tuple(nearest.tolist()),
        distances=tuple(distance.tolist()),
        distance=bootstrap(distance),
        distinct=len(nearest.unique()),
        reached=len(nearest[distance <= RADIUS].unique()),
        pairwise=_pairwise(views),
        psnr=float(-20 * distance.clamp(min=1e-6).log10().mean()),
    )


@dataclass(frozen=True)
class ReconstructionReport:
    """What some reconstructions of one picture are worth, next to the objects that the picture
    leaves open, its answers.

    scenes, answers: how many were made, and how many there are. input_psnr: of each scene from the
    picture's own camera against the picture, the mean, in decibels. nearest: each scene's nearest
    answer, a position among them. psnr, ssim, lpips: against that answer from all held-out cameras,
    the means; lpips is None where its weights are not here. The rest is about the unseen side
    alone, held-out cameras more than 90 degrees of azimuth from the picture's: distance to the
    nearest answer, RMSE per channel; found: different answers that a scene has settled on, which
    means that it is less than a quarter of the way from there to any other answer, as its picture
    projected on the line between the two tells (an even mixture of two is half of the way, of three
    a third), and within `RADIUS` of it; pairwise: distance between scenes.
    """

    scenes: int
    answers: int
    input_psnr: Estimate
    nearest: tuple[int, ...]
    psnr: Estimate
    ssim: Estimate
    lpips: Estimate | None
    distance: Estimate
    found: int
    pairwise: Estimate | None


def judge_reconstructions(
    scenes: Sequence[Scene],
    view: InputView,
    answers: Toys,
    cameras: Sequence[Camera] = HELD_OUT,
    size: int = 64,
) -> ReconstructionReport:
    """Compare reconstructions of the picture `view` with its answers, toys, from held-out cameras.

    Raises ValueError if all cameras are on the seen side.
    """
    views = torch.stack([scene.images(cameras, size) for scene in scenes])
    input_views = torch.stack([scene.images([view.camera], size)[0] for scene in scenes])
    return judge_reconstructed_views(
        views, input_views, view, render(answers, cameras, size).rgb, cameras
    )


def judge_reconstructed_views(
    views: Tensor,
    input_views: Tensor,
    view: InputView,
    truth: Tensor,
    cameras: Sequence[Camera] = HELD_OUT,
) -> ReconstructionReport:
    """`judge_reconstructions` for pictures already made, all in [0, 1].

    views (B, V, 3, S, S) of the scenes and truth (A, V, 3, S, S) of the answers are from the
    held-out cameras, input_views (B, 3, S, S) of the scenes from the picture's camera.
    """
    unseen = _unseen(view.camera, cameras)
    views, input_views, truth = views.cpu(), input_views.cpu(), truth.cpu()
    back, answers = views[:, unseen], truth[:, unseen]
    far = distances(back, answers)  # (B, A)
    distance, nearest = far.min(1)
    best = truth[nearest]
    try:
        perceptual = [lpips(a, b).mean() for a, b in zip(views, best, strict=True)]
    except MissingWeights:
        perceptual = None
    given = view.at_size(input_views.shape[-1]).image.cpu().expand_as(input_views)
    return ReconstructionReport(
        scenes=len(views),
        answers=len(truth),
        nearest=tuple(nearest.tolist()),
        input_psnr=bootstrap(psnr(input_views, given).clamp(max=120)),
        psnr=bootstrap(psnr(views.flatten(1), best.flatten(1)).clamp(max=120)),
        ssim=bootstrap(ssim(views, best)),
        lpips=None if perceptual is None else bootstrap(torch.stack(perceptual)),
        distance=bootstrap(distance),
        found=len(nearest[_settled(far, distances(answers, answers))].unique()),
        pairwise=_pairwise(back),
    )


def _pairwise(views: Tensor) -> Estimate | None:
    """The distance between scenes (B, ...) with its jackknife interval; None below three."""
    between, n = distances(views, views), len(views)
    return jackknife(lambda i: mean_pairwise(between[i][:, i]), n) if n > 2 else None


def _unseen(seen_from: Camera, cameras: Sequence[Camera]) -> Tensor:
    """Which cameras look at what a picture does not show: bool (V,). Raises ValueError if none."""
    turn = torch.tensor([camera.azimuth - seen_from.azimuth for camera in cameras])
    unseen = ((turn + 180).remainder(360) - 180).abs() > 90
    if not bool(unseen.any()):
        raise ValueError(
            "no camera looks at the unseen side, more than 90 degrees of azimuth from the "
            "picture's camera"
        )
    return unseen


def _settled(far: Tensor, between: Tensor) -> Tensor:
    """Whether each scene has settled on its nearest answer: bool (B,).

    far: from scenes to answers (B, A); between: from answer to answer (A, A). On the line from its
    answer a to another b, a scene's projection lies at the fraction
    (|s - a|^2 + |a - b|^2 - |s - b|^2) / (2 |a - b|^2).
    """
    distance, nearest = far.min(1)
    line = between[nearest].clamp(min=1e-9)
    fraction = (distance[:, None].square() + line.square() - far.square()) / (2 * line.square())
    return (fraction.scatter(1, nearest[:, None], 0.0) < 0.25).all(1) & (distance < RADIUS)


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity of pictures (B, V, 3, S, S) in [0, 1], the mean over V: (B,). 1 is
    equal.

    With the Gaussian window of 1.5 pixels of the original. Source: Wang et al., IEEE TIP 13 (2004)
    600, by scikit-image.
    """
    from skimage.metrics import structural_similarity

    def one(image, other):
        return structural_similarity(
            image,
            other,
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )

    batches = [x.detach().cpu().double().flatten(0, 1).numpy() for x in (images, others)]
    values = [one(*pair) for pair in zip(*batches, strict=True)]
    return torch.tensor(values, dtype=torch.float64).unflatten(0, images.shape[:2]).mean(1)


def seen_as(
    scene: Scene,
    world: ToyboxWorld,
    prompt: str,
    views: int = 8,
    elevation: float = 20.0,
    size: int = 64,
) -> Tensor:
    """From which azimuth each of a ring of views of the scene looks: degrees, (views,), in the
    nearest object's own pictures.

    View i is taken from azimuth 360 i / views. An object with one face says 0, 45, 90, ...; one
    with a face on every side (Janus) says 0 again and again.
    """
    ring = orbit(views, elevation)
    images, objects = scene.images(ring, size), true_views(world, prompt, ring, size)
    between = distances(images, objects.flatten(0, 1)).reshape(views, len(objects), views)
    # the object that the views show best, whichever side each of them shows
    best = between.amin(2).sum(0).argmin()
    return between[:, best].argmin(1) * (360 / views)


def janus(
    scene: Scene,
    world: ToyboxWorld,
    prompt: str,
    views: int = 8,
    elevation: float = 20.0,
    size: int = 64,
) -> float:
    """Share of a ring of views that look like another side of the object: their azimuth is off by
    more than JANUS degrees.
    """
    azimuth = seen_as(scene, world, prompt, views, elevation, size)
    off = (azimuth - torch.arange(views) * (360 / views)).remainder(360)
    return float((torch.minimum(off, 360 - off) > JANUS).double().mean())

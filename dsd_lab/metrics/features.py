"""What pictures are measured in: pixels averaged over blocks, or a pretrained network if its
weights are here.

Nothing here touches the network: what is missing is said, with where to get it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

# 4 x 4 blocks of 3 channels: 48 features, fewer than the 64 samples that a covariance is estimated
# from
SIDE = 4
CLIP = "openai/clip-vit-base-patch32"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
ALEXNET = "alexnet-owt-7be5be79.pth"


def blocks(images: Tensor, side: int = SIDE) -> Tensor:
    """The mean colour of each of side x side blocks: pictures (B, 3, H, W) in [0, 1] -> float64 (B,
    3 side^2).
    """
    return F.adaptive_avg_pool2d(images.double(), side).flatten(1)


def clip_score(images: Tensor, prompt: str, model: str = CLIP) -> Tensor:
    """100 times the cosine between each picture and the prompt in CLIP's space, not below 0: (B,).

    images: (B, 3, H, W) in [0, 1]. model: a hub id in the local cache, or a folder. Raises
    RuntimeError if it is not here.
    Source: arXiv 2104.08718, with weight 100 as is common.
    """
    from transformers import CLIPModel, CLIPProcessor

    try:
        net = CLIPModel.from_pretrained(model, local_files_only=True).eval()
        processor = CLIPProcessor.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f'CLIP score needs the weights of "{model}", which are not here; fetch them once with '
            f"`hf download {model}`, or give the folder that holds them"
        ) from error
    batch = processor(
        text=[prompt],
        images=list(images.float()),
        do_rescale=False,
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        out = net(**batch)
    return 100 * F.cosine_similarity(out.image_embeds, out.text_embeds).clamp(min=0)


def inception_fid(images: Tensor, data: Tensor, weights: str | Path | None = None) -> float:
    """The usual FID between two sets (n, 3, H, W) in [0, 1], by torchmetrics; far too high below
    thousands of pictures.

    weights: torch-fidelity's Inception file, by default where torch.hub keeps it. Raises
    RuntimeError if it is not here.
    Source: arXiv 1706.08500.
    """
    path = _weights(
        weights, INCEPTION, "Inception-FID", "github.com/toshas/torch-fidelity/releases"
    )
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        fid = FrechetInceptionDistance(
            feature=2048, normalize=True, feature_extractor_weights_path=str(path)
        )
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "Inception-FID needs `pip install torchmetrics torch-fidelity`"
        ) from error
    fid.update(data.float(), real=True)
    fid.update(images.float(), real=False)
    return float(fid.compute())


def lpips(images: Tensor, others: Tensor) -> Tensor:
    """LPIPS (AlexNet) between the pictures of two equally long batches (B, 3, H, W) in [0, 1], one
    by one: (B,).

    Pictures below 64 px are enlarged to 64, the least that AlexNet takes. Raises RuntimeError if
    its weights are not here.
    Source: arXiv 1801.03924.
    """
    _weights(None, ALEXNET, "LPIPS", "download.pytorch.org/models")
    try:
        from lpips import LPIPS
    except ModuleNotFoundError as error:
        raise RuntimeError("LPIPS needs `pip install lpips`") from error
    if min(images.shape[-2:]) < 64:
        images, others = (
            F.interpolate(x.float(), size=(64, 64), mode="bilinear") for x in (images, others)
        )
    with torch.no_grad():
        return (
            LPIPS(net="alex", verbose=False)
            .eval()(images.float(), others.float(), normalize=True)
            .flatten()
        )


def _weights(given: str | Path | None, name: str, what: str, source: str) -> Path:
    """The file of weights, whose name ends in its SHA-256's first digits, as torch.hub's do.

    Raises RuntimeError, saying where to get it and where to put it, if it is not there or is
    another file.
    """
    path = Path(given) if given else Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        raise RuntimeError(
            f"{what} needs the weights {name}, which are not here; "
            f"fetch them from {source} and put them at {path}"
        )
    if (
        not hashlib.sha256(path.read_bytes())
        .hexdigest()
        .startswith(name.split("-")[-1].removesuffix(".pth"))
    ):
        raise RuntimeError(
            f"{path} is not {name}: its checksum differs; fetch it again from {source}"
        )
    return path

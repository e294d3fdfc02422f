"""What pictures are measured in: pixels averaged over blocks, or a pretrained network if its
weights are here.

Nothing here touches the network: what is missing is said, with where to get it.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..files import expanded

# 4 x 4 blocks of 3 channels: 48 features, fewer than the 64 samples that a covariance is estimated
# from
SIDE = 4
CLIP = "openai/clip-vit-base-patch32"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
ALEXNET = "alexnet-owt-7be5be79.pth"


def blocks(images: Tensor) -> Tensor:
    """The mean colours of 4 x 4 blocks: pictures (B, 3, H, W) in [0, 1] -> float64 (B, 48)."""
    return F.adaptive_avg_pool2d(images.cpu().double(), SIDE).flatten(1)


class MissingWeights(RuntimeError):
    """A pretrained network, or the package that reads it, is not on this machine."""


def clip_score(images: Tensor, prompt: str, model: str = CLIP) -> Tensor:
    """100 times the cosine between each picture and the prompt in CLIP's space, not below 0: (B,).

    images: (B, 3, H, W) in [0, 1]. model: a hub id in the local cache, or a folder. Raises
    MissingWeights if it is not here.
    Source: arXiv 2104.08718, with weight 100 as is common.
    """
    from transformers import CLIPModel, CLIPProcessor

    try:
        net = CLIPModel.from_pretrained(model, local_files_only=True).eval().to(images.device)
        processor = CLIPProcessor.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f'CLIP score needs the weights of "{model}", which are not here; fetch them once with '
            f"`hf download {model}`, or give the folder that holds them"
        ) from error
    batch = processor(
        text=[prompt],
        images=list(images.float().cpu()),
        do_rescale=False,
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        out = net(**batch.to(images.device))
    return 100 * F.cosine_similarity(out.image_embeds, out.text_embeds).clamp(min=0)


def inception_fid(images: Tensor, data: Tensor, weights: str | Path | None = None) -> float:
    """The usual FID between two sets (n, 3, H, W) in [0, 1], by torchmetrics; far too high below
    thousands of pictures.

    weights: torch-fidelity's Inception file, by default where torch.hub keeps it. Raises
    MissingWeights if it is not here, RuntimeError if it is another file.
    Source: arXiv 1706.08500.
    """
    path = _weights(
        weights, INCEPTION, "Inception-FID", "github.com/toshas/torch-fidelity/releases"
    )
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        fid = FrechetInceptionDistance(
            feature=2048, normalize=True, feature_extractor_weights_path=str(path)
        ).to(images.device)
    except ModuleNotFoundError as error:
        raise MissingWeights(
            "Inception-FID needs `pip install torchmetrics torch-fidelity`"
        ) from error
    fid.update(data.to(images.device).float(), real=True)
    fid.update(images.float(), real=False)
    return float(fid.compute())


def lpips(images: Tensor, others: Tensor) -> Tensor:
    """LPIPS (AlexNet) between the pictures of two equally long batches (B, 3, H, W) in [0, 1], one
    by one: (B,).

    Pictures below 64 px are enlarged to 64, the least that AlexNet takes. Raises MissingWeights if
    its weights are not here, RuntimeError if they are another file.
    Source: arXiv 1801.03924.
    """
    network = _lpips_network().to(images.device)
    pair = images.float(), others.to(images.device).float()
    if min(images.shape[-2:]) < 64:
        pair = [F.interpolate(x, size=(64, 64), mode="bilinear") for x in pair]
    with torch.no_grad():
        return network(*pair, normalize=True).flatten()


@lru_cache(maxsize=1)
def _lpips_network() -> torch.nn.Module:
    _weights(None, ALEXNET, "LPIPS", "download.pytorch.org/models")
    try:
        from lpips import LPIPS
    except ModuleNotFoundError as error:
        raise MissingWeights("LPIPS needs `pip install lpips`") from error
    return LPIPS(net="alex", verbose=False).eval()


def _weights(given: str | Path | None, name: str, what: str, source: str) -> Path:
    """The file of weights, whose name ends in its SHA-256's first digits, as torch.hub's do.

    Raises MissingWeights, saying where to get it and where to put it, if it is not there, and
    RuntimeError if it is another file.
    """
    path = expanded(given) if given else Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        raise MissingWeights(
            f"{what} needs the weights {name}, which are not here; "
            f"fetch them from {source} and put them at {path}"
        )
    digest = name.removesuffix(".pth").split("-")[-1]
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest):
        raise RuntimeError(
            f"{path} is not {name}: its checksum differs; fetch it again from {source}"
        )
    return path

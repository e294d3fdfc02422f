"""What a notebook needs that a terminal does not: to be known as one, and pictures as PNG."""

import io

import torch
from torch import Tensor


def in_notebook() -> bool:
    """Whether this runs in a kernel, of Jupyter or another front end, and not in a terminal."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    kinds = {kind.__name__ for kind in type(shell).__mro__}
    return getattr(shell, "kernel", None) is not None or "ZMQInteractiveShell" in kinds


def as_png(pictures: Tensor, smallest: int = 1) -> bytes:
    """Pictures (n, 3, H, W) in [0, 1] side by side as PNG, each pixel repeated until their height
    is at least `smallest`.
    """
    from PIL import Image

    row = torch.cat(list(pictures.detach().cpu()), dim=2).mul(255).round().byte().permute(1, 2, 0)
    picture = Image.fromarray(row.numpy())
    factor = -(-smallest // picture.height)
    buffer = io.BytesIO()
    picture.resize(
        (factor * picture.width, factor * picture.height), Image.Resampling.NEAREST
    ).save(buffer, "png")
    return buffer.getvalue()

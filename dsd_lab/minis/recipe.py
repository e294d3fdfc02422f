"""How a mini is trained: steps, sizes and rates, checked before any work is done."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import at_least, choice, fraction, positive
from ..schedule import PREDICTION_TYPES


@dataclass(frozen=True)
class Recipe:
    """How a mini is trained. Raises ValueError for what cannot be.

    autoencoder_steps, autoencoder_batch, autoencoder_lr: its training. steps, batch, lr: the
    network's, with a linear warm-up and, over the last third, a linear decay to 0. min_snr: gamma
    of min-SNR weighting (arXiv 2303.09556); None weighs the native output alike at every t. A small
    gamma starves the high t, where kind and side of a toy are decided.
    drop: share of conditions left empty, which makes the unconditional prediction. blurry: share of
    pictures that are seen blurred, with that word in the caption.
    autoencoder: a mini, or a pipeline's folder, whose autoencoder is taken as it is and not
    trained, as those who fine-tune Stable Diffusion do. start: likewise, whose UNet, and text
    encoder if it has one, the training starts from. ema: decay of the averaged weights that are
    exported. widths: channels of the UNet at 16x16, 8x8 and 4x4, multiples of 16 (of the
    autoencoder: of 8); text_width: of the text or image encoder. precision: "no", "bf16" or "fp16".
    """

    autoencoder: str | None = None
    start: str | None = None
    autoencoder_steps: int = 8000
    autoencoder_batch: int = 8
    autoencoder_lr: float = 2e-3
    autoencoder_widths: tuple[int, ...] = (16, 32, 48)
    steps: int = 6400
    batch: int = 32
    lr: float = 1e-3
    prediction: str = "v_prediction"
    min_snr: float | None = 5.0
    drop: float = 0.1
    blurry: float = 0.05
    ema: float = 0.999
    widths: tuple[int, ...] = (64, 128, 112)
    text_width: int = 96
    precision: str = "no"
    seed: int = 0

    def __post_init__(self):
        for name in ("autoencoder_steps", "autoencoder_batch", "steps", "batch", "text_width"):
            at_least(name, getattr(self, name))
        for name in ("autoencoder_lr", "lr"):
            positive(name, getattr(self, name))
        if self.min_snr is not None:
            positive("min_snr", self.min_snr)
        for name in ("drop", "blurry", "ema"):
            fraction(name, getattr(self, name))
        at_least("seed", self.seed, 0)
        choice("precision", self.precision, ("no", "bf16", "fp16"))
        choice("prediction", self.prediction, PREDICTION_TYPES)


# what the shipped minis were trained with; toys are simpler than drawings, and an autoencoder of
# drawings serves them
_TOYS = {"autoencoder": "icons-mini", "widths": (48, 96, 96)}
RECIPES = {
    "icons": Recipe(),
    "toybox": Recipe(**_TOYS, steps=5000, min_snr=None),
    "toybox-multi-view": Recipe(**_TOYS, steps=6000, lr=8e-4, min_snr=None, start="toybox-mini"),
    "toybox-novel-view": Recipe(**_TOYS, steps=8000, min_snr=None, start="toybox-mini"),
}

"""The families of pretrained pipelines that can be asked: one short record each."""

from .base import Family, Told
from .stable_diffusion import DEEPFLOYD_IF, STABLE_DIFFUSION, STABLE_DIFFUSION_XL
from .transformers import FLUX, PIXART_ALPHA, PIXART_SIGMA, SANA, STABLE_DIFFUSION_3

__all__ = ["FAMILIES", "SUPPORTED", "Family", "Told", "family_named"]

FAMILIES = (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    STABLE_DIFFUSION_3,
    PIXART_ALPHA,
    PIXART_SIGMA,
    SANA,
    FLUX,
    DEEPFLOYD_IF,
)
SUPPORTED = (
    f"supported are {', '.join(family.title for family in FAMILIES)}, and what is fine-tuned from "
    "them: text-to-image pipelines of diffusers whose network sees the noisy picture or latent "
    "alone"
)


def family_named(*pipelines: str) -> Family | None:
    """The family of a pipeline by the name of its class, or of those it is made from."""
    by_name = {name: family for family in FAMILIES for name in family.pipelines}
    return next((by_name[name] for name in pipelines if name in by_name), None)

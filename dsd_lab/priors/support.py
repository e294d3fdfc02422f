"""Which networks can be asked: those that want x, t, a prompt's embedding and perhaps a camera, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

SUPPORTED = (
    "supported are Stable Diffusion 1.x and 2.x, what is fine-tuned from them, and pixel pipelines "
    "such as the first stage of DeepFloyd IF: a UNet2DConditionModel that sees the noisy picture "
    "or latent alone, and one text encoder"
)
WANTS = {  # settings by which a UNet wants more than a prompt: what is fine, and a word otherwise
    "addition_embed_type": ((None, "text"), "is told more than the prompt"),
    "encoder_hid_dim_type": (
        (None, "text_proj"),
        "is shown a picture too; an IP-Adapter is taken off by pipe.unload_ip_adapter()",
    ),
    "time_cond_proj_dim": (
        (None,),
        "is told its guidance, as one distilled to a few steps (LCM) is; give the pipeline that "
        "it was distilled from",
    ),
}


def check_wants(unet: nn.Module, name: str) -> None:
    """Raises ValueError for a UNet whose config says that it is told more than a prompt."""
    for setting, (fine, word) in WANTS.items():
        value = getattr(unet.config, setting, None)
        if value not in fine:
            raise ValueError(f"{name} has a UNet ({setting}={value!r}) that {word}; {SUPPORTED}")


def check_at_hand(modules: Sequence[nn.Module], name: str) -> Sequence[nn.Module]:
    """The modules. Raises ValueError for one whose weights others move about or none can cast."""
    for module in modules:
        kind = type(module).__name__
        if offloaded(module):
            raise ValueError(
                f"{name} has its {kind} offloaded, so that its weights are not where they are "
                "asked for: load the pipeline without device_map and offloading, or take these "
                "off first, pipe.remove_all_hooks(); where memory is short give "
                "dtype=torch.float16"
            )
        if getattr(module, "is_quantized", False) or getattr(module, "hf_quantizer", None):
            raise ValueError(
                f"{name} has a quantised {kind}, which can be neither cast nor differentiated "
                "through: load it without quantization_config, in half precision if memory is short"
            )
    return modules


def offloaded(module: nn.Module) -> bool:
    """Whether accelerate or diffusers moves its weights to and fro, or has them elsewhere."""
    if any(p.device.type == "meta" for p in module.parameters()):
        return True
    for part in module.modules():
        hooks = getattr(getattr(part, "_diffusers_hook", None), "hooks", {})
        if hasattr(part, "_hf_hook") or any("offload" in hook for hook in hooks):
            return True
    return False


def check_call(unet: nn.Module, width: int | None, name: str) -> None:
    """Raises ValueError for a UNet that cannot be asked with x, t, an embedding (B, tokens, width)
    and, where it has such, camera vectors: whatever else its config may make it want.

    It is tried on shapes alone, without its weights.
    """
    config, side = unet.config, unet.config.sample_size
    sides = (side, side) if isinstance(side, int) else tuple(side)
    try:
        with torch.device("meta"), torch.no_grad():
            twin = type(unet).from_config(config).eval()
            more = {} if config.class_embed_type is None else {"class_labels": torch.zeros(2, 8)}
            embedded = torch.zeros(2, 2, width or config.cross_attention_dim)
            x, t = torch.zeros(2, config.in_channels, *sides), torch.zeros(2)
            twin(x, t, encoder_hidden_states=embedded, **more)
    except Exception as error:  # whatever its layers say
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"{name} has a UNet that does not take a noisy picture, a time and a prompt alone "
            f"({why}); {SUPPORTED}"
        ) from error

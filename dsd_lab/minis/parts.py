"""The parts of a mini: tokenizer, encoders, autoencoder, UNet and scheduler."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ..files import expanded
from ..priors import MODELS
from ..priors.loading import naming_damage
from ..priors.network import quiet
from ..schedule import STABLE_DIFFUSION
from .recipe import Recipe

# of the text encoder and of the image encoder
ENCODER = {"num_hidden_layers": 2, "num_attention_heads": 4}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's own random numbers, which networks start from, come from a seed; then as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # and no GPU's
        yield


def make_tokenizer(words: Sequence[str], length: int) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: one token a word, <unk> for a word it has never seen, padded to
    `length` tokens.
    """
    special = {"pad_token": "<pad>", "bos_token": "<start>"}
    special |= {"eos_token": "<end>", "unk_token": "<unk>"}
    vocabulary = {word: i for i, word in enumerate([*special.values(), *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(token, vocabulary[token]) for token in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=length, **special)


def make_autoencoder(side: int, recipe: Recipe) -> AutoencoderKL:
    """An untrained autoencoder of side x side pictures, or the one that the recipe names.
    ValueError if that is not there.
    """
    if recipe.autoencoder is not None:
        return load_part(AutoencoderKL, recipe.autoencoder, "vae")
    return AutoencoderKL(
        sample_size=side,
        latent_channels=4,
        layers_per_block=1,
        block_out_channels=recipe.autoencoder_widths,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
    )


def make_unet(
    side: int, recipe: Recipe, in_channels: int = 4, camera: int = 0
) -> UNet2DConditionModel:
    """An untrained UNet on the latents of side x side pictures.

    camera: how many numbers say from where it looks, its class label; 0 for a UNet without cameras.
    """
    return UNet2DConditionModel(
        sample_size=side // 4,
        in_channels=in_channels,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=recipe.widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=recipe.text_width,
        attention_head_dim=4,  # diffusers reads it as the number of heads
        norm_num_groups=16,
        class_embed_type="simple_projection" if camera else None,
        projection_class_embeddings_input_dim=camera or None,
    )


def make_scheduler(recipe: Recipe) -> DDIMScheduler:
    """Stable Diffusion's DDIM scheduler, with the recipe's prediction type."""
    return DDIMScheduler(
        **STABLE_DIFFUSION,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=recipe.prediction,
    )


def mini_folder(name: str) -> Path:
    """Of a shipped mini, or of a pipeline's folder."""
    return MODELS / name if (MODELS / name).is_dir() else expanded(name)


def load_part(kind: type[nn.Module], pipeline: str, part: str) -> nn.Module:
    """A network of a shipped mini, or of a pipeline's folder. ValueError if that is not there."""
    folder = mini_folder(pipeline)
    if not (folder / part / "config.json").is_file():
        shipped = ", ".join(sorted(file.parent.name for file in MODELS.glob("*/model_index.json")))
        raise ValueError(
            f'no {part} in "{pipeline}"; allowed: {shipped}, or a folder with a pipeline\'s {part}'
        )
    with quiet(), naming_damage(folder / part):
        return kind.from_pretrained(
            folder / part, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True
        )


def start_from(network: nn.Module, pipeline: str, part: str) -> None:
    """Copy the weights of another mini's network of the same kind.

    A UNet that is told something else in its class embedding learns that anew; where it has more
    input channels, those beyond the other's start at zero, so that at first it sees what the other
    saw. Raises ValueError for one of another size.
    """
    own = network.state_dict()
    weights = load_part(type(network), pipeline, part).state_dict()
    first, told = "conv_in.weight", "class_embedding"
    at_home = {k: v for k, v in own.items() if k.startswith(told)}
    if {k: v.shape for k, v in weights.items() if k.startswith(told)} != {
        k: v.shape for k, v in at_home.items()
    }:
        weights = {k: v for k, v in weights.items() if not k.startswith(told)} | at_home
    if first in own and (more := own[first].shape[1] - weights[first].shape[1]) > 0:
        weights[first] = F.pad(weights[first], (0, 0, 0, 0, 0, more))
    for name in sorted(own.keys() | weights.keys()):
        here, there = (
            tuple(state[name].shape) if name in state else "absent" for state in (own, weights)
        )
        if here != there:
            raise ValueError(
                f"the {part} of {pipeline} does not fit the recipe: {name} is {there} in it and "
                f"{here} by the recipe"
            )
    network.load_state_dict(weights)


class Reconstructor(nn.Module):
    """The autoencoder as one network: (pictures in [-1, 1], noise) -> reconstruction, latents' mean
    and log variance.
    """

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, pictures: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pictures (B, 3, S, S) and noise (B, 4, S/4, S/4): (B, 3, S, S), and two as noise is."""
        posterior = self.vae.encode(pictures).latent_dist
        sample = posterior.mean + posterior.std * noise
        return self.vae.decode(sample).sample, posterior.mean, posterior.logvar


@torch.no_grad()
def encode_all(vae: nn.Module, pixels: Tensor) -> Tensor:
    """The latents' means of uint8 pictures (N, 3, S, S), unscaled: float32 (N, 4, S/4, S/4) on the
    CPU.
    """
    latents = [
        vae.encode(part.to(vae.device).float() / 127.5 - 1).latent_dist.mean.cpu()
        for part in pixels.split(64)
    ]
    return torch.cat(latents)


def fit_scale(vae: nn.Module, latents: Tensor) -> float:
    """Set the autoencoder's scaling factor, which gives latents unit variance, and return it."""
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    return vae.config.scaling_factor

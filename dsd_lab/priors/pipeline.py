"""Network priors: any diffusers text-to-image pipeline of the Stable Diffusion kind."""

import math
import unicodedata
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..cameras import Camera
from ..worlds import World
from .network import NetworkPrior, quiet
from .support import SUPPORTED, check_call, check_wants
from .words import Words

# NFSD's words for everything that a picture should not be (arXiv 2310.17590, section 4)
DEGRADED = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, "
    "low-resolution, gloomy"
)


class PipelinePrior(NetworkPrior):
    """The prior of a diffusers text-to-image pipeline: the pipeline's own network, in its own
    (latent) space.

    Prompts are texts; a `world` adds the names of its prompts. pipe: its modules are moved to
    `device`, cast to `dtype` and frozen, in place; for these two, `max_batch` and the shapes see
    `NetworkPrior`.
    cameras: "any" for a UNet whose class embedding is a "simple_projection" of `camera_vector`s,
    else None.
    Raises TypeError or ValueError for a pipeline of another kind.
    """

    def __init__(
        self,
        pipe,
        name: str = "pipeline",
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        world: World | None = None,
    ):
        check_supported(pipe)
        super().__init__(
            name,
            pipe.unet,
            getattr(pipe, "vae", None),
            (pipe.text_encoder,),
            pipe.scheduler.config,
            pipe.unet.config.in_channels,
            device,
            dtype,
        )
        self.pipe, self.world, self.words = pipe, world, Words(pipe.tokenizer, name)
        self.prompts = world.prompts if world is not None else ()
        self.cameras = "any" if self.unet.config.class_embed_type == "simple_projection" else None

    # ---- prompts

    def resolve(self, prompt: str) -> str:
        if not isinstance(prompt, str):
            example = (self.prompts or ("a dragon",))[0]
            raise TypeError(
                f"a prompt is a string such as {example!r}, got {type(prompt).__name__}"
            )
        if not prompt.strip():
            raise ValueError(
                'the prompt is empty; give words such as "a dragon" '
                '(the empty prompt is the term "uncond")'
            )
        text = prompt.strip()
        if self.world is not None:
            try:
                text = self.world.resolve(text)
            except ValueError:
                text = unicodedata.normalize("NFC", text).lower()
        return self.words.check(text, prompt)

    @cached_property
    def _degraded(self) -> str:
        for text in (DEGRADED, "blurry"):
            if not self.words.unknown(text):
                return text
        raise ValueError(
            f'{self.name} has no term "degraded", as it does not know the word "blurry"; '
            "give a negative prompt"
        )

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> Tensor:
        """What the text encoder makes of texts: (B, tokens, channels). Each text is encoded once,
        for good.
        """
        if missing := [text for text in dict.fromkeys(texts) if text not in self._embeddings]:
            encoded = self.pipe.encode_prompt(
                prompt=missing,
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )[0]
            self._embeddings.update(zip(missing, encoded, strict=True))
        return torch.stack([self._embeddings[text] for text in texts])

    def blend(self, texts: dict[str, float]) -> str:
        """A name for the weighted mean of texts' embeddings, to be used as a prompt of a
        `Condition`; weights add up to 1.
        """
        name = " + ".join(f"{weight:.6f} [{text}]" for text, weight in texts.items())
        if name not in self._embeddings:
            weights = torch.tensor(list(texts.values()))
            embedded = self._embed(list(texts))
            self._embeddings[name] = torch.einsum("n,ntc->tc", weights.to(embedded), embedded)
        return name

    # ---- the network

    def _forget(self):
        self._embeddings: dict[str, Tensor] = {}

    def _question(self, query, term):
        """The texts that the network reads for a term, one an item, and the cameras."""
        texts = query.cond.subjects(term)
        if texts[0] is None:
            texts = ("" if term == "uncond" else self._degraded,) * len(texts)
        return texts, query.cond.camera

    def _conditions(self, questions):
        embedded = self._embed([text for (texts, _), _ in questions for text in texts])
        if self.cameras is None:
            return embedded, None
        cameras = [c for (_, seen_from), items in questions for c in seen_from or (None,) * items]
        return embedded, camera_vector(cameras)

    def _network(self, x, t, embedded, camera):
        labels = {} if camera is None else {"class_labels": camera.to(x)}
        return self.unet(x, t, encoder_hidden_states=embedded, **labels).sample


def camera_vector(cameras: Sequence[Camera | None]) -> Tensor:
    """Cameras as numbers for a network: float32 (B, 8), zeros for none.

    Where the camera stands on the unit sphere (3), the direction to its right, which is level (2),
    cos(elevation), distance / 3 - 1 and fov / 40 - 1: smooth in the angles, and within about 1.
    """

    def numbers(camera):
        if camera is None:
            return [0.0] * 8
        az, el = math.radians(camera.azimuth), math.radians(camera.elevation)
        return [
            math.cos(el) * math.sin(az),
            math.sin(el),
            math.cos(el) * math.cos(az),
            math.cos(az),
            -math.sin(az),
            math.cos(el),
            camera.distance / 3 - 1,
            camera.fov / 40 - 1,
        ]

    cameras = [cameras] if isinstance(cameras, Camera) else cameras
    return torch.tensor([numbers(camera) for camera in cameras])


def check_supported(pipe) -> None:
    """Raises TypeError for anything but a diffusers pipeline, ValueError for one whose network asks
    for more than this.
    """
    from diffusers import DiffusionPipeline, UNet2DConditionModel

    if not isinstance(pipe, DiffusionPipeline):
        raise TypeError(
            f"pipe must be a diffusers pipeline, got {type(pipe).__name__}; "
            "for a folder or a hub id use load_prior"
        )

    def unless(fine, why):
        if not fine:
            raise ValueError(f"{type(pipe).__name__} {why}; {SUPPORTED}")

    unet, vae = getattr(pipe, "unet", None), getattr(pipe, "vae", None)
    unless(isinstance(unet, UNet2DConditionModel), "has no UNet2DConditionModel as its unet")
    unless(
        all(getattr(pipe, part, None) for part in ("tokenizer", "text_encoder", "encode_prompt")),
        "cannot read a prompt",
    )
    check_wants(unet, type(pipe).__name__)
    channels = vae.config.latent_channels if vae is not None else 3
    unless(
        unet.config.in_channels == channels,
        f"has a UNet of {unet.config.in_channels} input channels where its pictures "
        f"or latents have {channels}",
    )
    unless(
        unet.config.out_channels in (channels, 2 * channels),
        f"has a UNet of {unet.config.out_channels} output channels",
    )
    unless(
        unet.config.sample_size is not None,
        "does not say how large its samples are (sample_size in the UNet's config)",
    )
    kind, width = unet.config.class_embed_type, unet.config.projection_class_embeddings_input_dim
    unless(
        unet.config.num_class_embeds is None
        and (kind is None or (kind, width) == ("simple_projection", 8)),
        "wants class labels that are not camera vectors of 8 numbers",
    )
    unless(
        {"beta_schedule", "trained_betas"} & set(pipe.scheduler.config),
        "is no diffusion in the sense of DDPM (no betas)",
    )
    text = pipe.text_encoder.config
    width = getattr(text, "hidden_size", None) or getattr(text, "d_model", None)
    with quiet():  # of settings that diffusers does not know, such as how many views are joint
        check_call(unet, width, type(pipe).__name__)

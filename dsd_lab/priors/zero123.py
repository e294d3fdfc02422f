"""Networks like Zero-1-to-3 (arXiv 2303.11328), as priors of new views."""

import math
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cameras import Camera, check_cameras
from ..inputs import InputView
from ..schedule import NoiseSchedule
from ..threads import one_thread
from .condition import Cameras
from .families.stable_diffusion import ALONE, UNET_WANTS
from .network import NetworkPrior
from .novel_view import AskedByPicture
from .support import check_wants

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
POSE = 4  # numbers in a relative pose


class NovelViewNetwork(nn.Module):
    """Zero-1-to-3's network (arXiv 2303.11328): a UNet that sees the picture's latents beside the
    noisy ones.

    What it attends to is one token, made of the picture's CLIP-style embedding and of the four
    numbers of `relative_pose`. A UNet with a class embedding is told the pose there too, beside t,
    as the mini is, which attends at one size alone.
    unet: of 8 input channels. image_encoder: a CLIPVisionModelWithProjection. projection: a linear
    map from both to the token.
    """

    def __init__(self, unet: nn.Module, image_encoder: nn.Module, projection: nn.Linear):
        super().__init__()
        self.unet, self.image_encoder, self.projection = unet, image_encoder, projection

    def embed(self, images: Tensor) -> Tensor:
        """The embedding of pictures (B, 3, S, S) in [0, 1]: (B, E)."""
        side = self.image_encoder.config.image_size
        if images.shape[-1] != side:
            images = F.interpolate(images, (side, side), mode="bicubic", align_corners=True)
        mean, std = (
            torch.tensor(values).to(images)[:, None, None] for values in (CLIP_MEAN, CLIP_STD)
        )
        return self.image_encoder((images - mean) / std).image_embeds

    def forward(
        self, x_t: Tensor, t: Tensor, latents: Tensor, embedding: Tensor, pose: Tensor, keep: Tensor
    ) -> Tensor:
        """The native output (B, 4, h, w); keep: (B,) 1, or 0 for the unconditional prediction,
        which sees zeros instead.
        """
        token = self.projection(torch.cat([embedding, pose], 1)) * keep[:, None]
        seen = torch.cat([x_t, latents * keep[:, None, None, None]], 1)
        labels = pose * keep[:, None] if self.unet.config.class_embed_type else None
        return self.unet(seen, t, encoder_hidden_states=token[:, None], class_labels=labels).sample


class NovelViewPrior(AskedByPicture, NetworkPrior):
    """The prior of a network like Zero-1-to-3, in the latents of its autoencoder; any camera.

    network: its UNet, image encoder and projection; vae: an AutoencoderKL; scheduler: the config of
    a diffusers scheduler; name, device, dtype: see `NetworkPrior`. Cameras are told relative to the
    picture's, so only differences count: of elevation, of azimuth and of distance. Raises
    ValueError for networks of another form.
    """

    cameras = "any"

    def __init__(
        self,
        network: NovelViewNetwork,
        vae: nn.Module,
        scheduler,
        name: str = "novel-view",
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
    ):
        channels = vae.config.latent_channels
        check_form(network, channels, name)
        others, side = (network.image_encoder, network.projection), network.unet.config.sample_size
        shape = channels, *((side, side) if isinstance(side, int) else side)
        schedule = NoiseSchedule.from_diffusers(scheduler)
        super().__init__(name, network.unet, vae, others, schedule, shape, device, dtype)
        self.network = network

    @torch.no_grad()
    def _encode_view(self, view: InputView) -> tuple[Tensor, Tensor]:
        """The picture's latents, unscaled as Zero-1-to-3 has them, and its embedding; made once."""
        if view not in self._encoded:
            image = view.at_size(self.picture_size).image[None].to(self.device, self.network_dtype)
            with one_thread(self.network):
                latents = self.vae.encode(2 * image - 1).latent_dist.mode()
                self._encoded[view] = latents, self.network.embed(image)
        return self._encoded[view]

    def _question(self, query, term):
        if term not in ("uncond", "cond"):
            raise ValueError(f'no term "{term}" here; allowed: uncond, cond')
        return term, query.cond.view, query.cond.camera if term == "cond" else None

    def _conditions(self, questions):
        parts = []
        for (term, view, cameras), items in questions:
            latents, embedding = (
                part.expand(items, *part.shape[1:]) for part in self._encode_view(view)
            )
            pose = relative_pose(view.camera, cameras) if cameras else torch.zeros(items, POSE)
            keep = torch.full((items,), float(term == "cond"))
            parts.append((latents, embedding, pose.to(latents), keep.to(latents)))
        names = ("latents", "embedding", "pose", "keep")
        return dict(zip(names, map(torch.cat, zip(*parts, strict=True)), strict=True))

    def _network(self, x, time, told):
        return self.network(x, time, **told)

    def _forget(self):
        self._encoded: WeakKeyDictionary[InputView, tuple[Tensor, Tensor]] = WeakKeyDictionary()


def check_form(network: NovelViewNetwork, channels: int, name: str) -> None:
    """Raises ValueError unless the parts fit each other, and latents of so many channels."""
    config, projection = network.unet.config, network.projection
    check_wants(network.unet, UNET_WANTS | ALONE, name)
    if (config.in_channels, config.out_channels) != (2 * channels, channels):
        raise ValueError(
            f"{name} has a UNet of {config.in_channels} input and {config.out_channels} output "
            f"channels; one that sees a picture beside its latents of {channels} channels has "
            f"{2 * channels} and {channels}"
        )
    inputs = network.image_encoder.config.projection_dim + POSE
    if (projection.in_features, projection.out_features) != (inputs, config.cross_attention_dim):
        raise ValueError(
            f"{name} has a projection from {projection.in_features} to {projection.out_features}; "
            f"its embedding, pose and UNet ask for {inputs} to {config.cross_attention_dim}"
        )
    if config.class_embed_type and config.projection_class_embeddings_input_dim != POSE:
        raise ValueError(
            f"{name} has a UNet whose class embedding is of "
            f"{config.projection_class_embeddings_input_dim} numbers; what it can be told is a "
            f"pose, of {POSE}"
        )


def relative_pose(seen: Camera, wanted: Cameras) -> Tensor:
    """Where cameras stand, seen from the picture's: float32 (B, 4).

        [ polar angle, sin(azimuth), cos(azimuth), distance ]

    Each is the wanted camera's less the picture's, in radians. The polar angle is 90 degrees less
    the elevation. Source: arXiv 2303.11328 and its code.
    """

    def numbers(camera):
        turn = math.radians(camera.azimuth - seen.azimuth)
        return [
            math.radians(seen.elevation - camera.elevation),
            math.sin(turn),
            math.cos(turn),
            camera.distance - seen.distance,
        ]

    wanted = check_cameras([wanted] if isinstance(wanted, Camera) else wanted)
    return torch.tensor([numbers(camera) for camera in wanted])

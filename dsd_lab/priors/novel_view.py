"""Priors of new views: given one picture of an object and the camera it was taken from, what do
other cameras see?
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cameras import Camera, check_cameras
from ..inputs import InputView, input_view
from ..schedule import NoiseSchedule
from ..worlds import ToyboxWorld, render
from .base import Condition
from .network import NetworkPrior, check_complete, check_parts, gist, pick_device, pick_dtype, quiet
from .views import ViewSet

TOLERANCE = 0.02  # RMSE per channel at which an object's likelihood has fallen to exp(-1/2)
PROJECTIONS = (
    "cc_projection",
    "clip_camera_projection",
)  # what the two conversions of Zero-1-to-3 to diffusers call it
PARTS = ("unet", "vae", "image_encoder")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class AskedByPicture:
    """What priors of new views have in common: their condition holds a picture and its camera in a
    prompt's place.
    """

    asked_by = "picture"

    def condition(
        self,
        image=None,
        image_camera: Camera | None = None,
        camera: Camera | Sequence[Camera] | None = None,
    ) -> Condition:
        """The condition for a picture of an object: what `camera`, or one camera an item, sees of
        it.

        image, image_camera: as for `input_view`. Raises TypeError or ValueError for anything that
        cannot be.
        """
        if image is None or isinstance(image, str) and not Path(image).suffix:
            raise TypeError(
                f"{self.name} is asked by a picture, not by a prompt: condition(image, image_camera, camera)"
            )
        view = (
            image
            if isinstance(image, InputView)
            else input_view(image, image_camera, self.picture_size)
        )
        cameras = self._seen_from(camera)
        return Condition(("",) * len(cameras), camera=cameras, view=view)

    def resolve(self, prompt: str) -> str:
        raise TypeError(
            f"{self.name} is asked by a picture, not by a prompt: use image_to_3d, or condition(image=...)"
        )


class NovelViewSet(AskedByPicture, ViewSet):
    """The exact prior of new views: a world's objects, each as likely as it looks like the picture.

        p(object | picture) ~ exp( -rmse(picture, object from the picture's camera)^2 / (2
        tolerance^2) )

    RMSE per channel. That is far softer than independent pixels would be, since what differs in one
    pixel differs in its neighbours too. Objects that look alike from there, twins with different
    backs, are equally likely: the picture leaves open which it is, and the true answers are known.
    Without guidance all objects of the world are equally likely.
    tolerance: positive. joint: as for `ViewSet`. The picture's camera may be any; new views are
    those of the world's bank.
    """

    def __init__(
        self,
        world: ToyboxWorld,
        scale: float | None = None,
        schedule: NoiseSchedule | None = None,
        tolerance: float = TOLERANCE,
        joint: bool = False,
    ):
        if not 0 < tolerance < math.inf:
            raise ValueError(
                f"tolerance is an RMSE and must be positive ({TOLERANCE} is the default), got {tolerance}"
            )
        super().__init__(world, scale, schedule, joint)
        self.name = "toybox-novel-view" + "-joint" * joint
        self.tolerance, self.picture_size = tolerance, self.shape[-1]
        self._posteriors: WeakKeyDictionary[InputView, Tensor] = WeakKeyDictionary()

    def identity(self):
        return {**super().identity(), "tolerance": self.tolerance}

    def at_size(self, size):
        if size != self.shape[-1] and size not in self._sizes:
            smaller = super().at_size(size)
            smaller.tolerance, smaller.log_posterior = (
                self.tolerance,
                self.log_posterior,
            )  # which it is stays what it was
        return super().at_size(size)

    def log_posterior(self, view: InputView) -> Tensor:
        """log p(object | picture), float64 (N,), normalised; made once for each picture, at this
        prior's size.
        """
        if view not in self._posteriors:
            size = view.image.shape[-1]
            if view.camera in self.cameras and size == self.world.views.shape[-1]:
                shown = self.world.images(camera_index=self.cameras.index(view.camera))
            else:
                shown = torch.cat(
                    [
                        render(self.world.toys.subset(part), [view.camera], size).rgb[:, 0]
                        for part in torch.arange(len(self.world)).split(16)
                    ]
                )
            error = (shown - view.image).double().square().flatten(1).mean(1)
            self._posteriors[view] = torch.log_softmax(-error / (2 * self.tolerance**2), 0)
        return self._posteriors[view]

    def answers(self, view: InputView, least: float = 0.01) -> Tensor:
        """Which objects the picture leaves open, the likeliest first: int64 positions of all that
        are at least so likely.
        """
        log_p = self.log_posterior(view)
        order = log_p.argsort(descending=True, stable=True)
        return order[log_p[order] >= math.log(least)]

    def _given(self, cond, term):
        # relative to the even weights that all objects have without a picture
        log_p = self.log_posterior(cond.view)
        return log_p.masked_fill(log_p < -30, -torch.inf)[None]

    def _outputs(self, queries):
        if len({query.cond.view for query in queries}) == 1:
            return super()._outputs(queries)
        return [
            super(NovelViewSet, self)._outputs([query])[0] for query in queries
        ]  # each picture has its own posterior


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
        told = pose * keep[:, None] if self.unet.config.class_embed_type else None
        return self.unet(seen, t, encoder_hidden_states=token[:, None], class_labels=told).sample


class NovelViewPrior(AskedByPicture, NetworkPrior):
    """The prior of a network like Zero-1-to-3, in the latents of its autoencoder; any camera.

    network: its UNet, image encoder and projection; vae: an AutoencoderKL; scheduler: the config of
    a diffusers scheduler;
    name, device, dtype: see `NetworkPrior`. Cameras are told relative to the picture's, so only
    differences count: of elevation, of azimuth and of distance. Raises ValueError for networks of
    another form.
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
        channels, config = vae.config.latent_channels, network.unet.config
        if (config.in_channels, config.out_channels) != (2 * channels, channels):
            raise ValueError(
                f"{name} has a UNet of {config.in_channels} input and {config.out_channels} output channels; one "
                f"that sees a picture beside its latents of {channels} channels has {2 * channels} and {channels}"
            )
        embedding = network.image_encoder.config.projection_dim
        if (network.projection.in_features, network.projection.out_features) != (
            embedding + 4,
            config.cross_attention_dim,
        ):
            raise ValueError(
                f"{name} has a projection from {network.projection.in_features} to "
                f"{network.projection.out_features}; its embedding, pose and UNet ask for {embedding + 4} to "
                f"{config.cross_attention_dim}"
            )
        if config.class_embed_type and config.projection_class_embeddings_input_dim != 4:
            raise ValueError(
                f"{name} has a UNet whose class embedding is of {config.projection_class_embeddings_input_dim} "
                "numbers; what it can be told is a pose, of 4"
            )
        super().__init__(
            name,
            network.unet,
            vae,
            (network.image_encoder, network.projection),
            scheduler,
            channels,
            device,
            dtype,
        )
        self.network, self.picture_size = network, self.image_shape[-1]
        self._seen: WeakKeyDictionary[InputView, tuple[Tensor, Tensor]] = WeakKeyDictionary()

    @torch.no_grad()
    def _look_at(self, view: InputView) -> tuple[Tensor, Tensor]:
        """The picture's latents, unscaled as Zero-1-to-3 has them, and its embedding; made once."""
        if view not in self._seen:
            image = view.at_size(self.picture_size).image[None].to(self.device, self.network_dtype)
            self._seen[view] = (
                self.vae.encode(2 * image - 1).latent_dist.mode(),
                self.network.embed(image),
            )
        return self._seen[view]

    def _asked(self, query, term):
        if term not in ("uncond", "cond"):
            raise ValueError(f'no term "{term}" here; allowed: uncond, cond')
        return term, query.cond.view, query.cond.camera if term == "cond" else ()

    def _conditions(self, asked):
        parts = []
        for (term, view, cameras), items in asked:
            latents, embedding = (
                part.expand(items, *part.shape[1:]) for part in self._look_at(view)
            )
            pose = (
                relative_pose(view.camera, cameras).expand(items, -1)
                if cameras
                else torch.zeros(items, 4)
            )
            parts.append(
                (
                    latents,
                    embedding,
                    pose.to(latents),
                    torch.full((items,), float(term == "cond")).to(latents),
                )
            )
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _network(self, x, t, latents, embedding, pose, keep):
        return self.network(x, t, latents, embedding, pose, keep)


def relative_pose(seen: Camera, wanted: Camera | Sequence[Camera]) -> Tensor:
    """Where cameras stand, seen from the picture's: float32 (B, 4).

        [ polar angle, sin(azimuth), cos(azimuth), distance ]    each the wanted camera's less the picture's, in radians

    The polar angle is 90 degrees less the elevation. Source: arXiv 2303.11328 and its code.
    """

    def numbers(camera):
        turn = math.radians(camera.azimuth - seen.azimuth)
        return [
            math.radians(seen.elevation - camera.elevation),
            math.sin(turn),
            math.cos(turn),
            camera.distance - seen.distance,
        ]

    return torch.tensor(
        [
            numbers(camera)
            for camera in check_cameras([wanted] if isinstance(wanted, Camera) else wanted)
        ]
    )


def is_novel_view(folder: Path) -> bool:
    """Whether a pipeline's folder holds a network like Zero-1-to-3: one that has a projection of
    embedding and pose.
    """
    return any((folder / part).is_dir() for part in PROJECTIONS)


def load_novel_view(
    folder: Path | str,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    name: str | None = None,
) -> NovelViewPrior:
    """The prior of a Zero-1-to-3-type pipeline's folder, as either of its conversions to diffusers
    is laid out.

    Raises ValueError, saying what is missing or does not fit, for a folder that cannot be used.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import load_file
    from transformers import CLIPVisionModelWithProjection

    folder = Path(folder).expanduser()
    device = pick_device(device)
    dtype = pick_dtype(dtype, device)
    part = next((own for own in PROJECTIONS if (folder / own).is_dir()), PROJECTIONS[0])
    files = check_parts(folder, [*PARTS, part, "scheduler"], [*PARTS, part])
    kinds = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "image_encoder": CLIPVisionModelWithProjection,
    }
    own = {}
    try:
        scheduler = json.loads(
            (folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")
        )
        with quiet():
            for module, kind in kinds.items():
                variant = (
                    {"variant": "fp16"} if all(".fp16." in file for file in files[module]) else {}
                )
                own[module] = kind.from_pretrained(
                    str(folder),
                    subfolder=module,
                    torch_dtype=dtype,
                    use_safetensors=True,
                    local_files_only=True,
                    **variant,
                )
        weights = load_file(folder / part / files[part][0])
    except Exception as error:  # diffusers and transformers raise many kinds
        raise ValueError(
            f"{folder} cannot be read as a pipeline like Zero-1-to-3: {gist(error)}"
        ) from error
    check_complete(own["unet"], folder / "unet")
    linear = {key.rpartition(".")[2]: value for key, value in weights.items()}
    if (
        set(linear) != {"weight", "bias"}
        or linear["weight"].ndim != 2
        or linear["bias"].shape != linear["weight"].shape[:1]
    ):
        raise ValueError(
            f"{folder / part} must hold one linear map, a weight and a bias; it has {', '.join(sorted(weights))}"
        )
    projection = nn.Linear(linear["weight"].shape[1], linear["weight"].shape[0])
    projection.load_state_dict(linear)
    network = NovelViewNetwork(own["unet"], own["image_encoder"], projection)
    return NovelViewPrior(
        network, own["vae"], scheduler, name or folder.resolve().name, device, dtype
    )

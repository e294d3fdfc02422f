"""Network priors: any diffusers text-to-image pipeline of a known family."""

import math
import unicodedata
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..cameras import Camera
from ..checks import number
from ..worlds import World
from .condition import Condition
from .device import pick_device, pick_dtype
from .embeddings import Embeddings
from .network import NetworkPrior, quiet
from .support import check_call, check_supported, overflows, schedule_of, shape_of, warn_of_student
from .words import Words, checked_prompt

# NFSD's words for everything that a picture should not be (arXiv 2310.17590, section 4)
DEGRADED = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, "
    "low-resolution, gloomy"
)


class PipelinePrior(NetworkPrior):
    """The prior of a diffusers text-to-image pipeline: the pipeline's own network, in its own
    (latent) space, asked as its `family` is.

    Prompts are texts; a `world` adds the names of its prompts. pipe: its modules are moved to
    `device`, cast to `dtype` and frozen, in place; for these two, `max_batch` and the shapes see
    `NetworkPrior`. size: side of its pictures in pixels, if not the network's own.
    guidance: told to a network that has guidance built in (FLUX.1 dev), where it is an input.
    cameras: "any" for a UNet whose class embedding is a "simple_projection" of `camera_vector`s,
    else None.
    has_uncond: whether there is a prediction without a prompt. FLUX.1, and networks distilled to a
    few steps (with a warning), are asked for their one prediction, at cfg 1.
    Raises TypeError or ValueError for a pipeline of another kind.
    """

    def __init__(
        self,
        pipe,
        name: str = "pipeline",
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        world: World | None = None,
        *,
        size: int | None = None,
        guidance: float = 3.5,
    ):
        self.pipe, self.family = pipe, check_supported(pipe)
        family = self.family
        network, vae = getattr(pipe, family.part), None if family.pixels else pipe.vae
        shape = shape_of(pipe, family, size)
        super().__init__(
            name,
            network,
            vae,
            [getattr(pipe, encoder) for encoder in family.encoders],
            schedule_of(pipe, family, shape),
            shape,
            device,
            dtype,
            float32_vae=overflows(family, vae, pick_dtype(dtype, pick_device(device))),
        )
        number("guidance", guidance, "3.5, what FLUX.1 dev is told")
        self._more = family.more(network, self.image_shape[1:], guidance)
        with quiet():  # of settings that diffusers does not know, such as views_per_item
            check_call(pipe, family, shape, self._more)
        self.world, self.prompts = world, world.prompts if world is not None else ()
        self.words = Words(getattr(pipe, family.tokenizer), name, family.max_tokens)
        told_camera = network.config.get("class_embed_type") == "simple_projection"
        self.cameras = "any" if told_camera else None
        self.has_uncond = not warn_of_student(pipe, family, name) and family.has_uncond

    def identity(self) -> dict[str, object]:
        return super().identity() | {name: each.tolist() for name, each in self._more.items()}

    # ---- prompts

    def resolve(self, prompt: str) -> str:
        text = checked_prompt(prompt, (self.prompts or ("a dragon",))[0])
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

    def prepare(self, cond: Condition) -> None:
        """Encodes all that a condition may be asked for, so that the text encoders are not needed
        for it again.
        """
        texts = self.embeddings.texts(("", *(cond.negative or ())), False)
        self.embeddings.of(texts + self.embeddings.texts(cond.prompt, True))

    def blend(self, texts: dict[str, float]) -> str:
        """A name for the weighted mean of texts' embeddings, to be used as a prompt of a
        `Condition`; weights add up to 1.
        """
        return self.embeddings.blend(texts)

    # ---- the network

    def _forget(self):
        self.embeddings = Embeddings(self.pipe, self.family, self.device)

    def _question(self, query, term):
        """The texts that the network reads for a term, one an item, and the cameras."""
        if term != "cond" and not self.has_uncond:
            raise ValueError(
                f'{self.name} has no term "{term}", as its guidance is built in or it has none: '
                "ask it at cfg=1; methods that compare with it (CSD, NFSD, ISM) cannot be run"
            )
        texts = query.cond.subjects(term)
        if texts[0] is None:
            texts = ("" if term == "uncond" else self._degraded,) * len(texts)
        return self.embeddings.texts(texts, term == "cond"), query.cond.camera

    def _conditions(self, questions):
        parts = self.embeddings.of([text for (texts, _), _ in questions for text in texts])
        told = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        for name, value in self._more.items():
            told[name] = value.to(self.device).expand(len(parts), *value.shape)
        if self.cameras is not None:
            seen = [c for (_, cameras), items in questions for c in cameras or (None,) * items]
            told["camera"] = camera_vector(seen).to(self.device)
        return told

    def _time(self, t):
        return self.family.time(self.schedule, t)

    def _network(self, x, time, told):
        return self.family.ask(self.unet, x, time, told)


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

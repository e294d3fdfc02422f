"""What a family of pretrained pipelines is: a record of how its network is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ...schedule import NoiseSchedule

# What a network is told beside x and t: embeddings, masks, ...; by name, an entry an item
Told = dict[str, Tensor]
Wants = Mapping[str, tuple[tuple, str]]  # settings: what of them is fine, and a word otherwise


def whole(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """The time of networks that count levels: t itself."""
    return t


def thousandths(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """1000 times a flow's time, in float32 whatever the network's dtype: (B,)."""
    return (1000 * schedule.time[t]).float()


def share(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """A flow's time, in float32: (B,)."""
    return schedule.time[t].float()


def nothing(network: nn.Module, sides: tuple[int, int], guidance: float) -> Told:
    """No more than the prompt."""
    return {}


@dataclass(frozen=True)
class Family:
    """How the pipelines of a kind are asked: what differs between them, and no more.

    title: to show. pipelines: the names of their classes in diffusers. part, network: the part of
    a pipeline that is the network, and the name of its class. predictions: what its output may be.
    encode: (pipe, texts, whether they are what is wanted, device) -> what the network is told for
    each, from one run of the text encoders. sizes: (pipe) -> the shape of each of these, of one
    item. more: (network, sides of the pictures, guidance) -> what else it is told, of one item.
    ask: (network, x, time, told) -> its output, (B, channels or more, h, w). time: from t.
    encoders: the text encoders, which have a tokenizer each; which of them are `optional`.
    tokenizer: the one whose limit counts, up to `max_tokens`. pack: how many latents a side are
    packed into the network's channels. wants: settings of the network's config by which it would
    want more. has_uncond: whether there is a prediction without a prompt, and so guidance; the
    network may have it built in. instructed: whether a wanted text is read otherwise than one to
    avoid. pixels: whether it has no autoencoder. float32_vae: whether an autoencoder that says
    force_upcast overflows in float16.
    """

    title: str
    pipelines: tuple[str, ...]
    part: str
    network: str
    predictions: tuple[str, ...]
    encode: Callable[..., Told]
    sizes: Callable[..., dict[str, tuple[int, ...]]]
    ask: Callable[[nn.Module, Tensor, Tensor, Told], Tensor]
    time: Callable[[NoiseSchedule, Tensor], Tensor] = whole
    more: Callable[[nn.Module, tuple[int, int], float], Told] = nothing
    encoders: tuple[str, ...] = ("text_encoder",)
    optional: tuple[str, ...] = ()
    tokenizer: str = "tokenizer"
    max_tokens: int = 77
    pack: int = 1
    wants: Wants = field(default_factory=dict)
    has_uncond: bool = True
    instructed: bool = False
    pixels: bool = False
    float32_vae: bool = False


def width(encoder: nn.Module) -> int:
    """The channels of a text encoder's output."""
    config = encoder.config
    return getattr(config, "hidden_size", None) or config.d_model

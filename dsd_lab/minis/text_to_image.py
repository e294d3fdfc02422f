"""Train a mini prior: a complete, small Stable-Diffusion-shaped pipeline, from a world's pictures
and captions.

Two stages. An autoencoder learns to shrink pictures 4 times a side to 4 channels; then all pictures
are encoded, once, and a text encoder and a UNet learn together to denoise the latents. Both stages
checkpoint, and the same call goes on.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..files import write_file
from ..priors.pipeline import quiet
from ..schedule import NoiseSchedule

# for negative prompts: every caption, the empty one too, is also seen with this word, on blurred
# pictures
BLURRY = "blurry"


@dataclass(frozen=True)
class Recipe:
    """How a mini is trained.

    autoencoder_steps, autoencoder_batch, autoencoder_lr: its training. steps, batch, lr: the
    network's, with a linear warm-up and, over the last third, a linear way down to 0. min_snr:
    gamma of min-SNR weighting (arXiv 2303.09556).
    drop: share of captions left empty, which makes the unconditional prediction. blurry: share of
    pictures that are seen blurred, with that word in the caption.
    autoencoder: a mini, or a pipeline's folder, whose autoencoder is taken as it is and not
    trained, as those who fine-tune Stable Diffusion do. start: likewise, whose UNet the training of
    a novel-view mini starts from. ema: decay of the averaged weights that are exported. widths:
    channels of the UNet at 16x16, 8x8 and 4x4; text_width: of the text encoder.
    precision: "no", "bf16" or "fp16".
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
    min_snr: float = 5.0
    drop: float = 0.1
    blurry: float = 0.05
    ema: float = 0.999
    widths: tuple[int, ...] = (64, 128, 112)
    text_width: int = 96
    precision: str = "no"
    seed: int = 0

    def __post_init__(self):
        for name in ("autoencoder_steps", "autoencoder_batch", "steps", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
        for name in ("drop", "blurry"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share in [0, 1), got {getattr(self, name)}")
        if self.precision not in ("no", "bf16", "fp16"):
            raise ValueError(f'unknown precision "{self.precision}"; allowed: no, bf16, fp16')


# what the shipped minis were trained with; toys are simpler than drawings, and an autoencoder of
# drawings serves them
RECIPES = {
    "icons": Recipe(),
    "toybox": Recipe(autoencoder="icons-mini", widths=(48, 96, 96), steps=3200),
}


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What a mini learns from: pixels uint8 (N, 3, S, S); captions: for each picture the texts that
    say what it shows, of which one is drawn each time; cameras: (N, D) vectors for a prior that is
    told the view, or None; credit: whose pictures.
    """

    name: str
    pixels: Tensor
    captions: Sequence[tuple[str, ...]]
    cameras: Tensor | None = None
    credit: str = ""

    def __post_init__(self):
        side = self.pixels.shape[-1]
        if (
            self.pixels.ndim != 4
            or self.pixels.shape[1] != 3
            or side % 16
            or self.pixels.shape[2] != side
        ):
            raise ValueError(
                f"pixels must be (N, 3, S, S) with S a multiple of 16, got {tuple(self.pixels.shape)}"
            )
        if len(self.pixels) != len(self.captions) or not all(self.captions):
            raise ValueError(
                f"{len(self.pixels)} pictures need at least one caption each, got {len(self.captions)} entries"
            )

    @classmethod
    def of(cls, world) -> TrainingSet:
        """The pictures of a `PictureWorld`, each under its prompt."""
        return cls(
            world.name,
            world.pixels,
            [(world.prompts[i],) for i in world.label.tolist()],
            credit=world.credit,
        )

    @classmethod
    def toys(cls, per_kind: int = 32, views: int = 12, seed: int = 0) -> TrainingSet:
        """Renders of procedural toys at 64 px from random cameras, as "a chair" and as "a red
        chair", without `held_out_pairs`.

        per_kind: toys of each kind before those are taken out. views: pictures of each. Takes about
        10 ms a picture.
        """
        from ..cameras import sample_cameras
        from ..priors.pipeline import camera_vector
        from ..worlds import make_toys, render
        from ..worlds.toybox.toys import with_article
        from ..worlds.toybox.world import CREDIT, KINDS

        toys = make_toys(
            [kind for kind in KINDS for _ in range(per_kind)], list(range(per_kind)) * len(KINDS)
        )
        without = set(held_out_pairs())
        kept = [
            i
            for i, pair in enumerate(zip(toys.colours, toys.kinds, strict=True))
            if pair not in without
        ]
        generator, pixels, cameras = generator_of(seed, "toys"), [], []
        for part in torch.tensor(kept).split(
            8
        ):  # eight toys share their cameras, so that the renderer has a batch
            own = sample_cameras(views, generator)
            pixels.append((render(toys.subset(part), own).rgb.flatten(0, 1) * 255).round().byte())
            cameras.append(camera_vector(own).repeat(len(part), 1))
        captions = [
            (with_article(toys.kinds[i]), toys.captions[i]) for i in kept for _ in range(views)
        ]
        return cls("toybox", torch.cat(pixels), captions, torch.cat(cameras), CREDIT)

    @property
    def words(self) -> list[str]:
        """Every word of the captions in small letters, and `BLURRY`: the vocabulary, in
        alphabetical order.
        """
        return sorted(
            {word for texts in self.captions for text in texts for word in text.lower().split()}
            | {BLURRY}
        )


def held_out_pairs() -> list[tuple[str, str]]:
    """(colour, kind) pairs that training on toys never sees, one a kind: what a test of composition
    asks for.
    """
    from ..worlds.toybox.world import COLOURS, KINDS

    colours = list(COLOURS)
    return [(colours[i % len(colours)], kind) for i, kind in enumerate(KINDS)]


# ---- the parts -----------------------------------------------------------------------------------


def make_tokenizer(words: Sequence[str], length: int):
    """A word-level tokenizer: one token a word, <unk> for a word it has never seen, padded to
    `length` tokens.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<start>", "<end>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate(special + list(words))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer = (
        normalizers.Lowercase(),
        pre_tokenizers.WhitespaceSplit(),
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(token, vocabulary[token]) for token in special[1:3]],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=length,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unk>",
    )


def make_autoencoder(side: int, recipe: Recipe) -> nn.Module:
    """An untrained autoencoder of side x side pictures, or the one that the recipe names.
    ValueError if that is not there.
    """
    from diffusers import AutoencoderKL

    if recipe.autoencoder is None:
        return AutoencoderKL(
            sample_size=side,
            latent_channels=4,
            layers_per_block=1,
            block_out_channels=recipe.autoencoder_widths,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=8,
        )
    with quiet():
        return AutoencoderKL.from_pretrained(
            part_of(recipe.autoencoder, "vae"), torch_dtype=torch.float32, use_safetensors=True
        )


def part_of(pipeline: str, part: str) -> Path:
    """The folder of one part of a shipped mini, or of a pipeline's folder. ValueError if that is
    not there.
    """
    from ..priors import MODELS

    folder = MODELS / pipeline if (MODELS / pipeline).is_dir() else Path(pipeline).expanduser()
    if not (folder / part / "config.json").is_file():
        shipped = ", ".join(sorted(own.name for own in MODELS.iterdir() if own.is_dir()))
        raise ValueError(
            f'no {part} in "{pipeline}"; allowed: {shipped}, or a folder with a pipeline\'s {part}'
        )
    return folder / part


def make_parts(data: TrainingSet, recipe: Recipe) -> dict:
    """The untrained components of the pipeline: vae, tokenizer, text_encoder, unet, scheduler."""
    from transformers import CLIPTextConfig, CLIPTextModel

    length = max(
        8, 3 + max(len(text.split()) for texts in data.captions for text in texts)
    )  # <start>, <end>, and "blurry"
    tokenizer = make_tokenizer(data.words, length)
    width = recipe.text_width
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=length,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    side = data.pixels.shape[-1]
    camera = (
        {}
        if data.cameras is None
        else {
            "class_embed_type": "simple_projection",
            "projection_class_embeddings_input_dim": data.cameras.shape[1],
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        vae = make_autoencoder(side, recipe)
        unet = make_unet(side, recipe, **camera)
        text_encoder = CLIPTextModel(text)
    return {
        "vae": vae,
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "unet": unet,
        "scheduler": make_scheduler(recipe),
    }


def make_unet(side: int, recipe: Recipe, in_channels: int = 4, **settings):
    """An untrained UNet on the latents of side x side pictures."""
    from diffusers import UNet2DConditionModel

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
        **settings,
    )


def make_scheduler(recipe: Recipe):
    """Stable Diffusion's DDIM scheduler, with the recipe's prediction type."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=recipe.prediction,
    )


class Reconstructor(nn.Module):
    """The autoencoder as one network: (pictures in [-1, 1], noise) -> reconstruction, latents' mean
    and log variance.
    """

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, pictures: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        posterior = self.vae.encode(pictures).latent_dist
        return (
            self.vae.decode(posterior.mean + posterior.std * noise).sample,
            posterior.mean,
            posterior.logvar,
        )


class Denoiser(nn.Module):
    """Text encoder and UNet as one network: (x_t, t, tokens, camera) -> the native output, (B, 4,
    H, W).
    """

    def __init__(self, unet: nn.Module, text_encoder: nn.Module):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(
        self, x_t: Tensor, t: Tensor, tokens: Tensor, camera: Tensor | None = None
    ) -> Tensor:
        return self.unet(x_t, t, self.text_encoder(tokens)[0], class_labels=camera).sample


# ---- the two losses ------------------------------------------------------------------------------


def autoencoder_loss(network: nn.Module, pictures: Tensor, noise: Tensor) -> Tensor:
    """Squared error, a little absolute error for crisp edges, and a touch of KL that keeps the
    latents near N(0, 1).
    """
    made, mean, logvar = network(pictures, noise)
    error = made - pictures
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return error.square().mean() + 0.1 * error.abs().mean() + 1e-4 * kl


def denoising_loss(
    network: nn.Module,
    schedule: NoiseSchedule,
    x0: Tensor,
    conditions: Sequence[Tensor | None],
    generator: torch.Generator,
    gamma: float,
) -> Tensor:
    """Squared error of the native prediction at a uniform t, weighted so that it is min(SNR, gamma)
    on x0.

        x_t = alpha x0 + sigma eps;    |output - target|^2 min(SNR, gamma) / c,    SNR = alpha^2 / sigma^2
        c = SNR for eps, SNR + 1 for v, 1 for x0

    network: (x_t, t, *conditions) -> its native output. Source: arXiv 2303.09556.
    """
    t = torch.randint(len(schedule), (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator).to(x0)
    a, s = schedule.at("alpha", t, x0), schedule.at("sigma", t, x0)
    target = {"epsilon": eps, "v_prediction": a * eps - s * x0, "sample": x0}[
        schedule.prediction_type
    ]
    snr = (a / s) ** 2
    scale = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[
        schedule.prediction_type
    ]
    output = network(a * x0 + s * eps, t.to(x0.device), *conditions)
    return (snr.clamp(max=gamma) / scale * (output - target).square()).mean()


# ---- the loop that both stages share -------------------------------------------------------------


def generator_of(*parts: int | str) -> torch.Generator:
    """A generator that depends on its arguments alone, so that a step draws the same whether or not
    there was a break.
    """
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: up over 100 steps, level, and over the last third
    down to 0.
    """
    return min(1.0, (step + 1) / 100, 3 * (steps - step) / steps)


@dataclass
class Stage:
    """One network under training with its averaged weights, and its checkpoint: a flat safetensors
    file of tensors.
    """

    name: str
    network: nn.Module
    steps: int
    lr: float
    ema_decay: float
    file: Path
    step: int = 0
    seconds: float = 0.0
    averaged: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        self.adam = torch.optim.AdamW(
            self.network.parameters(), lr=self.lr, betas=(0.9, 0.99), weight_decay=1e-2
        )
        self.averaged = {k: v.detach().clone() for k, v in self.network.named_parameters()}

    @torch.no_grad()
    def average(self) -> None:
        """ema <- d ema + (1 - d) weights, with a shorter memory, (1 + k) / (10 + k), in the
        beginning.
        """
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        now = dict(self.network.named_parameters())
        torch._foreach_lerp_(
            list(self.averaged.values()), [now[k].detach() for k in self.averaged], 1 - decay
        )

    def load_averaged(self) -> None:
        """Put the averaged weights into the network."""
        self.network.load_state_dict(self.averaged, strict=False)

    def save(self) -> None:
        """Write the checkpoint to a temporary name, then rename it: the old one survives a full
        disk.
        """
        from safetensors.torch import save_file

        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.averaged.items()}
        moments = self.adam.state_dict()["state"]
        tensors |= {
            f"adam.{i}.{k}": torch.as_tensor(v)
            for i, kept in moments.items()
            for k, v in kept.items()
        }
        tensors["step"], tensors["seconds"] = (
            torch.tensor(self.step),
            torch.tensor(self.seconds, dtype=torch.float64),
        )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_suffix(".part")
        save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, temporary)
        os.replace(temporary, self.file)

    def resume(self) -> bool:
        """Go on from the checkpoint if there is one."""
        if not self.file.is_file():
            return False
        from safetensors.torch import load_file

        tensors = load_file(self.file)
        self.network.load_state_dict(
            {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        )
        for name, kept in self.averaged.items():
            kept.copy_(tensors[f"ema.{name}"])
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, i, key = name.split(".")
                adam.setdefault(int(i), {})[key] = value
        self.adam.load_state_dict({**self.adam.state_dict(), "state": adam})
        self.step, self.seconds = int(tensors["step"]), float(tensors["seconds"])
        return True


def run_stage(
    stage: Stage,
    loss_at: Callable[[nn.Module, int], Tensor],
    accelerator,
    every: int = 500,
    each: Callable[[Stage], None] | None = None,
) -> None:
    """Drive a stage to its end: a progress bar with the time left, a checkpoint every so many steps
    and on Ctrl-C.

    loss_at: (network, step) -> loss. each: called at every checkpoint, after it is written. A
    finished stage stays as it is.
    """
    from tqdm import tqdm

    if stage.step >= stage.steps:
        return
    network, adam = accelerator.prepare(stage.network, stage.adam)
    first = accelerator.is_main_process
    smooth, began, before = None, time.perf_counter(), stage.seconds
    try:
        with tqdm(
            total=stage.steps,
            initial=stage.step,
            desc=stage.name,
            disable=None if first else True,
            smoothing=0.05,
        ) as bar:
            while stage.step < stage.steps:
                for group in stage.adam.param_groups:
                    group["lr"] = stage.lr * rate(stage.step, stage.steps)
                loss = loss_at(network, stage.step)
                adam.zero_grad()
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(stage.network.parameters(), 1.0)
                adam.step()
                stage.step += 1
                stage.average()
                stage.seconds = before + time.perf_counter() - began
                bar.update()
                if stage.step % 20 == 0:
                    smooth = loss.item() if smooth is None else 0.8 * smooth + 0.2 * loss.item()
                    bar.set_postfix(loss=f"{smooth:.4f}")
                if first and stage.step % every == 0 and stage.step < stage.steps:
                    stage.save()
                    if each:
                        each(stage)
    finally:
        if first:
            stage.save()


# ---- the whole -----------------------------------------------------------------------------------


def train(
    data: TrainingSet,
    out: Path | str,
    recipe: Recipe | None = None,
    *,
    device: str = "auto",
    every: int = 500,
    samples: Callable[[object, int], None] | None = None,
):
    """Train a mini on `data`, write it as a `StableDiffusionPipeline` folder `out`, and return the
    pipeline.

    The same call goes on where an earlier one stopped, and comes to the same weights.
    out/checkpoint holds what that needs; it may be deleted at the end. every: steps between
    checkpoints. samples: called there with (pipeline, step).
    Raises ValueError for a folder that holds another training.
    """
    from accelerate import Accelerator

    recipe, out = recipe or Recipe(), Path(out).expanduser()
    accelerator = Accelerator(mixed_precision=recipe.precision, cpu=device == "cpu")
    kept = out / "checkpoint"
    parts = make_parts(
        data, recipe
    )  # first, so that a recipe that cannot be leaves no folder claimed
    digest = hashlib.sha256(data.pixels.numpy().tobytes()).hexdigest()[:16]
    claim(
        kept,
        {
            "data": data.name,
            "pixels": digest,
            "captions": len(data.captions),
            "recipe": asdict(recipe),
        },
    )
    vae, tokenizer = parts["vae"], parts["tokenizer"]
    autoencoder_seconds = train_autoencoder(vae, data.pixels, recipe, kept, accelerator, every)
    device = accelerator.device
    sharp, soft = (
        encode_all(vae, data.pixels, device),
        encode_all(vae, blurred(data.pixels), device),
    )
    vae.register_to_config(scaling_factor=round(1 / float(sharp.std()), 5))
    sharp, soft = sharp * vae.config.scaling_factor, soft * vae.config.scaling_factor

    texts, of_text, count = caption_table(data)
    every_text = [
        text for sharp_text in ("", *texts) for text in (sharp_text, with_blurry(sharp_text))
    ]
    tokens = tokenizer(every_text, padding="max_length", return_tensors="pt").input_ids.to(device)
    schedule = NoiseSchedule.from_diffusers(parts["scheduler"].config)

    def latents_loss(network, step):
        i, generator = batch_of(
            "network", step, len(data.pixels), recipe.batch, recipe.seed, accelerator
        )
        draw = torch.rand(3, len(i), generator=generator)
        soften, dropped = draw[0] < recipe.blurry, draw[1] < recipe.drop
        own = of_text[i, (draw[2] * count[i]).long()]
        caption = (2 * torch.where(dropped, 0, 1 + own) + soften).to(device)
        x0 = torch.where(soften[:, None, None, None], soft[i], sharp[i]).to(device)
        camera = None if data.cameras is None else data.cameras[i].to(device)
        return denoising_loss(
            network, schedule, x0, (tokens[caption], camera), generator, recipe.min_snr
        )

    network = Denoiser(parts["unet"], parts["text_encoder"]).to(device)
    second = Stage(
        "network", network, recipe.steps, recipe.lr, recipe.ema, kept / "network.safetensors"
    )
    second.resume()

    def show(stage):
        if samples:  # a copy, since a `PipelinePrior` freezes, casts and moves what it is made of
            shown = copied(parts)
            Denoiser(shown["unet"], shown["text_encoder"]).eval().load_state_dict(
                stage.averaged, strict=False
            )
            samples(assemble(shown), stage.step)

    run_stage(second, latents_loss, accelerator, every, show)
    second.load_averaged()
    network.eval()
    if accelerator.is_main_process:
        export(
            parts,
            out,
            {
                "data": data.name,
                "pictures": len(data.pixels),
                "credit": data.credit,
                "recipe": asdict(recipe),
                "minutes": {
                    "autoencoder": round(autoencoder_seconds / 60, 1),
                    "network": round(second.seconds / 60, 1),
                },
                "hardware": hardware(device),
                "processes": accelerator.num_processes,
            },
        )
    return assemble(parts)


def batch_of(
    stage: str, step: int, items: int, batch: int, seed: int, accelerator
) -> tuple[Tensor, torch.Generator]:
    """Which of the items a step of a stage learns from, int64 (batch,), and the generator for its
    other draws.
    """
    generator = generator_of(
        seed, stage, step, accelerator.process_index, accelerator.num_processes
    )
    return torch.randint(items, (batch,), generator=generator), generator


def train_autoencoder(
    vae: nn.Module, pixels: Tensor, recipe: Recipe, kept: Path, accelerator, every: int
) -> float:
    """The first stage on pixels (N, 3, S, S), with a checkpoint in `kept`: freezes the autoencoder
    at its averaged weights.

    Returns its seconds, 0 where the recipe names a trained one.
    """
    device, side = accelerator.device, pixels.shape[-1] // 4
    if recipe.autoencoder is not None:
        vae.to(device).requires_grad_(False).eval()
        return 0.0

    def loss(network, step):
        i, generator = batch_of(
            "autoencoder", step, len(pixels), recipe.autoencoder_batch, recipe.seed, accelerator
        )
        pictures = pixels[i].to(device).float() / 127.5 - 1
        flip = (torch.rand(len(i), generator=generator) < 0.5).to(device)
        pictures = torch.where(flip[:, None, None, None], pictures.flip(3), pictures)
        return autoencoder_loss(
            network, pictures, torch.randn((len(i), 4, side, side), generator=generator).to(device)
        )

    stage = Stage(
        "autoencoder",
        Reconstructor(vae).to(device),
        recipe.autoencoder_steps,
        recipe.autoencoder_lr,
        recipe.ema,
        kept / "autoencoder.safetensors",
    )
    stage.resume()
    run_stage(stage, loss, accelerator, every)
    stage.load_averaged()
    vae.requires_grad_(False).eval()
    return stage.seconds


def caption_table(data: TrainingSet) -> tuple[list[str], Tensor, Tensor]:
    """The distinct captions; each picture's, as positions padded by repetition (N, most); and how
    many it has (N,).
    """
    texts = list(dict.fromkeys(text for own in data.captions for text in own))
    position = {text: i for i, text in enumerate(texts)}
    most = max(map(len, data.captions))
    of_text = torch.tensor(
        [[position[own[min(k, len(own) - 1)]] for k in range(most)] for own in data.captions]
    )
    return texts, of_text, torch.tensor([len(own) for own in data.captions])


def with_blurry(text: str) -> str:
    """The caption of a blurred picture: "a dragon" -> "a blurry dragon", "" -> "blurry"."""
    article, _, rest = text.partition(" ")
    return f"a {BLURRY} {rest}" if article in ("a", "an") else f"{BLURRY} {text}".strip()


def blurred(pixels: Tensor) -> Tensor:
    """Pictures blurred by a Gaussian of a twentieth of their side, uint8 like them."""
    side = pixels.shape[-1]
    far = (torch.arange(side)[:, None] - torch.arange(side)).float()
    weight = torch.softmax(-(far**2) / (2 * (side / 20) ** 2), dim=1)
    return (weight @ pixels.float() @ weight.T).round().clamp(0, 255).byte()


@torch.no_grad()
def encode_all(vae: nn.Module, pixels: Tensor, device, batch: int = 64) -> Tensor:
    """The latents' means of all pictures, float32 (N, 4, S/4, S/4) on the CPU."""
    return torch.cat(
        [
            vae.encode(part.to(device).float() / 127.5 - 1).latent_dist.mean.cpu()
            for part in pixels.split(batch)
        ]
    )


def assemble(parts: dict):
    """The components as a `StableDiffusionPipeline`."""
    with quiet():  # it warns that there is no safety checker; there is nothing here to check
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )


def copied(parts: dict) -> dict:
    """The components with networks of their own."""
    return {
        name: copy.deepcopy(part) if isinstance(part, nn.Module) else part
        for name, part in parts.items()
    }


def export(parts: dict, out: Path, facts: dict) -> None:
    """Write the pipeline in half precision as safetensors, and training.json with the facts of its
    training.
    """
    half = copied(parts)
    with quiet():
        for part in half.values():
            if isinstance(part, nn.Module):
                part.to("cpu", torch.float16)
        assemble(half).save_pretrained(out, safe_serialization=True)
    known = ("TokenizersBackend", "PreTrainedTokenizerFast")  # to transformers 4 too
    plain = ("float16", "float32")  # else it would be read in another dtype than the rest
    for name, (old, new) in {
        "model_index.json": known,
        "tokenizer/tokenizer_config.json": known,
        "text_encoder/config.json": plain,
    }.items():
        write_file(
            out / name, (out / name).read_text(encoding="utf-8").replace(f'"{old}"', f'"{new}"')
        )
    write_file(out / "training.json", json.dumps(facts, indent=1) + "\n")


def hardware(device) -> str:
    """What the training ran on, in words."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' * (threads > 1)}"


def claim(folder: Path, mine: dict) -> None:
    """Make the checkpoint folder, or see that the one there belongs to the same training. Raises
    ValueError if not.
    """
    note, text = folder / "recipe.json", json.dumps(mine, indent=1)
    if note.is_file() and note.read_text() != text:
        raise ValueError(
            f"{folder} holds another training (data or recipe differ); give another folder, or delete it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(text)

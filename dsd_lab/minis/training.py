"""The one driver of trainings: it checkpoints, goes on where it stopped, and comes to the same
weights; on several processes to the same but for rounding.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from .. import checkpoint
from ..checks import at_least
from ..draws import generator_of
from ..files import expanded, prepare_folder, read_json, write_json
from ..priors.network import pick_device
from ..schedule import NoiseSchedule
from ..threads import one_thread
from .data import TrainingSet
from .losses import WHOLE, Share, autoencoder_loss, denoising_loss
from .parts import Reconstructor, mini_folder
from .recipe import Recipe

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
Loss = Callable[[nn.Module, torch.Generator], Tensor]
Latents = tuple[Tensor, Tensor]  # two for each picture; which, the task says


@runtime_checkable
class Task(Protocol):
    """A kind of mini, as `train` sees it. A task holds no weights and can be trained many times."""

    data: TrainingSet
    recipe: Recipe
    # views that are denoised jointly, and follow each other in a batch
    together: int
    # the autoencoder, and the network that learns to denoise its latents, before training
    networks: Callable[[], tuple[nn.Module, nn.Module]]
    # autoencoder -> the latents of all pictures, on the CPU; sets its scaling factor
    encode: Callable[[nn.Module], Latents]
    # what a step learns from, on the CPU: clean latents x0 and the network's conditions
    batch: Callable[[Latents, torch.Generator], tuple[Tensor, Sequence[Tensor | None]]]
    # (network, autoencoder, name) -> the mini: copies of the networks, as what its users take
    assemble: Callable[[nn.Module, nn.Module, str], Any]
    # (mini, title) -> a figure of samples, to follow a training by
    preview: Callable[[Any, str], Any]
    # (network, autoencoder, folder): write a pipeline's folder, in half precision as safetensors
    export: Callable[[nn.Module, nn.Module, Path], None]


def train(
    task: Task,
    out: Path | str,
    *,
    device: str | torch.device = "auto",
    every: int = 500,
    samples: Callable[[Any, int], None] | None = None,
) -> Any:
    """Train a mini, write it as a pipeline's folder `out`, and return it as `task.assemble` does.

    Two stages: an autoencoder learns to shrink pictures 4 times a side to 4 channels, unless the
    recipe takes another's; then all pictures are encoded, once, and the task's network learns to
    denoise the latents. The same call goes on where an earlier one stopped, and comes to the same
    weights. out/checkpoint holds what that needs; it may be deleted at the end.
    Processes that `accelerate launch` or `torchrun` starts share each batch: the weights are those
    of one process but for rounding, see `Share`.
    every: steps between checkpoints. samples: called there with (mini, step).
    Raises ValueError for a folder that holds another training, saying what differs, and for more
    processes than a batch has pictures.
    """
    at_least("every", every)
    recipe, out = task.recipe, expanded(out)
    # not cpu=True on a CPU, and each of several processes would train alone
    workers = PartialState(cpu=pick_device(device).type == "cpu")
    device = workers.device if workers.num_processes > 1 else pick_device(device)
    share = share_of(recipe.batch, workers, task.together)
    # first, so that a recipe that cannot be leaves no folder
    vae, network = (part.to(device) for part in task.networks())
    folder, header = prepare_folder(out / "checkpoint"), task.data.identity() | asdict(recipe)
    begin = partial(Training, recipe=recipe, folder=folder, header=header)
    denoiser, seconds = begin("network", network, recipe.steps, recipe.lr), 0.0
    if recipe.autoencoder is None:
        steps, lr = recipe.autoencoder_steps, recipe.autoencoder_lr
        autoencoder = begin("autoencoder", Reconstructor(vae), steps, lr)
        few = share_of(recipe.autoencoder_batch, workers)
        loss = partial(reconstruct, task.data.pictures, recipe.autoencoder_batch, share=few)
        autoencoder.run(loss, workers, every)
        vae, seconds = autoencoder.averaged.vae, autoencoder.seconds
    vae.requires_grad_(False).eval()
    schedule = NoiseSchedule.stable_diffusion(recipe.prediction)
    with one_thread(vae):
        latents = task.encode(vae)
    loss = partial(denoise, task, latents, schedule, share=share)
    assemble = partial(task.assemble, vae=vae, name=out.name)
    after = None if samples is None else lambda net, step: samples(assemble(net), step)
    denoiser.run(loss, workers, every, after)
    if workers.is_main_process:
        task.export(denoiser.averaged, vae, out)
        stages = {"autoencoder": seconds, "network": denoiser.seconds}
        about = account(task, stages, hardware(network, device), workers.num_processes)
        write_json(out / "training.json", about)
    workers.wait_for_everyone()
    return assemble(denoiser.averaged)


def share_of(batch: int, workers: PartialState, together: int = 1) -> Share:
    """This process's share of a batch. Raises ValueError if there is not enough for all."""
    if workers.num_processes > batch // together:
        raise ValueError(
            f"{workers.num_processes} processes cannot share a batch of {batch}; start at most "
            f"{batch // together}, or give larger batches"
        )
    return Share(workers.process_index, workers.num_processes, together)


def account(
    task: Task, seconds: Mapping[str, float], hardware: str, processes: int
) -> dict[str, object]:
    """What a training writes of itself, as JSON can hold it."""
    data, recipe = task.data, task.recipe
    about = {
        "data": data.name,
        "objects": len(data.pixels),
        "pictures": len(data.pictures),
        "credit": data.credit,
        "recipe": asdict(recipe),
        "minutes": {stage: round(value / 60, 1) for stage, value in seconds.items()},
        "hardware": hardware,
        "processes": processes,
    }
    return about | ({} if recipe.start is None else {"start": trained_before(recipe.start)})


def trained_before(start: str) -> dict[str, object]:
    """What is known of the training that this one starts from: its steps, rate and minutes."""
    file = mini_folder(start) / "training.json"
    about = read_json(file, "train it again") if file.is_file() else {}
    recipe, minutes = about.get("recipe", {}), about.get("minutes", {})
    known = {name: recipe[name] for name in ("steps", "lr") if name in recipe}
    return {"name": start, **known, **({"minutes": minutes["network"]} if minutes else {})}


def hardware(network: nn.Module, device: torch.device) -> str:
    """What a network is trained on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with one_thread(network):
        return f"{device.type.upper()} (threads: {torch.get_num_threads()})"


def reconstruct(
    pictures: Tensor,
    batch: int,
    network: nn.Module,
    generator: torch.Generator,
    share: Share = WHOLE,
) -> Tensor:
    """The autoencoder's loss on some of the pictures, uint8 (N, 3, S, S), half of them mirrored: a
    share's part of it.
    """
    device, side = next(network.parameters()).device, pictures.shape[-1] // 4
    chosen = pictures[torch.randint(len(pictures), (batch,), generator=generator)]
    flip = torch.rand(batch, generator=generator) < 0.5
    chosen = torch.where(flip[:, None, None, None], chosen.flip(3), chosen)
    noise = torch.randn((batch, 4, side, side), generator=generator)
    chosen, noise = share.of(chosen).to(device), share.of(noise).to(device)
    return share.weight(batch) * autoencoder_loss(network, chosen.float() / 127.5 - 1, noise)


def denoise(
    task: Task,
    latents: Latents,
    schedule: NoiseSchedule,
    network: nn.Module,
    generator: torch.Generator,
    share: Share = WHOLE,
) -> Tensor:
    """The network's loss on a batch of the task's: a share's part of it."""
    device = next(network.parameters()).device
    x0, conditions = task.batch(latents, generator)
    conditions = [part if part is None else part.to(device) for part in conditions]
    how = generator, task.recipe.min_snr, task.together, share
    return share.weight(len(x0)) * denoising_loss(
        network, schedule, x0.to(device), conditions, *how
    )


def rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: up over 100 steps, level, and over the last third
    down to 0.
    """
    return min(1.0, (step + 1) / 100, 3 * (steps - step) / steps)


def _shared(network: nn.Module, workers: PartialState) -> nn.Module:
    """The network, or with several processes what averages its gradients over all of them."""
    if workers.num_processes == 1:
        return network
    ids = [workers.device] if workers.device.type == "cuda" else None
    return DistributedDataParallel(network, ids)


def mean_of(value: Tensor, workers: PartialState) -> Tensor:
    """The mean over all processes, which must call it together."""
    return value if workers.num_processes == 1 else reduce(value, "mean")


class Training:
    """A network under training, its averaged weights, and its checkpoint: a file folder/name of
    tensors, from which it goes on if that is there.

    header: whose training it is. Raises ValueError for a checkpoint of another one, or a damaged
    one.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        steps: int,
        lr: float,
        recipe: Recipe,
        folder: Path,
        header: Mapping[str, object],
    ):
        self.name, self.network, self.steps, self.lr, self.recipe = name, network, steps, lr, recipe
        self.file, self.header = folder / f"{name}.safetensors", header
        self.step, self.seconds, self.whole = 0, 0.0, True
        self.averaged = copy.deepcopy(network).requires_grad_(False).eval()
        self.adam = torch.optim.AdamW(
            network.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-2
        )
        self.device = next(network.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        if self.file.is_file():
            self.resume()

    def save(self) -> None:
        """Write all that the training needs to go on."""
        progress = {"step": self.step, "seconds": self.seconds, **self.scaler.state_dict()}
        parts = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "adam": checkpoint.flatten(self.adam),
            "progress": {name: torch.tensor(value) for name, value in progress.items()},
        }
        tensors = {f"{part}.{k}": v for part, state in parts.items() for k, v in state.items()}
        checkpoint.save(self.file, tensors, self.header)

    def resume(self) -> None:
        """Go on from what `save` wrote."""
        part = partial(checkpoint.part, checkpoint.load(self.file, self.header))
        self.network.load_state_dict(part("network"))
        self.averaged.load_state_dict(part("averaged"))
        checkpoint.restore(self.adam, part("adam"))
        progress = {name: value.item() for name, value in part("progress").items()}
        self.step, self.seconds = progress.pop("step"), progress.pop("seconds")
        self.scaler.load_state_dict(progress)

    def run(
        self,
        loss: Loss,
        workers: PartialState,
        every: int,
        after: Callable[[nn.Module, int], None] | None = None,
    ) -> None:
        """Train to the end: a progress bar with the time left, a checkpoint every so many steps and
        on Ctrl-C.

        after: called with the averaged network and the step when a checkpoint is written. A
        finished training stays as it is.
        """
        if self.step >= self.steps:
            return
        network, main = _shared(self.network, workers), workers.is_main_process
        smooth, began = None, time.perf_counter() - self.seconds
        how = {"desc": self.name, "disable": None if main else True, "smoothing": 0.05}
        bar = tqdm(total=self.steps, initial=self.step, **how)
        try:
            with bar:
                while self.step < self.steps:
                    # "0 1": the first of one process, as the shipped minis were drawn
                    generator = generator_of(self.recipe.seed, self.name, self.step, 0, 1)
                    with one_thread(self.network):
                        value = self.descend(loss, network, generator)
                    self.seconds = time.perf_counter() - began
                    bar.update()
                    if self.step % 20 == 0:
                        value = mean_of(value, workers).item()
                        smooth = value if smooth is None else 0.8 * smooth + 0.2 * value
                        bar.set_postfix(loss=f"{smooth:.4f}")
                    if main and self.step % every == 0 and self.step < self.steps:
                        self.save()
                        if after:
                            after(self.averaged, self.step)
        finally:
            if main and self.whole:  # else the checkpoint before is the one to go on from
                self.save()

    def descend(self, loss: Loss, network: nn.Module, generator: torch.Generator) -> Tensor:
        """One step of Adam, and of the averages; returns the loss before it.

        averaged <- d averaged + (1 - d) weights; d is the recipe's `ema`, and (1 + k) / (10 + k) in
        the beginning, after k steps.
        """
        half = HALF.get(self.recipe.precision)
        with torch.autocast(self.device.type, half) if half else nullcontext():
            value = loss(network, generator)
        self.adam.zero_grad()
        self.scaler.scale(value).backward()
        self.scaler.unscale_(self.adam)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        check_finite(norm, self)
        for group in self.adam.param_groups:
            group["lr"] = self.lr * rate(self.step, self.steps)
        self.whole = False
        self.scaler.step(self.adam)
        self.scaler.update()
        self.step += 1
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        average = get_ema_multi_avg_fn(decay)
        average([*self.averaged.parameters()], [*self.network.parameters()], None)
        self.whole = True
        return value.detach()


def check_finite(norm: Tensor, training: Training) -> None:
    """Raises ValueError for a gradient that is not finite, before a step is made of it."""
    # in fp16 the scaler leaves such a step out, and scales less, as long as it can
    if not bool(norm.isfinite()) and training.scaler.get_scale() <= 1:
        raise ValueError(
            f"the loss or its gradient is not finite at step {training.step + 1} of the "
            f"{training.name}; {training.file} holds the step before; lower the learning rate, or "
            'give precision "no"'
        )

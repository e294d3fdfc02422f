"""Checkpoints: the state of a run as flat tensors in a safetensors file, with a header that says
whose they are.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.optim import Optimizer

from .files import expanded, write_whole

VERSION = 3  # of the file's form


def flatten(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as tensors by "parameter's number.name", such as "0.exp_avg"."""
    return {
        f"{i}.{name}": value
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser of the same parameters a copy of the state that `flatten` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, _, name = key.partition(".")
        state.setdefault(int(i), {})[name] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under "prefix.name"."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors that `prefixed` put under a prefix, by their own names."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def save(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> Path:
    """Write tensors as .safetensors, whole or not at all: a full disk leaves the old file as it is.

    header: settings of the run, anything that JSON can hold; `load` compares it.
    """
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    about = {"version": str(VERSION), "header": json.dumps(header, sort_keys=True)}
    return write_whole(Path(path), lambda place: safetensors.torch.save_file(copies, place, about))


def load(path: str | Path, header: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a file that `save` wrote for a run of the same header, on the CPU.

    Raises ValueError for a file that is no checkpoint or has another form, and for that of another
    run, naming what differs.
    """
    path = expanded(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("version") != str(VERSION):
                raise ValueError(
                    f"{path} is no checkpoint of this version ({VERSION}): "
                    f"it says {about.get('version')}"
                )
            if differ := differences(json.loads(about["header"]), header):
                raise ValueError(f"{path} is the checkpoint of another run: {'; '.join(differ)}")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is no checkpoint: {error}; delete it to begin from the start"
        ) from error


def differences(theirs: Mapping[str, object], ours: Mapping[str, object]) -> list[str]:
    """What differs between a file's header and a run's, one sentence a setting."""
    ours = json.loads(json.dumps(ours))
    return [
        f"{name} {theirs.get(name)!r} there, {ours.get(name)!r} here"
        for name in {**ours, **theirs}
        if theirs.get(name) != ours.get(name)
    ]

"""Devices and dtypes, as a user names them."""

import torch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant: "auto" is cuda, else mps, else cpu; or any other that PyTorch has a module
    for. Raises ValueError for one that is not there.
    """
    found = [kind for kind in ("cuda", "mps", "cpu") if devices_of(kind)]
    allowed = ", ".join(['"auto"', *found])
    try:
        wanted = torch.device(found[0] if device == "auto" else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"unknown device {device!r}; allowed here: {allowed}") from error
    if (wanted.index or 0) >= devices_of(wanted.type):
        raise ValueError(f'no device "{wanted}" here; allowed: {allowed}')
    return wanted


def devices_of(kind: str) -> int:
    """How many devices of a kind there are: "cuda", "mps", ..."""
    try:
        return torch.get_device_module(kind).device_count()
    except RuntimeError:  # PyTorch has no module for that kind
        return 0


def pick_dtype(dtype: torch.dtype | None, device: torch.device) -> torch.dtype:
    """A network's dtype: float32 on a CPU and float16 elsewhere unless given. Raises TypeError for
    another kind.
    """
    if dtype is not None and dtype not in DTYPES:
        allowed = ", ".join(map(str, DTYPES))
        raise TypeError(f"dtype must be one of {allowed} or None, got {dtype!r}")
    return dtype or (torch.float32 if device.type == "cpu" else torch.float16)


class Casts:
    """Tensors kept as they are given, and cast once for each dtype and device that they meet."""

    def __init__(self, *tensors: torch.Tensor):
        self.tensors = tensors
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[torch.Tensor, ...]] = {}

    def like(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors in the dtype and on the device of x."""
        key = x.dtype, x.device
        if key not in self._cast:  # the dtype first: not every device has float64
            self._cast[key] = tuple(tensor.to(x.dtype).to(x.device) for tensor in self.tensors)
        return self._cast[key]

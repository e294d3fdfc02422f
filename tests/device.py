"""A device for tests that needs no hardware: its tensors hold a CPU tensor, say that they are on
"mock:0", and raise where a GPU would.

PyTorch's PrivateUse1 key is made for backends from outside; its Python hook
(`torch.utils.backend_registration`) and one wrapper class are the whole of it. An operation is
unwrapped, run by the CPU's kernels, and wrapped again, so numbers are the CPU's: to the bit, or to
rounding where PyTorch picks another kernel by the device's name (attention).

The rules are CUDA's: devices don't mix, except that a 0-d CPU tensor may take part in arithmetic,
CPU indices may stand in `x[index]`, and `copy_` and `.to` cross. CPU generators draw on the CPU
only, and `.numpy()` wants `.cpu()` first. One rule is Apple's MPS's: there is no float64.
What it cannot show: autocast, streams, pinned memory, and kernels that only a GPU lacks.
"""

from functools import partial

import torch
from torch.utils import backend_registration

NAME = "mock"
backend_registration._setup_privateuseone_for_python_backend(NAME)
MOCK = torch.device(NAME, 0)

# Where TensorIterator lets a 0-d CPU tensor in (allow_cpu_scalars), that this project may use.
ARITHMETIC = {
    *("add", "sub", "rsub", "mul", "div", "pow", "remainder", "fmod", "floor_divide", "atan2"),
    *("maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "where", "addcmul", "addcdiv"),
    *("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"),
}
INDEXING = {"index", "index_put", "_index_put_impl", "_unsafe_index", "_unsafe_index_put"}


class MockTensor(torch.Tensor):
    """A tensor that holds a CPU tensor and reports another device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held, device):
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{device} has no float64")
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )

    def __init__(self, held, device):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, *args, **(kwargs or {}))

    def __repr__(self, **_):
        return f"MockTensor({self.held!r}, device={self.device})"

    def __format__(self, spec):
        return format(self.item(), spec) if self.ndim == 0 else object.__format__(self, spec)

    def numpy(self, **_):
        raise TypeError(f"can't convert {self.device} tensor to numpy; use Tensor.cpu() first")

    def __array__(self, *_, **__):
        self.numpy()

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):  # a module's weights get another dtype by this
        torch.Tensor.data.__set__(self, value)
        self.held = value.held

    def tolist(self):
        return self.held.tolist()

    def untyped_storage(self):  # safetensors asks which tensors share their memory
        return self.held.untyped_storage()


def run(func, *args, **kwargs):
    """Run one operation with the CPU's kernel and put what it returns on the operands' device."""
    leaves = []
    held = [unwrapped(arg, leaves) for arg in args]
    held_by_name = {name: unwrapped(arg, leaves) for name, arg in kwargs.items()}
    mocks = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, MockTensor)}
    device = kwargs.get("device")
    device = next(iter(mocks.values())).device if device is None else torch.device(device)
    if device.type == NAME and device.index is None:
        device = MOCK
    check(func, args, leaves, device)
    if "device" in held_by_name:
        held_by_name["device"] = "cpu"
    returned = func(*held, **held_by_name)
    return returned if device.type == "cpu" else wrapped(returned, mocks, device)


def unwrapped(value, leaves):
    """An argument as the CPU's kernel takes it; its tensors and generators are added to leaves."""
    if isinstance(value, list | tuple):  # not PyTorch's pytree, which takes longer than the kernel
        return [unwrapped(part, leaves) for part in value]
    if isinstance(value, torch.Tensor | torch.Generator):
        leaves.append(value)
    return value.held if isinstance(value, MockTensor) else value


def wrapped(value, mocks, device):
    """What a kernel returned, on the device; what was changed in place comes back as the same
    object.
    """
    if isinstance(value, list | tuple):
        return type(value)(wrapped(part, mocks, device) for part in value)
    if not isinstance(value, torch.Tensor):
        return value
    return mocks[id(value)] if id(value) in mocks else MockTensor(value, device)


def check(func, args, leaves, device):
    """Raise where CUDA would: operands of two devices, a generator of another one."""
    name = func._schema.name.removeprefix("aten::")
    if name in ("copy_", "_to_copy") or name.startswith("new_") or name.endswith("_like"):
        leaves = [leaf for leaf in leaves if isinstance(leaf, torch.Generator)]  # these may cross
    written, name = name.endswith("_"), name.rstrip("_")
    allowed = set()
    if name in INDEXING and isinstance(args[0], MockTensor):
        allowed = {id(index) for index in args[1]}
    for leaf in leaves:
        if isinstance(leaf, torch.Generator):
            raise RuntimeError(f"expected a {NAME!r} generator for {func}, but found 'cpu'")
        if not isinstance(leaf, torch.Tensor) or leaf.device == device or id(leaf) in allowed:
            continue
        scalar = leaf.device.type == "cpu" and leaf.ndim == 0
        if scalar and name in ARITHMETIC and not (written and leaf is args[0]):
            continue
        raise RuntimeError(f"{func}: tensors on two devices, {device} and {leaf.device}")


def operation(name):
    """An operation by the name of its overload."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


# What makes tensors from nothing, or is called below the level that asks the class.
LIBRARY = torch.library.Library("aten", "IMPL")
for name in ("empty.memory_format", "empty_strided", "copy_", "randperm", "randperm.generator"):
    LIBRARY.impl(name, partial(run, operation(name)), "PrivateUse1")
for name in ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace"):
    LIBRARY.impl(name, partial(run, operation(name)), "PrivateUse1")

"""The test device itself: its rules are CUDA's, its numbers the CPU's."""

import copy

import numpy as np
import pytest
import torch
from device import MOCK, MockTensor
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

A = torch.arange(12.0).reshape(3, 4)
X, IDX, MASK = A.to(MOCK), torch.tensor([2, 0]), A > 5


def accumulate(index):
    return torch.zeros(3, device=MOCK).index_put((index,), torch.ones(2, device=MOCK), True)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda: X + A,
        lambda: A + X,
        lambda: X.add_(A),
        lambda: X * A[0],
        lambda: A * X[0, 0],
        lambda: A.add_(X[0, 0]),
        lambda: torch.tensor(1.0).add_(X[0, 0]),
        lambda: torch.lerp(X, X, A),
        lambda: X.clamp(min=torch.tensor(1.0)),
        lambda: torch.where(X > 1, X, A),
        lambda: torch.where(MASK, X, X),
        lambda: X.masked_fill(MASK, 0.0),
        lambda: X.masked_select(MASK),
        lambda: torch.cat([X, A]),
        lambda: torch.stack([X[0, 0], torch.tensor(1.0)]),
        lambda: X @ A.T,
        lambda: torch.einsum("ij,kj->ik", X, A),
        lambda: functional.linear(X, A),
        lambda: functional.mse_loss(X, A),
        lambda: torch.equal(X, A),
        lambda: torch.allclose(X, A),
        lambda: X.index_select(0, IDX),
        lambda: X.gather(0, IDX[None]),
        lambda: X.index_add(0, IDX, X[:2]),
        lambda: X.index_copy(0, IDX, X[:2]),
        lambda: X.scatter(0, IDX[None], 1.0),
        lambda: X.repeat_interleave(torch.tensor([1, 2, 0]), 0),
        lambda: functional.embedding(IDX, X),
        lambda: torch.searchsorted(X[0], A[0]),
        lambda: A[IDX.to(MOCK)],
        lambda: X.index_put((IDX,), A[:2]),
        lambda: torch.randn(3, device=MOCK, generator=torch.Generator()),
        lambda: torch.randn_like(X, generator=torch.Generator()),
        lambda: torch.randperm(3, device=MOCK, generator=torch.Generator()),
        lambda: torch.multinomial(X[1], 2, generator=torch.Generator()),
        lambda: X.uniform_(generator=torch.Generator()),
        lambda: nn.Linear(4, 2).to(MOCK)(A),
    ],
)
def test_what_mixes_devices_raises(mixed):
    with pytest.raises((RuntimeError, TypeError), match="two devices|generator"):
        mixed()


@pytest.mark.parametrize("read", [lambda: X.numpy(), lambda: np.asarray(X), lambda: np.sqrt(X)])
def test_numpy_wants_the_cpu_first(read):
    with pytest.raises(TypeError, match="cpu"):
        read()
    assert (X.cpu().numpy() == A.numpy()).all()


def test_there_is_no_float64():
    for make in (
        lambda: torch.zeros(2, dtype=torch.float64, device=MOCK),
        lambda: A.double().to(MOCK),
        lambda: A.to(MOCK).double(),
    ):
        with pytest.raises(TypeError, match="float64"):
            make()
    assert A.double().to(MOCK, torch.float32).device == MOCK


@pytest.mark.parametrize(
    "legal, expected",
    [
        (lambda: X * torch.tensor(2.0), A * 2),
        (lambda: torch.tensor(2.0) - X, 2 - A),
        (lambda: X > torch.tensor(5.0), A > 5),
        (lambda: torch.where(X > 5, X, torch.tensor(0.0)), A * (A > 5)),
        (lambda: X[IDX], A[IDX]),
        (lambda: X[IDX.to(MOCK)], A[IDX]),
        (lambda: X[:, IDX], A[:, IDX]),
        (lambda: X[MASK], A[MASK]),
        (lambda: X[(X > 5)], A[MASK]),
        (lambda: X[torch.tensor(1)], A[1]),
        (lambda: accumulate(IDX), torch.tensor([1.0, 0.0, 1.0])),
        (lambda: X.new_zeros(2), torch.zeros(2)),
        (lambda: torch.zeros_like(X), A * 0),
        (lambda: torch.zeros_like(A, device=MOCK), A * 0),
        (lambda: A.new_zeros(2, device=MOCK), torch.zeros(2)),
        (lambda: torch.tensor([1, 2], device=MOCK), torch.tensor([1, 2])),
        (lambda: torch.arange(1, 4, device=MOCK), torch.tensor([1, 2, 3])),
        (lambda: torch.eye(2, device=MOCK), torch.eye(2)),
        (lambda: X.nonzero(), A.nonzero()),
        (lambda: X.to("mock"), A),
        (lambda: torch.zeros(3, 4).copy_(X).to(MOCK), A),
        (lambda: X.clone().copy_(A + 1), A + 1),
    ],
)
def test_what_cuda_allows_passes(legal, expected):
    found = legal()
    assert found.device.type == "mock" and isinstance(found, MockTensor)
    assert found.shape == expected.shape and torch.equal(found.cpu(), expected)


def test_a_slice_takes_values_from_the_cpu():
    x = X.clone()
    x[1:, 2] = torch.tensor([7.0, 8.0])
    x[X > 9] = 0.0
    x[IDX] += torch.tensor(1.0)
    expected = A.clone()
    expected[1:, 2] = torch.tensor([7.0, 8.0])
    expected[A > 9] = 0.0
    expected[IDX] += 1
    assert torch.equal(x.cpu(), expected)


def test_single_numbers_and_lists_can_be_read():
    assert (float(X.sum()), int(X[1, 0]), bool((X < 20).all())) == (66.0, 4, True)
    assert f"{X[1, 0]:.1f}" == "4.0" and torch.zeros_like(X, device="cpu").device.type == "cpu"
    assert X[0].tolist() == [0.0, 1.0, 2.0, 3.0] and [int(v) for v in X[0]] == [0, 1, 2, 3]


class Net(nn.Module):
    """Convolution, attention, normalisation, grid_sample: what the project's networks are of."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.qkv = nn.Linear(8, 24, bias=False)  # keys' bias has no gradient but rounding
        self.register_buffer("grid", torch.linspace(-1, 1, 32).reshape(1, 4, 4, 2))

    def forward(self, x):
        x = functional.silu(self.norm(self.conv(x))).flatten(2).mT
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        x = functional.scaled_dot_product_attention(q, k, v).mT.reshape(len(x), 8, 4, 4)
        return functional.grid_sample(x, self.grid.expand(len(x), -1, -1, -1), align_corners=False)


def learn(device):
    """The weights after three steps of Adam, and the gradient that reached the pictures."""
    torch.manual_seed(0)
    net, x = Net(), torch.randn(2, 3, 4, 4)
    net, x = net.to(device), x.to(device).requires_grad_()
    adam = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(3):
        adam.zero_grad()
        loss = net(x).pow(2).sum()
        loss.backward()
        adam.step()
    return net, x.grad, adam


def test_backward_and_adam_give_the_numbers_of_the_cpu():
    net, grad, _ = learn("cpu")
    other, found, _ = learn(MOCK)
    assert found.device == MOCK
    torch.testing.assert_close(found.cpu(), grad, rtol=1e-5, atol=1e-6)
    for name, value in other.state_dict().items():
        assert value.device == MOCK
        torch.testing.assert_close(value.cpu(), net.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_a_gradient_goes_through_views_and_changes_in_place():
    grads = []
    for device in ("cpu", MOCK):
        x = A.clone().to(device).detach().requires_grad_()
        y = x * 2
        y[1] *= x[0]
        y.view(-1)[3:5].mul_(3.0)
        y.cpu().square().sum().backward()
        grads.append(x.grad)
    assert grads[1].device == MOCK and torch.equal(grads[1].cpu(), grads[0])


def test_modules_and_optimisers_are_copied_saved_and_moved(tmp_path):
    net, _, adam = learn(MOCK)
    twin = copy.deepcopy(net)
    assert torch.equal(twin.conv.weight.cpu(), net.conv.weight.cpu())
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    back = Net()
    back.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(back.conv.weight, net.conv.weight.cpu())
    twin.load_state_dict(back.state_dict())  # CPU values into modules elsewhere
    assert twin.conv.weight.device == MOCK
    cpu = torch.optim.Adam(back.parameters(), lr=0.05)
    cpu.load_state_dict(adam.state_dict())
    moments = [state["exp_avg"] for state in cpu.state.values()]
    assert {moment.device.type for moment in moments} == {"cpu"}
    twin.qkv.weight.data = twin.qkv.weight.data.half()
    assert (twin.qkv.weight.cpu() * 1).dtype == torch.float16

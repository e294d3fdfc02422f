"""What is written down of a run: whole, of the same run, and the optimiser to the bit."""

import pytest
import torch
from torch import nn

from dsd_lab import checkpoint

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b.c": torch.tensor(3)}
HEADER = {"steps": 3, "cameras": [(1.0, 2.0)], "negative": None}


def test_tensors_come_back_for_the_same_header(tmp_path):
    file = checkpoint.save(tmp_path / "run.safetensors", TENSORS, HEADER)
    back = checkpoint.load(file, dict(HEADER))  # tuples come back as lists, and are the same
    assert set(back) == set(TENSORS)
    assert all(torch.equal(back[name], TENSORS[name]) for name in TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_what_differs_is_named(tmp_path):
    file = checkpoint.save(tmp_path / "run.safetensors", TENSORS, HEADER)
    with pytest.raises(ValueError, match="another run: steps 3 there, 4 here; seed None there, 0"):
        checkpoint.load(file, HEADER | {"steps": 4, "seed": 0})
    with pytest.raises(ValueError, match="another run: steps 3 there, None here$"):
        checkpoint.load(file, {k: v for k, v in HEADER.items() if k != "steps"})


@pytest.mark.parametrize("size", [0, 4, 100, 150])
def test_half_a_file_is_one_line(size, tmp_path):
    file = checkpoint.save(tmp_path / "run.safetensors", TENSORS, HEADER)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match="run.safetensors is no checkpoint: .*; delete it to"):
        checkpoint.load(file, HEADER)


def test_prefixes():
    both = checkpoint.prefixed("net", {"a": 1, "b.c": 2}) | checkpoint.prefixed("network", {"a": 3})
    assert both == {"net.a": 1, "net.b.c": 2, "network.a": 3}
    assert checkpoint.part(both, "net") == {"a": 1, "b.c": 2}


@pytest.mark.parametrize("steps", [0, 3])
def test_an_optimiser_goes_on_to_the_same_bits(steps):
    def begin():
        net = nn.Linear(3, 2)
        with torch.no_grad():
            for weight in net.parameters():
                weight.fill_(0.1)
        return net, torch.optim.Adam(net.parameters(), lr=0.1)

    def step(net, adam, k):
        adam.zero_grad()
        (net(torch.full((1, 3), 0.2 * k + 0.1)) - k).square().sum().backward()
        adam.step()

    first, second = begin(), begin()
    for k in range(steps):
        step(*first, k)
    second[0].load_state_dict(first[0].state_dict())
    kept = checkpoint.flatten(first[1])
    assert set(kept) == {f"{i}.{n}" for i in (0, 1) for n in ("step", "exp_avg", "exp_avg_sq")} or (
        not steps and not kept
    )
    checkpoint.restore(second[1], kept)
    for k in range(steps, 6):
        step(*first, k), step(*second, k)  # what was kept is a copy, which the other does not touch
    assert all(
        torch.equal(*pair)
        for pair in zip(first[0].parameters(), second[0].parameters(), strict=True)
    )

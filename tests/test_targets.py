"""Held targets: pure book-keeping."""

import pytest
import torch

from dsd_lab.distill.targets import Targets


@pytest.fixture
def targets():
    return Targets(torch.ones(6, 2, 3))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_views_come_in_turn(count, targets):
    """Each once before any comes again, sorted within an ask, each turn in another order."""
    g = generator()
    asked = [targets.next(count, g) for _ in range(2 * 6 // count)]
    assert all(torch.equal(views, views.sort().values) for views in asked)
    for turn in (asked[: 6 // count], asked[6 // count :]):
        assert torch.cat(turn).sort().values.tolist() == list(range(6))
    if count < 6:
        assert not torch.equal(torch.cat(asked[: 6 // count]), torch.cat(asked[6 // count :]))


def test_a_turn_that_ends_within_an_ask_goes_on_into_the_next(targets):
    g = generator(3)
    order = torch.cat([torch.randperm(6, generator=generator(3))])
    assert torch.equal(targets.next(4, g), order[:4].sort().values)
    views = targets.next(4, g)  # two are left, and two of the next turn, which may be the same
    assert set(order[4:].tolist()) <= set(views.tolist()) and 2 <= len(views) <= 4


def test_only_what_is_held_is_picked(targets):
    assert not targets.held.any() and not targets.values.any()
    targets.hold(torch.tensor([4, 1]), torch.stack([torch.full((2, 3), 4.0), torch.ones(2, 3)]))
    assert targets.held.nonzero()[:, 0].tolist() == [1, 4]
    assert targets.values[:, 0, 0].tolist() == [0, 1, 0, 0, 4, 0]
    assert targets.pick(9, generator()).tolist() == [1, 4]
    assert {int(targets.pick(1, generator(seed))) for seed in range(9)} == {1, 4}
    targets.hold(torch.tensor([1]), torch.zeros(1, 2, 3))
    assert targets.values[:, 0, 0].tolist() == [0, 0, 0, 0, 4, 0]


def test_the_loss_by_hand(targets):
    """A sum over elements, a mean over views; its gradient is x - target, over the views."""
    views = torch.tensor([2, 5])
    targets.hold(views, torch.stack([torch.zeros(2, 3), torch.full((2, 3), 2.0)]))
    x = torch.ones(2, 2, 3, requires_grad=True)
    loss = targets.loss(views, x + torch.tensor([1.0, 0.0]).reshape(2, 1, 1))
    assert loss.item() == (6 * 2.0**2 + 6 * 1.0**2) / (2 * 2)
    loss.backward()
    assert x.grad[:, 0, 0].tolist() == [2.0 / 2, -1.0 / 2]


def test_what_is_kept_is_a_copy(targets):
    targets.next(4, generator()), targets.hold(torch.tensor([3]), torch.ones(1, 2, 3))
    other, saved = Targets(torch.ones(6, 2, 3)), targets.state_dict()
    other.load_state_dict(saved)
    targets.hold(torch.tensor([0]), torch.ones(1, 2, 3))
    assert other.held.tolist() == [False, False, False, True, False, False]
    assert torch.equal(other.order, targets.order) and other.values.sum() == 6

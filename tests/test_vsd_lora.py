"""VSD whose e_phi is the prior's own network with an adapter, on tiny pipelines with random
weights.
"""

from dataclasses import replace

import pytest
import torch
from pipelines import make_pipe
from torch import nn

from dsd_lab import VSD, GaussianMixture, distill
from dsd_lab.draws import Draws
from dsd_lab.methods.vsd.lora import LoRA
from dsd_lab.priors import PipelinePrior

LORA = VSD(particles="lora", lr=3e-3)
T = torch.tensor([500, 20])


@pytest.fixture(scope="module")
def loaded():
    return {
        kind: PipelinePrior(make_pipe(kind), kind, "cpu") for kind in ("sd15", "sd21", "variance")
    }


@pytest.fixture(params=["sd15", "sd21", "variance"])
def prior(request, loaded):
    return loaded[request.param]


@pytest.fixture
def sd(loaded):
    return loaded["sd15"]


def begin(prior, method=LORA, seeds=(0, 1)):
    return method.begin(prior, prior.condition("a red dragon"), prior.noise(seeds), 10)


def test_it_begins_as_the_prior_itself(prior):
    state, x = begin(prior), prior.noise([2, 3])
    assert torch.equal(state.e_phi(x, T), prior.predict_noise(x, T, state.cond))
    g, t, _ = LORA.gradient(state, x, 0, Draws([0, 1], prior.shape))
    same = Draws([0, 1], prior.shape)
    assert torch.equal(same.timesteps(*LORA.range_at(0, 10, prior.schedule)), t)
    x_t = prior.schedule.add_noise(x, t, same.normal())
    guidance = (prior.predict_noise(x_t, t, state.cond, cfg) for cfg in (7.5, 1.0))
    torch.testing.assert_close(
        g,
        prior.schedule.at("sigma", t, x) ** 2 * (next(guidance) - next(guidance)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_loss_is_of_what_the_network_predicts(prior):
    state, x, n = begin(prior), prior.noise([2, 3]), prior.noise([4, 5])
    with torch.no_grad():
        loss = state.loss(x, T, n)
    made = prior.predict(prior.schedule.add_noise(x, T, n), T, state.cond)["cond"]
    off = made.eps - n  # of v it is off by alpha (e - n), so |v - target| = |e - n| / alpha
    if prior.schedule.prediction_type == "v_prediction":
        off = off / prior.schedule.at("alpha", T, x)
    want = off.square().flatten(1).sum(1).mean()
    torch.testing.assert_close(loss, want, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_training_lowers_the_loss_on_the_renders(prior):
    state, x = (
        begin(prior, VSD(particles="lora", lr=1e-2)),
        prior.encode(torch.full((2, *prior.image_shape), 0.9)),
    )
    draws = Draws([7, 8], prior.shape)
    fixed = [(draws.timesteps(0, 999), draws.normal()) for _ in range(8)]

    def loss():
        with torch.no_grad():
            return sum(state.loss(x, t, n).item() for t, n in fixed)

    before = loss()
    for _ in range(60):
        state.train(x, draws)
    assert loss() < 0.95 * before


def test_the_prior_does_not_change(prior):
    x, cond = prior.noise([2, 3]), prior.condition("a cat")
    names, before = list(prior.unet.state_dict()), prior.predict(x, T, cond)
    random = torch.random.get_rng_state()
    run = distill(prior, "a red dragon", LORA, [0, 1], 3)
    assert torch.equal(torch.random.get_rng_state(), random)
    for _ in run:
        now = prior.predict(x, T, cond)
        assert all(torch.equal(now[term].output, before[term].output) for term in before)
        assert list(prior.unet.state_dict()) == names  # nothing is ever put into it
        assert not any(weight.requires_grad for weight in prior.unet.parameters())
        assert all(weight.grad is None for weight in prior.unet.parameters())
    assert (run.state.e_phi(x, T) - prior.predict_noise(x, T, run.cond)).abs().max() > 1e-4


def test_an_adapter_by_hand():
    """W + B A, while it is on, and also after an error in it."""
    network = nn.ModuleDict({"to_q": nn.Linear(3, 2), "to_x": nn.Linear(3, 2)})
    block = nn.ModuleDict({"attn": network})
    lora, x = LoRA(block, rank=1), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert set(lora.weights) == {"attn.to_q.A", "attn.to_q.B"}
    a, b = lora.weights.values()
    assert a.shape == (1, 3) and b.shape == (2, 1) and not b.any() and a.abs().max() <= 3**-0.5
    b.data.copy_(torch.tensor([[2.0], [-1.0]]))
    want = network["to_q"](x)
    with pytest.raises(KeyError), lora.on():
        torch.testing.assert_close(network["to_q"](x), want + (x @ a.T) * torch.tensor([2.0, -1.0]))
        torch.testing.assert_close(network["to_x"](x), network["to_x"](x))
        raise KeyError
    assert torch.equal(network["to_q"](x), want)
    with pytest.raises(ValueError, match="Linear has no attention with projections .to_q"):
        LoRA(nn.Linear(2, 2), rank=1)


def test_interleaved_runs_do_not_see_each_other(sd):
    methods = [LORA, LORA, VSD(particles="lora", rank=2, lr=1e-2)]

    def runs():
        return [
            distill(sd, "a red dragon", method, [seed, 9], 4) for seed, method in enumerate(methods)
        ]

    want = [run.finish().x for run in runs()]  # each run is gone before the next begins
    together = runs()
    for _ in zip(*together, strict=True):
        pass
    assert all(torch.equal(run.x, x) for run, x in zip(together, want, strict=True))
    first, last = together[0], distill(sd, "a red dragon", LORA, [0, 9], 4)
    del together
    assert torch.equal(last.finish().x, first.x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_network_has_a_float32_adapter(dtype):
    prior = PipelinePrior(make_pipe("sd15"), device="cpu", dtype=dtype)
    run = distill(prior, "a red dragon", LORA, [0, 1], 3).finish()
    assert torch.isfinite(run.x).all()
    assert all(weight.dtype == torch.float32 for weight in run.state.weights.values())
    assert any(
        weight.abs().max() > 0 for name, weight in run.state.weights.items() if name.endswith(".B")
    )


def test_settings():
    assert VSD(particles="lora").rate == replace(VSD(), particles="lora").rate == 1e-4
    assert VSD(particles="network").rate == VSD().rate == 1e-3
    assert str(VSD(particles="lora", rank=8)) == "VSD(particles='lora', rank=8)"
    assert str(LORA) == "VSD(particles='lora', lr=0.003)"
    with pytest.raises(ValueError, match="rank must be an int of at least 1"):
        VSD(particles="lora", rank=0)
    with pytest.raises(ValueError, match="exact, network, lora"):
        VSD(particles="adapter")


def test_a_prior_without_a_network():
    mixture = GaussianMixture({"a": [[0.0, 1.0]], "b": [[1.0, 0.0]]})
    with pytest.raises(
        ValueError, match='gaussian-mixture.*allowed for exact priors: "exact", "network"'
    ):
        distill(mixture, "a", LORA, [0], 3)

"""VSD whose e_phi is the prior's own network with an adapter, on tiny pipelines with random
weights.
"""

import gc

import pytest
import torch
from test_pipeline import make_pipe, make_unet  # noqa: F401

from dsd_lab import VSD, GaussianMixture, distill
from dsd_lab.draws import Draws
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
    g, t = LORA.gradient(state, x, 0, Draws([0, 1], prior.shape))
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
    with torch.no_grad(), state.adapted():
        loss = state.loss(x, T, n)
    made = prior.predict(prior.schedule.add_noise(x, T, n), T, state.cond)["cond"]
    off = made.eps - n  # of v it is off by alpha (e - n), so |v - target| = |e - n| / alpha
    if prior.schedule.prediction_type == "v_prediction":
        off = off / prior.schedule.at("alpha", T, x)
    torch.testing.assert_close(loss, off.square().flatten(1).sum(1), rtol=1e-3, atol=1e-3)


def test_training_lowers_the_loss_on_the_renders(prior):
    state, x = (
        begin(prior, VSD(particles="lora", lr=1e-2)),
        prior.encode(torch.full((2, *prior.image_shape), 0.9)),
    )
    draws = Draws([7, 8], prior.shape)
    fixed = [(draws.timesteps(0, 999), draws.normal()) for _ in range(8)]

    def loss():
        with torch.no_grad(), state.adapted():
            return sum(state.loss(x, t, n).mean().item() for t, n in fixed)

    before = loss()
    for _ in range(60):
        state.train(x, draws.timesteps(0, 999), draws.normal())
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
        assert not any(weight.requires_grad for weight in prior.unet.parameters())
        assert all(
            weight.grad is None
            for key, weight in prior.unet.named_parameters()
            if "lora" not in key
        )
    assert (run.state.e_phi(x, T) - prior.predict_noise(x, T, run.cond)).abs().max() > 1e-4
    del run
    gc.collect()
    assert list(prior.unet.state_dict()) == names  # the adapter went with its run
    assert torch.equal(prior.predict(x, T, cond)["cond"].output, before["cond"].output)


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


@pytest.mark.parametrize("steps", [0, 3])
def test_a_checkpoint_goes_on_to_the_same_bits(steps, prior):
    def run():
        return distill(
            prior, prior.condition(["a red dragon", "a cat"]), LORA, [0, 1], 7, refresh=2
        )

    whole, first, second = run().finish().x, run(), run()
    for _ in range(steps):
        next(first)
    saved = first.state_dict()
    first.finish()
    if steps:
        next(second)
    second.load_state_dict(saved)
    assert torch.equal(second.finish().x, whole)
    assert {name.split(".")[0] for name in saved if "lora" in name} == {"method"}
    assert not any(
        "vsd_" in name for name in saved
    )  # a checkpoint knows nothing of the adapter's name


@pytest.mark.parametrize("cfg", [1.0, 7.5])
def test_evaluations_are_exact(cfg, sd):
    method = VSD(particles="lora", cfg=cfg)
    sd.evaluations = 0
    distill(sd, "a red dragon", method, [0, 1, 2], 4).finish()
    assert method.evaluations(sd).step == (2 if cfg == 1 else 3)
    assert sd.evaluations == 3 * method.total_evaluations(sd, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_network_has_a_float32_adapter(dtype):
    prior = PipelinePrior(make_pipe("sd15"), device="cpu", dtype=dtype)
    run = distill(prior, "a red dragon", LORA, [0, 1], 3).finish()
    assert torch.isfinite(run.x).all()
    assert all(weight.dtype == torch.float32 for weight in run.state.weights.values())
    assert any(
        weight.abs().max() > 0 for name, weight in run.state.weights.items() if "lora_B" in name
    )


def test_settings():
    assert VSD(particles="lora").lr == 1e-4
    assert VSD(particles="network").lr == VSD().lr == 1e-3
    assert str(VSD(particles="lora", rank=8)) == "VSD(particles='lora', rank=8)"
    assert str(LORA) == "VSD(particles='lora', lr=0.003)"
    with pytest.raises(ValueError, match="rank must be an int of at least 1"):
        VSD(particles="lora", rank=0)
    with pytest.raises(ValueError, match="exact, network, lora"):
        VSD(particles="adapter")


def test_priors_that_cannot_be_adapted():
    mixture = GaussianMixture({"a": [[0.0, 1.0]], "b": [[1.0, 0.0]]})
    with pytest.raises(
        ValueError, match='gaussian-mixture.*allowed for exact priors: "exact", "network"'
    ):
        distill(mixture, "a", LORA, [0], 3)
    from peft import LoraConfig

    pipe = make_pipe("sd15")
    pipe.unet = make_unet(4)
    pipe.unet.add_adapter(LoraConfig(r=1, target_modules=["to_q"]), "style")
    with pytest.raises(ValueError, match="adapters already .style.*fuse_lora"):
        distill(PipelinePrior(pipe, device="cpu"), "a cat", LORA, [0], 3)

"""A run computes on one thread and gives the user's number back, also between its steps; so does
what a user calls alone.
"""

import sys

import pytest
import torch

from dsd_lab import SDS, ddim, ddim_invert, distill, distill_scene
from dsd_lab.priors import GaussianMixture
from dsd_lab.threads import one_thread


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def noting(seen, act):
    """The act, which notes its number of threads."""

    def noted(*args, **settings):
        seen.append(torch.get_num_threads())
        return act(*args, **settings)

    return noted


def watched(monkeypatch):
    """A prior, and the list of the numbers of threads on which it was asked."""
    seen = []
    monkeypatch.setattr(GaussianMixture, "_outputs", noting(seen, GaussianMixture._outputs))
    return GaussianMixture({"left": [[0.0, 0.0]], "right": [[1.0, 0.0]]}), seen


def test_the_users_number_comes_back(three_threads):
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(RuntimeError), one_thread():
        raise RuntimeError
    assert torch.get_num_threads() == 3


def test_a_step_of_a_run_is_on_one_thread(three_threads, monkeypatch):
    prior, seen = watched(monkeypatch)
    for _ in distill(prior, "left", SDS(), [0], 3):
        assert torch.get_num_threads() == 3
    assert seen == [1, 1, 1]


def test_a_step_on_a_scene_is_on_one_thread(three_threads, monkeypatch):
    from dsd_lab import load_prior
    from dsd_lab.scene import Scene

    seen = []
    monkeypatch.setattr(Scene, "render", noting(seen, Scene.render))
    for _ in distill_scene(load_prior("toybox", size=32), "a chair", SDS(), 0, 2, refresh=1):
        assert torch.get_num_threads() == 3
    assert set(seen) == {1}


def test_a_large_network_keeps_the_users_number(three_threads, monkeypatch):
    network = torch.nn.Linear(4, 4)
    with one_thread(network):
        assert torch.get_num_threads() == 1
    monkeypatch.setattr("dsd_lab.threads.LARGE", 20)
    with one_thread(network):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 3


def test_ddim_is_on_one_thread(three_threads, monkeypatch):
    prior, seen = watched(monkeypatch)
    cond = prior.condition("left")
    noise = ddim(prior, prior.noise([0]), cond, 2).final
    ddim_invert(prior, noise, cond, 2)
    assert seen == [1] * 6 and torch.get_num_threads() == 3


def test_a_prior_computes_on_one_thread(three_threads):
    from pipelines import make_pipe

    from dsd_lab.priors import PipelinePrior

    prior, seen = PipelinePrior(make_pipe("sd15")), []
    for part in (prior.unet, prior.vae.encoder, prior.vae.decoder, prior.pipe.text_encoder):
        part.register_forward_pre_hook(noting(seen, lambda *asked: None))
    x = prior.encode(prior.decode(prior.noise([0])))
    prior.predict_guided(x, 500, prior.condition("a cat"), 2.0)
    assert len(seen) >= 4 and set(seen) == {1} and torch.get_num_threads() == 3


def test_pictures_and_fits_are_made_on_one_thread(three_threads, monkeypatch):
    from dsd_lab.cameras import orbit
    from dsd_lab.scene import Scene, fitting
    from dsd_lab.worlds.toybox import make_toys, render

    seen = []
    for name in ("worlds.toybox.render._pictures", "scene.render.march", "scene.fit.march"):
        module = sys.modules[f"dsd_lab.{name.rpartition('.')[0]}"]
        act = name.rpartition(".")[2]
        monkeypatch.setattr(module, act, noting(seen, getattr(module, act)))
    cameras = orbit(2)
    photographs = render(make_toys(["chair"], [0]), cameras, 8).rgb[0]
    Scene().images(cameras, 8)
    for _ in fitting(photographs, cameras, 2, resolutions=[4], batch=8, samples=4)[1]:
        assert torch.get_num_threads() == 3
    assert seen == [1] * 5 and torch.get_num_threads() == 3


def test_a_step_of_a_training_is_on_one_thread(three_threads, tmp_path):
    from accelerate import PartialState

    from dsd_lab.minis import Recipe
    from dsd_lab.minis.training import Training

    seen, network = [], torch.nn.Linear(2, 1)

    def loss(network, generator):
        seen.append(torch.get_num_threads())
        return network(torch.ones(1, 2)).sum()

    training = Training("network", network, 3, 1e-3, Recipe(), tmp_path, {})
    training.run(loss, PartialState(cpu=True), 2, lambda net, step: seen.append("between"))
    assert seen == [1, 1, "between", 1] and torch.get_num_threads() == 3

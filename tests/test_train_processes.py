"""A training on several processes: it shares each batch, and comes to what one process does."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from test_train import DATA, RECIPE, TASK
from typer.testing import CliRunner

from dsd_lab import NoiseSchedule, cli
from dsd_lab.draws import generator_of
from dsd_lab.minis import TextToImage, train, training
from dsd_lab.minis.losses import Share, denoising_loss
from dsd_lab.minis.parts import Reconstructor
from dsd_lab.priors.device import pick_device

TESTS = Path(__file__).parent
# what is given up for several processes: sums in another order, and what Adam makes of that
TOLERANCE = 1e-5
NO_GPU = pick_device("auto").type == "cpu"


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("stage", ["autoencoder", "network"])
def test_the_mean_over_shares_is_the_whole_batchs(stage, count):
    """Loss and gradient, also where the parts are not of one size."""
    vae, network = TASK.networks()
    task = replace(TASK, recipe=replace(RECIPE, batch=7))
    if stage == "autoencoder":
        network = Reconstructor(vae)

        def loss(share):
            return training.reconstruct(DATA.pictures, 7, network, generator_of(0), share)
    else:
        latents, schedule = task.encode(vae), NoiseSchedule.stable_diffusion("v_prediction")

        def loss(share):
            return training.denoise(task, latents, schedule, network, generator_of(0), share)

    (whole, wanted), parts = gradients(network, loss(Share())), []
    for index in range(count):
        parts.append(gradients(network, loss(Share(index, count))))
    torch.testing.assert_close(sum(value for value, _ in parts) / count, whole)
    for k, gradient in enumerate(wanted):
        mean = sum(own[k] for _, own in parts) / count
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-6)


def test_views_that_are_denoised_together_stay_together():
    assert [Share(i, 2, 2).of(torch.arange(6)).tolist() for i in (0, 1)] == [[0, 1, 2, 3], [4, 5]]
    schedule, x0 = NoiseSchedule.stable_diffusion("epsilon"), torch.randn(6, 4, 2, 2)

    def joint(x_t, t, weight):
        sets = x_t.unflatten(0, (-1, 2))
        return (sets - sets.mean(1, keepdim=True)).flatten(0, 1) * weight

    def loss(share):
        how = generator_of(0), 5.0, 2, share
        part = denoising_loss(joint, schedule, x0, (torch.arange(6.0)[:, None, None, None],), *how)
        return share.weight(6) * part

    mean = (loss(Share(0, 2, 2)) + loss(Share(1, 2, 2))) / 2
    torch.testing.assert_close(mean, loss(Share(together=2)))


def test_more_processes_than_a_batch_has_parts_are_refused():
    many = SimpleNamespace(num_processes=3, process_index=1)
    with pytest.raises(ValueError, match="3 processes cannot share a batch of 2; start at most 2"):
        training.share_of(2, many)
    with pytest.raises(ValueError, match="3 processes cannot share a batch of 8; start at most 2"):
        training.share_of(8, many, together=4)
    assert training.share_of(12, many, together=4) == Share(1, 3, 4)


LOSSES = """
import json, sys
from accelerate import PartialState
import test_train_processes as this
losses = this.losses_of_a_training(sys.argv[1])
if PartialState().is_main_process:
    json.dump([PartialState().num_processes, losses], open(sys.argv[2], "w"))
"""


def losses_of_a_training(out):
    """The loss of each step of a training whose batches cannot be halved."""
    losses, descend = [], training.Training.descend

    def noted(self, loss, network, generator):
        value = descend(self, loss, network, generator)
        workers = training.PartialState()
        losses.append(training.mean_of(value, workers).item())
        return value

    training.Training.descend = noted
    try:
        recipe = replace(RECIPE, batch=5, autoencoder_batch=3, autoencoder_steps=8, steps=12)
        train(TextToImage(DATA, recipe), out, device="cpu")
    finally:
        training.Training.descend = descend
    return losses


ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(how, *command):
    """What a launcher runs on two processes of this machine's CPU."""
    done = subprocess.run(
        [sys.executable, "-m", *how, *map(str, command)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def weights(out, stage):
    tensors = safetensors.torch.load_file(out / "checkpoint" / f"{stage}.safetensors")
    return {k: v for k, v in tensors.items() if k.startswith(("network.", "averaged."))}


def assert_close(one, other):
    for stage in ("autoencoder", "network"):
        here, there = weights(one, stage), weights(other, stage)
        assert here.keys() == there.keys()
        away = [(v - there[k]).abs().flatten() for k, v in here.items()]
        assert float(torch.cat(away).max()) < 2e-3  # a weight moves by some of its rate
        assert float(torch.cat(away).mean()) < 2e-6


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    (script := tmp_path / "losses.py").write_text(LOSSES)
    launch(ACCELERATE, script, tmp_path / "two", tmp_path / "losses.json")
    processes, two = json.loads((tmp_path / "losses.json").read_text())
    one = losses_of_a_training(tmp_path / "one")
    assert processes == 2 and len(one) == len(two) == 20
    assert two == pytest.approx(one, rel=TOLERANCE)
    assert_close(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_the_command_on_two_processes(tmp_path):
    from PIL import Image

    for label, colour in {"a red cat": (200, 30, 30), "a dog": (30, 30, 200)}.items():
        (tmp_path / "pictures" / label).mkdir(parents=True)
        Image.new("RGB", (64, 64), colour).save(tmp_path / "pictures" / label / "a.png")
    command = ["train", str(tmp_path / "pictures"), "--steps", "2", "--batch", "2"]
    command += ["--autoencoder-steps", "1", "--device", "auto" if NO_GPU else "cpu", "--out"]
    said = launch(TORCHRUN, "-m", "dsd_lab.cli", *command, tmp_path / "two")
    assert said.count("a pipeline folder") == 1, said
    assert json.loads((tmp_path / "two" / "training.json").read_text())["processes"] == 2
    one = CliRunner().invoke(cli.app, [*command, str(tmp_path / "one")], catch_exceptions=False)
    assert one.exit_code == 0
    assert_close(tmp_path / "one", tmp_path / "two")

"""The mini that takes the camera: it draws what it is asked for from where it is asked, and scenes
with it.
"""

from functools import partial

import pytest
import torch

from dsd_lab import DSD, distill_scene, load_prior
from dsd_lab.cameras import BANK, Camera
from dsd_lab.distill.scenes import Stage
from dsd_lab.minis.exams import sample
from dsd_lab.minis.judge import VIEWS, colour_histogram
from dsd_lab.priors.pipeline import camera_vector
from dsd_lab.sampling import ddim
from dsd_lab.worlds.toybox.toys import with_article
from dsd_lab.worlds.toybox.world import COLOURS, held_out_pairs


@pytest.fixture(scope="module")
def prior():
    return load_prior("toybox-mini", device="cpu")


def test_its_prompts_compose(prior):
    for colour, kind in held_out_pairs():
        assert prior.resolve(f"{colour} {kind}") == with_article(f"{colour} {kind}")
    assert prior.resolve("Teddy") == "a teddy bear" and "a green chair" in prior.prompts
    with pytest.raises(ValueError, match='never saw: "submarine"'):
        prior.condition("a submarine", camera=Camera())
    with pytest.raises(ValueError, match="needs a camera"):
        prior.condition("a chair")


def test_it_is_diffusers_own_call_with_the_camera_as_its_label(prior, monkeypatch):
    x, camera = prior.noise([3, 4]), Camera(70, 10)
    cond = prior.condition(["a chair", "a red duck"], camera=camera)
    path = ddim(prior, x, cond, cfg=2.0, levels=[801, 601, 401, 201, 1, 0])
    monkeypatch.setattr(
        prior.unet, "forward", partial(prior.unet.forward, class_labels=camera_vector([camera]))
    )
    prior.pipe.set_progress_bar_config(disable=True)
    wanted = prior.pipe(
        list(cond.prompt),
        height=64,
        width=64,
        latents=x,
        num_inference_steps=5,
        guidance_scale=2.0,
        output_type="latent",
    ).images
    assert prior.pipe.scheduler.timesteps.tolist() == [801, 601, 401, 201, 1]
    assert (path.x_t[-1] - wanted).abs().max() < 1e-4


def test_it_has_the_colour_that_it_is_asked_for(prior):
    """Most of what is not white is nearest to the colour's own tone, for pairs that the training
    left out, too.
    """
    pairs = held_out_pairs()[::4] + [("red", "duck"), ("blue", "house")]
    made = sample(
        prior, [with_article(f"{c} {k}") for c, k in pairs], [0, 1], 12, 2.0, cameras=VIEWS[:2]
    )
    tones = torch.stack(
        [
            colour_histogram(torch.tensor(tone)[:, None, None].expand(3, 4, 4) * shade)
            for tone in COLOURS.values()
            for shade in (0.6, 0.8, 1.0)
        ]
    )
    told = (colour_histogram(made) @ tones.T).unflatten(-1, (len(COLOURS), 3)).sum(-1).argmax(-1)
    right = told == torch.tensor([list(COLOURS).index(colour) for colour, _ in pairs])[:, None]
    assert right.double().mean() >= 0.75


def test_another_camera_is_another_picture(prior):
    cameras = [Camera(0, 15), Camera(180, 15)]
    front, back = ddim(
        prior, prior.noise([0, 0]), prior.condition("a duck", camera=cameras), 12, 2.0
    ).images
    assert (front - back).square().mean().sqrt() > 0.05


@pytest.mark.slow
def test_a_scene_asks_it_for_the_banks_cameras(prior):
    run = distill_scene(
        prior,
        "a mushroom",
        DSD(cfg=4.0, form="x0", t_min=0.02),
        0,
        2,
        refresh=2,
        stages=[Stage(16, 8, 1.0, 2)],
    )
    assert run.stage.state.path is not None  # begun, and its evaluations not counted
    before, run = prior.evaluations, run.finish()
    # one question of 4 views, a path's point and x_t
    assert prior.evaluations - before == 2 * 4 * 2
    targets = run.stage.targets
    assert run.stage.cameras == BANK
    assert targets.held.sum() == 4 and targets.values.shape == (24, 4, 16, 16)

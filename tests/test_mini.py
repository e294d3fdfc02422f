"""The mini that is shipped: whole, small enough, the same as diffusers, and it draws what it is
asked for.
"""

import json

import pytest
import torch

from dsd_lab import DSD, distill_images, load_prior
from dsd_lab.course import mini
from dsd_lab.metrics import apart, distances, mean_pairwise
from dsd_lab.minis.exams import sample
from dsd_lab.priors import MODELS
from dsd_lab.sampling import ddim

FOLDER = MODELS / "icons-mini"


@pytest.fixture(scope="module")
def prior():
    return load_prior("icons-mini", device="cpu")


def test_the_card_says_what_was_measured(prior):
    measured, card = (
        json.loads((FOLDER / "quality.json").read_text()),
        (FOLDER / "README.md").read_text(),
    )
    assert measured["prompts"] == 107 and measured["samples"] == 856
    assert measured["accuracy"] >= 0.85 and f"{measured['accuracy']:.1%}" in card
    assert prior.world.credit in " ".join(card.split()) and "cc-by-4.0" in card


def test_it_is_stable_diffusions_own_call(prior):
    x, steps = prior.noise([3, 4]), 10
    cond = prior.condition(["a dragon", "an apple"])
    prior.pipe.set_progress_bar_config(disable=True)
    wanted = prior.pipe(
        list(cond.prompt),
        height=64,
        width=64,
        latents=x,
        num_inference_steps=steps,
        guidance_scale=4.0,
        output_type="latent",
    ).images
    path = ddim(prior, x, cond, cfg=4.0, levels=[*prior.pipe.scheduler.timesteps.tolist(), 0])
    assert (path.x_t[-1] - wanted).abs().max() < 1e-4


def test_it_draws_what_it_is_asked_for(prior):
    prompts, seeds = prior.world.prompts[3::11], range(3)
    made = sample(prior, prompts, seeds, 15, 4.0).flatten(0, 1)
    label = torch.tensor([prior.world.prompts.index(p) for p in prompts for _ in seeds])
    nearest = prior.world.label[distances(made, prior.world.images()).argmin(1)]
    assert (nearest == label).double().mean() >= 0.8


def test_dsd_gives_ddims_pictures_seed_by_seed(prior):
    seeds = [0, 1, 2]
    wanted = ddim(prior, prior.noise(seeds), prior.condition("an apple"), 25, 4.0).images
    made = distill_images(prior, "an apple", DSD(cfg=4.0), seeds, steps=200).images
    assert apart(made, wanted).mean() <= mean_pairwise(distances(wanted, wanted)) / 3


def test_a_word_it_never_saw(prior):
    with pytest.raises(ValueError, match='never saw: "spaceship"'):
        prior.condition("a spaceship")


# ---- the shipped study of distillation on it


@pytest.fixture(scope="module")
def rows():
    return {(row["method"], row["refresh"]): row for row in mini.load()["rows"]}


def test_the_table_is_the_one_its_command_describes(rows, prior):
    about = mini.load()["about"]
    assert about["command"] == f"python -m {mini.__name__}" and about["prompts"] == mini.PROMPTS
    assert (about["seeds"], about["steps"], about["cfg"]) == (len(mini.SEEDS), mini.STEPS, mini.CFG)
    assert set(rows) == {("DDIM", 1)} | {(name, m) for m in mini.HELD for name in mini.held(m)}
    for (name, refresh), row in rows.items():
        assert name == "DDIM" or row["evaluations"] == mini.METHODS[name].total_evaluations(
            prior, -(-mini.STEPS // refresh)
        )


def test_dsd_agrees_with_ddim_on_its_fine_path_and_sds_with_nothing(rows):
    ddims, sds, coarse, dsd = (rows[name, 1] for name in ("DDIM", "SDS", "DSD, 10 nodes", "DSD"))
    assert dsd["agreement"] <= ddims["pairwise"] / 3 < coarse["agreement"] < sds["agreement"] / 2
    assert (
        sds["pairwise"] < 0.5 * ddims["pairwise"]
        and abs(dsd["pairwise"] / ddims["pairwise"] - 1) < 0.1
    )


def test_dsd_looks_like_ddim_and_the_reference_form_is_cut_off(rows):
    data = mini.load()["data"]
    for name in ("DDIM", "DSD", "DSD, 10 nodes"):
        assert (
            abs(rows[name, 1]["saturation"] - data["saturation"]) < 0.05
            and rows[name, 1]["clipped"] < 1.3 * data["clipped"]
        )
        assert abs(rows[name, 1]["distance"] - rows["DDIM", 1]["distance"]) < 0.02
    assert rows["DSD reference", 1]["clipped"] > 2.5 * data["clipped"]

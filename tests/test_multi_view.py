"""Networks that denoise sets of views jointly: attention over a set, one t a set, and the way
through training, scenes and the exam.
"""

from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention_processor import Attention
from pipelines import make_pipe

from dsd_lab import DSD, SDS, Camera, ddim, distill_scene, load_prior
from dsd_lab.cameras import BANK, orbit
from dsd_lab.distill.scenes import Stage
from dsd_lab.distill.settings import cameras_for
from dsd_lab.distill.targets import Targets
from dsd_lab.draws import ViewDraws, run_generator
from dsd_lab.minis import Recipe, TextToImage, TrainingSet, losses
from dsd_lab.minis.exams import Seen, one_object
from dsd_lab.minis.judge import Verdict
from dsd_lab.priors import MultiViewPrior
from dsd_lab.priors.multi_view import VIEWS, JointViews, join_views, prior_of
from dsd_lab.priors.network import quiet
from dsd_lab.schedule import NoiseSchedule

CAMERA = {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 8}
SETS = (*orbit(4, 10.0), *orbit(4, 30.0, start=20.0))


@pytest.fixture(scope="module")
def pipe():
    with quiet():
        pipe = make_pipe("sd15", **CAMERA)
    join_views(pipe.unet, 4)
    return pipe


@pytest.fixture(scope="module")
def prior(pipe):
    return prior_of(pipe, "joint", "cpu")


def predicted(prior, x, cameras=SETS, t=500, cfg=2.0):
    with torch.no_grad():
        return prior.predict_noise(x, t, prior.condition("a cat", camera=cameras), cfg)


def test_self_attention_runs_over_the_set_and_cross_attention_within_each_view():
    torch.manual_seed(0)
    own, cross = (Attention(8, width, heads=2, dim_head=4) for width in (None, 6))
    x, text, joint = torch.randn(8, 5, 8), torch.randn(8, 3, 6), JointViews(4)
    q, k, v = (
        layer(x.reshape(2, 20, 8)).unflatten(2, (2, 4)).transpose(1, 2)
        for layer in (own.to_q, own.to_k, own.to_v)
    )
    weights = (q @ k.mT / 2).softmax(-1)  # sqrt(4 channels a head)
    by_hand = own.to_out[0]((weights @ v).transpose(1, 2).flatten(2)).reshape(8, 5, 8)
    torch.testing.assert_close(joint(own, x), by_hand)
    torch.testing.assert_close(joint(cross, x, text), cross(x, text))
    assert (joint(own, x) - own(x)).abs().max() > 1e-3


def test_views_of_a_set_see_each_other_and_no_other_set(prior):
    x = prior.noise([0] * 4 + [1] * 4)
    before = predicted(prior, x)
    x[1] += 1.0
    moved = (predicted(prior, x) - before).abs().amax((1, 2, 3))
    assert bool((moved[:4] > 1e-5).all()) and bool((moved[4:] < 1e-6).all())


def test_a_set_does_not_depend_on_the_order_of_its_views(prior):
    x, turn = prior.noise([0, 1, 2, 3]), [2, 0, 3, 1]
    cameras = [SETS[i] for i in turn]
    torch.testing.assert_close(
        predicted(prior, x[turn], cameras), predicted(prior, x, SETS[:4])[turn]
    )


def test_without_a_prompt_the_camera_is_kept(prior):
    x = prior.noise([0] * 4)
    one, other = (
        prior.predict(x, 500, prior.condition("a cat", camera=orbit(4, e)), ("uncond",))["uncond"]
        for e in (0.0, 40.0)
    )
    assert (one.eps - other.eps).abs().max() > 1e-5


def test_it_is_kept_in_a_folder_and_is_diffusers_own_call(pipe, prior, tmp_path, monkeypatch):
    with quiet():
        pipe.save_pretrained(tmp_path)
    read = load_prior(tmp_path, device="cpu")
    assert isinstance(read, MultiViewPrior) and read.views_per_item == 4
    x = read.noise([3] * 4)
    assert torch.equal(predicted(read, x, SETS[:4]), predicted(prior, x, SETS[:4]))
    from diffusers import StableDiffusionPipeline

    from dsd_lab.priors.pipeline import camera_vector

    with quiet():
        plain = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    plain.unet.set_attn_processor(JointViews(4))
    text, labels = plain.encode_prompt(["a cat"] * 4, "cpu", 1, False)[0], camera_vector(SETS[:4])
    with torch.no_grad():
        eps = plain.unet(x, 500, text, class_labels=labels).sample
    torch.testing.assert_close(eps, predicted(prior, x, SETS[:4], cfg=1.0))


@pytest.mark.parametrize(
    "views, t, message",
    [
        (3, 500, "3 views are no whole sets of 4"),
        (4, torch.tensor([5, 5, 6, 5]), "the 4 views of a set are denoised at one t"),
    ],
)
def test_what_is_no_set_is_refused(views, t, message, prior):
    with pytest.raises(ValueError, match=message):
        predicted(prior, prior.noise([0] * views), SETS[:views], t)


def test_cameras_of_a_scene_are_sets_turned_at_random(prior):
    cameras = cameras_for(prior, 3)
    assert cameras == cameras_for(prior, 3) != cameras_for(prior, 4) and len(cameras) == 24
    starts = [cameras[i] for i in range(0, 24, 4)]
    assert sorted(c.elevation for c in starts) == [0, 0, 20, 20, 40, 40]
    assert len({round(c.azimuth) for c in starts}) > 3
    for i, start in enumerate(starts):
        turns = [(c.azimuth - start.azimuth) % 360 for c in cameras[4 * i : 4 * i + 4]]
        assert turns == pytest.approx([0, 90, 180, 270], abs=1e-3)
    alone, bank = SimpleNamespace(cameras="any", views_per_item=1), SimpleNamespace(cameras=SETS)
    assert cameras_for(alone, 3) == BANK and cameras_for(bank, 3) == SETS


def test_turns_are_of_whole_sets_with_one_draw_of_t_each():
    targets, generator = Targets(torch.zeros(12, 2), 4), run_generator(0)
    asked = torch.cat([targets.next(4, generator) for _ in range(3)])
    assert sorted(asked.tolist()) == list(range(12))
    assert {tuple(s.tolist()) for s in asked.split(4)} == {
        (0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)
    }  # fmt: skip
    assert len(targets.next(3, generator)) == 4  # never less than a set
    draws = ViewDraws(run_generator(1), 8, (2,), together=4)
    t = draws.timesteps(0, 999).tolist()
    assert t[:4] == [t[0]] * 4 and t[4:] == [t[4]] * 4 and t[0] != t[4]


@pytest.mark.parametrize(
    "method",
    [SDS(cfg=2.0), pytest.param(DSD(cfg=2.0, form="unit"), marks=pytest.mark.slow)],
    ids=lambda m: m.name,
)
def test_a_scene_asks_for_whole_sets_and_goes_on_to_the_bit(method, prior):
    def begin():
        stage = Stage(size=8, resolution=8, share=1.0, views=4)
        return distill_scene(prior, "a cat", method, 0, 5, stages=(stage,), refresh=2)

    whole = [*begin()]
    assert all(step.t.reshape(-1, 4).unique(dim=1).shape[1] == 1 for step in whole)
    run, other = begin(), begin()
    for _, _ in zip(range(2), run, strict=False):
        pass
    other.load_state_dict(run.state_dict())
    rest = [*other]
    assert torch.equal(rest[-1].images, whole[-1].images)


def rings(views=4):
    """Noise for three toys in sets of four views, the second toy's brighter."""
    pixels = torch.randint(0, 100, (3, views, 3, 16, 16), dtype=torch.uint8)
    pixels[1] += 100
    cameras = [orbit(4, 10.0 * i, start=7.0) * (views // 4) for i in range(3)]
    texts = [("a cat",), ("a red cat", "a tree"), ("a house",)]
    return TrainingSet("rings", pixels, texts, cameras)


def test_a_batch_holds_whole_sets_under_one_caption():
    task = TextToImage(rings(), Recipe(batch=8, drop=0.3, blurry=0.3), together=4)
    latents = torch.arange(12.0)[:, None, None, None], 100 + torch.arange(12.0)[:, None, None, None]
    captions, _, _ = task.captions
    seen = set()
    for seed in range(20):
        x0, (tokens, cameras) = task.batch(latents, torch.Generator().manual_seed(seed))
        for x, text, camera in zip(x0.split(4), tokens.split(4), cameras.split(4), strict=True):
            blurry, toy = x.flatten() // 100, x.flatten() % 100
            assert blurry.unique().numel() == 1 and (text == text[0]).all()
            assert torch.equal(toy, toy[0] + torch.arange(4)) and toy[0] % 4 == 0
            torch.testing.assert_close(camera, task.cameras[toy.long()])
            seen.add((int(toy[0]), tuple(text[0].tolist())))
    assert len(captions) == 10 and len(seen) >= 10


def test_views_and_batches_that_make_no_sets_are_refused():
    with pytest.raises(ValueError, match="batch must be a multiple of 4, got 6"):
        TextToImage(rings(), Recipe(batch=6), together=4)
    with pytest.raises(ValueError, match="views must be a multiple of 3, got 4"):
        TextToImage(rings(), Recipe(batch=6), together=3)


def test_a_set_is_noised_at_one_t_and_half_of_the_sets_with_one_noise():
    seen, sets = [], 200

    def network(x_t, t):
        seen.append((x_t, t))
        return x_t

    x0 = torch.zeros(4 * sets, 1, 2, 2)
    schedule = NoiseSchedule.stable_diffusion("v_prediction")
    generator = torch.Generator().manual_seed(0)
    losses.denoising_loss(network, schedule, x0, (), generator, None, together=4)
    ((x_t, t),) = seen
    t = t.reshape(sets, 4)
    assert (t == t[:, :1]).all() and len(t[:, 0].unique()) > sets / 2
    eps = (x_t / schedule.at("sigma", t.flatten(), x_t)).reshape(sets, 4, 4)
    same = torch.isclose(eps, eps[:, :1]).all(2).all(1)
    assert 70 < int(same.sum()) < 130
    assert not torch.isclose(eps[~same][:, 0], eps[~same][:, 1]).all(1).any()
    assert eps.std() == pytest.approx(1, abs=0.05)


def test_one_object_is_the_kind_asked_for_in_one_colour():
    kind, colour = torch.tensor([[1, 1], [1, 0], [1, 1]]), torch.tensor([[2, 2], [2, 2], [2, 3]])
    seen = Seen(torch.zeros(3, 2, 3, 4, 4), torch.tensor([1, 1, 1]), Verdict(kind, colour, kind))
    assert one_object(seen).tolist() == [True, False, False]


def test_a_network_says_how_many_views_it_denoises(pipe):
    assert pipe.unet.config[VIEWS] == 4
    cameras = [Camera(0)]
    with pytest.raises(ValueError, match="no whole sets"):
        joint = prior_of(pipe, "joint", "cpu")
        ddim(joint, joint.noise([0]), joint.condition("a cat", camera=cameras), 2)

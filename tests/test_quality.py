"""The exams of minis, on stand-ins whose samples are known, and the cards that are written."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from jinja2 import UndefinedError
from PIL import Image
from safetensors.torch import save_file

from dsd_lab.cameras import Camera
from dsd_lab.metrics import distances, mean_pairwise
from dsd_lab.minis import exams, judge
from dsd_lab.minis.card import card, write_card
from dsd_lab.minis.exams import NovelViewExam, PictureExam, ToyExam, exam_of, sample
from dsd_lab.minis.judge import VIEWS, Judge, colour_histogram
from dsd_lab.priors import MINIS, MODELS, load_prior
from dsd_lab.worlds import ToyboxWorld, toy_shop
from dsd_lab.worlds.pictures import PictureWorld, Source
from dsd_lab.worlds.toybox.toys import with_article
from dsd_lab.worlds.toybox.world import COLOURS, KINDS, colour_and_kind, held_out_pairs

SIDE = 4


def world():
    """66 flat grey pictures: 33 at 0.00, 0.01, ... under "dark", 33 at 1.00, 0.99, ... under
    "bright".
    """
    grey = torch.cat([torch.arange(33), 100 - torch.arange(33)]) / 100
    pixels = (grey * 255).round().byte()[:, None, None, None].expand(-1, 3, SIDE, SIDE).contiguous()
    label, sources = torch.tensor([0] * 33 + [1] * 33), (Source("here", "grey", "none"),) * 66
    return PictureWorld(
        "greys", ("dark", "bright"), pixels, label, sources, credit="Greys: made here."
    )


class Flat:
    """A prior whose sample is flat, of a grey that prompt and seed give, and whose autoencoder
    loses 0.1 of everything.
    """

    name, lossy, cameras, asked_by = "flat", 0.1, None, "prompt"

    def __init__(self, greys):
        self.greys, self.world = greys, world()
        self.prompts = self.world.prompts

    def noise(self, seeds):
        return torch.tensor(list(seeds))

    def condition(self, prompt, camera=None):
        assert camera is None
        return prompt

    def encode(self, images):
        return images - self.lossy

    def decode(self, x):
        return x


@pytest.fixture
def flat(monkeypatch):
    """DDIM from seed k of a prompt gives the k-th of its greys; three seeds."""
    monkeypatch.setattr(PictureExam, "seeds", range(3))
    prior = Flat({"dark": [0.0, 0.1, 0.9], "bright": [1.0, 0.8, 0.6]})

    def fake(own, noise, cond, steps, cfg):
        prior.asked = steps, cfg
        grey = torch.tensor([own.greys[cond][k] for k in noise.tolist()])
        return SimpleNamespace(
            images=grey[:, None, None, None].expand(-1, 3, SIDE, SIDE).contiguous()
        )

    monkeypatch.setattr(exams, "ddim", fake)
    return prior


@pytest.fixture
def shares(monkeypatch):
    """Precision and recall need 64 samples; what they are is tested where they live."""
    asked = []

    def fake(images, data):
        asked.append((len(images), len(data)))
        return SimpleNamespace(
            precision=SimpleNamespace(value=0.75), recall=SimpleNamespace(value=0.25)
        )

    monkeypatch.setattr(exams, "precision_recall", fake)
    return asked


def test_samples_come_from_the_same_seeds_for_every_prompt(flat):
    made = sample(flat, ["dark", "bright"], [0, 2], 7, 3.5)
    assert made.shape == (2, 2, 3, SIDE, SIDE)
    torch.testing.assert_close(made[:, :, 0, 0, 0], torch.tensor([[0.0, 0.9], [1.0, 0.6]]))
    assert flat.asked == (7, 3.5)


def test_numbers_worked_out_by_hand(flat, shares):
    measured, made = exam_of(flat).measure(9, 2.0)
    assert made.shape == (2, 3, 3, SIDE, SIDE) and shares == [(6, 66)]
    assert (measured["prompts"], measured["samples"], measured["steps"], measured["cfg"]) == (
        2,
        6,
        9,
        2.0,
    )
    near = 0.003  # greys are kept in 256 steps
    # "dark" at 0.9 is nearest to a bright picture; 0.6 is nearest to bright's 0.68
    assert measured["accuracy"] == pytest.approx(5 / 6)
    assert measured["data_accuracy"] == 1
    # own pictures: 0, 0.1 on; 0.9 to 0.32: 0.58; 1, 0.8 on; 0.6 to 0.68: 0.08
    assert measured["distance"] == pytest.approx((0.58 + 0.08) / 6, abs=near)
    # within 0.05 of any picture: all but 0.6
    assert measured["near_copies"] == pytest.approx(5 / 6)
    # 0, 0.1, 0.9 are 0.6 apart on average; 1, 0.8, 0.6 are 4/15
    assert measured["pairwise"] == pytest.approx((0.6 + 0.8 / 3) / 2, abs=1e-6)
    # 33 points 0.01 apart: mean distance (33 + 1) / 3 of a step
    assert measured["data_pairwise"] == pytest.approx(0.34 / 3, abs=near)
    assert measured["reconstruction"] == pytest.approx(20, abs=1e-4)  # -10 log10(0.1^2)
    assert (measured["precision"], measured["recall"]) == (0.75, 0.25)


def test_data_accuracy_leaves_each_picture_out(flat, shares, monkeypatch):
    """A picture under the wrong label: its own nearest other has another one, and so has one of its
    neighbours at most.
    """
    label = flat.world.label.clone()
    label[10] = 1
    monkeypatch.setattr(flat, "world", dataclasses.replace(flat.world, label=label))
    measured, _ = exam_of(flat).measure()
    assert 1 - 3 / 66 - 1e-9 <= measured["data_accuracy"] <= 1 - 1 / 66 + 1e-9


def test_near_copies_count_at_the_threshold(flat, shares):
    flat.greys = {
        "dark": [0.32 + exams.NEAR_COPY + 0.01] * 3,
        "bright": [0.68 - exams.NEAR_COPY + 0.01] * 3,
    }
    assert exam_of(flat).measure()[0]["near_copies"] == pytest.approx(0.5)


def test_a_prior_without_its_pictures_is_refused(flat):
    flat.world = None
    with pytest.raises(ValueError, match="nothing to compare"):
        exam_of(flat)


# ---- a mini that is told the camera --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Toys that are one square each: its row tells the kind, its column the side, its colour the
    colour.
    """

    kinds: tuple
    colours: tuple
    seeds: tuple

    def __len__(self):
        return len(self.kinds)

    @property
    def captions(self):
        return tuple(
            with_article(f"{c} {k}") for c, k in zip(self.colours, self.kinds, strict=True)
        )

    def subset(self, index):
        index = torch.as_tensor(index).reshape(-1).tolist()
        return Shelf(
            *(tuple(own[i] for i in index) for own in (self.kinds, self.colours, self.seeds))
        )


def drawn(toys, cameras):
    """(N, V, 3, 8, 8): a square of 2 pixels, and a faint trace of the seed beside it."""
    rgb = torch.ones(len(toys.kinds), len(cameras), 3, 8, 8)
    for i, (kind, colour, seed) in enumerate(
        zip(toys.kinds, toys.colours, toys.seeds, strict=True)
    ):
        for j, camera in enumerate(cameras):
            row, column = 2 * KINDS[:4].index(kind), 2 * (round((camera.azimuth - 30) / 90) % 4)
            rgb[i, j, :, row : row + 2, column : column + 2] = torch.tensor(COLOURS[colour])[
                :, None, None
            ]
            rgb[i, j, :, row, (column + 2) % 8] = 1 - 0.01 * seed
    return SimpleNamespace(rgb=rgb)


class Shop:
    """A prior that shows true toys: of a prompt, those at positions 0, 1, ... by seed, from the
    camera asked for.
    """

    name, cameras, lossy, asked_by, views_per_item = "shop", "any", 0.1, "prompt", 1
    decode, encode = Flat.decode, Flat.encode

    def __init__(self, world, wrong=None):
        self.world, self.prompts, self.wrong = world, world.prompts, wrong or {}

    def noise(self, seeds):
        return torch.tensor(list(seeds))

    def condition(self, prompt, camera=None):
        return prompt, camera

    def pictures(self, seeds, cond):
        prompt, cameras = cond
        prompt, turn = self.wrong.get(prompt, (prompt, 0))
        own = self.world.index(prompt)
        turned = [Camera(camera.azimuth + turn, camera.elevation) for camera in cameras]
        return torch.stack(
            [
                drawn(self.world.toys.subset(own[seed % len(own)]), [camera]).rgb[0, 0]
                for seed, camera in zip(seeds.tolist(), turned, strict=True)
            ]
        )


@pytest.fixture
def few(monkeypatch):
    """Three kinds in four colours, two seeds each; the judge's toys are the very toys that the
    prior shows.
    """
    kinds, colours = (
        KINDS[:3],
        ("red", "orange", "yellow", "green"),
    )  # held out: a red apple, an orange cactus, a yellow car
    toys = Shelf(
        *zip(
            *[(kind, colour, seed) for kind in kinds for colour in colours for seed in (1, 2)],
            strict=True,
        )
    )
    prompts = [with_article(kind) for kind in kinds] + [
        with_article(f"{c} {k}") for k in kinds for c in colours
    ]
    n = torch.arange(len(toys.kinds))
    world = ToyboxWorld(tuple(prompts), toys, n // 8, n, (), torch.empty(len(n), 0, 3, 8, 8))
    asked = []
    monkeypatch.setattr(
        exams, "toy_shop", lambda per_kind, first: asked.append((per_kind, first)) or world
    )
    for module in (exams, judge):
        monkeypatch.setattr(module, "render", drawn)
    monkeypatch.setattr(
        exams,
        "ddim",
        lambda own, noise, cond, steps, cfg: SimpleNamespace(images=own.pictures(noise, cond)),
    )
    return world, asked


def test_the_words_of_a_toys_prompt():
    assert colour_and_kind("a red teddy bear") == ("red", "teddy bear")
    assert colour_and_kind("an orange apple") == ("orange", "apple")
    assert colour_and_kind("a teddy bear") == ("", "teddy bear") and colour_and_kind("a car") == (
        "",
        "car",
    )
    pairs = {colour_and_kind(prompt) for prompt in toy_shop().prompts}
    assert pairs == {(colour, kind) for colour in ("", *COLOURS) for kind in KINDS}


def test_true_toys_are_right_in_everything(few):
    world, asked = few
    measured, made = exam_of(Shop(world)).measure(9, 2.0)
    assert made.shape == (15, 2, len(VIEWS), 3, 8, 8)
    assert (measured["prompts"], measured["samples"], measured["steps"], measured["cfg"]) == (
        15,
        15 * 2 * 4,
        9,
        2.0,
    )
    assert asked == [(exams.UNSEEN, len(world) // len(KINDS))]
    for name in (
        "kind",
        "seen_kind",
        "seen_colour",
        "held_out_kind",
        "held_out_colour",
        "view",
        "data_kind",
        "data_colour",
    ):
        assert measured[name] == 1, name
    assert measured["reconstruction"] == pytest.approx(20, abs=1e-4)


def test_sets_of_views_are_judged_as_one_object_too(few):
    """Of the 15 prompts with two seeds each one shows another kind: 28 of 30 sets are right."""
    world, _ = few
    shop = Shop(world, {"a red apple": ("a red car", 0)})
    shop.views_per_item = len(VIEWS)
    measured, _ = exam_of(shop).measure(9, 2.0)
    assert measured["one_object"] == pytest.approx(28 / 30) and measured["data_one_object"] == 1
    assert "one_object" not in exam_of(Shop(world)).measure(9, 2.0)[0]


def test_what_was_held_out_is_not_among_what_was_learned(few, monkeypatch):
    """Samples and the training's toys are the same here: what was learned is at distance 0, and
    what was left out is not.
    """
    monkeypatch.setattr(
        exams, "NEAR_COPY", 0.02
    )  # as far as the colours are apart, and farther than the seeds
    world, _ = few
    held = {f"{with_article(f'{c} {k}')}" for c, k in held_out_pairs()} & set(world.prompts)
    assert held == {"a red apple", "an orange cactus", "a yellow car"}
    measured, _ = ToyExam(Shop(world)).measure()
    # "an apple" shows the red ones first, which were left out; "a cactus" and "a car" red ones too
    assert measured["near_copies"] == pytest.approx(1 - 3 / 15 - 1 / 15)
    assert measured["distance"] > 0.01 and measured["data_distance"] > 0.01


def test_distances_within_a_kind_are_from_one_camera(few):
    world, _ = few
    measured, _ = ToyExam(Shop(world)).measure()
    views = drawn(world.toys, VIEWS).rgb
    own = [
        distances(views[i : i + 2, 0], views[i : i + 2, 0])[0, 1] for i in (0, 8, 16)
    ]  # by seed, the first two of each kind
    assert measured["pairwise"] == pytest.approx(float(sum(own)) / 3)
    own = [mean_pairwise(distances(views[i : i + 8, 0], views[i : i + 8, 0])) for i in (0, 8, 16)]
    assert measured["data_pairwise"] == pytest.approx(sum(own) / 3)


def test_wrong_kinds_colours_and_sides_are_counted_where_they_belong(few):
    world, _ = few
    wrong = {
        "a cactus": ("an apple", 0),  # 1 of the 3 plain prompts
        "a red cactus": ("a red car", 0),
        "a red car": ("a green car", 0),  # kind, colour: of the 9 pairs seen
        "an orange cactus": ("an orange car", 0),
        "a red apple": ("a green apple", 0),
    }  # the same of the 3 held out
    measured, _ = ToyExam(Shop(world, wrong)).measure()
    assert measured["kind"] == pytest.approx(2 / 3)
    assert measured["seen_kind"] == pytest.approx(8 / 9) and measured[
        "seen_colour"
    ] == pytest.approx(8 / 9)
    assert measured["held_out_kind"] == pytest.approx(2 / 3) and measured[
        "held_out_colour"
    ] == pytest.approx(2 / 3)
    assert (measured["data_kind"], measured["data_colour"], measured["data_view"]) == (1, 1, 1)
    turned, _ = ToyExam(Shop(world, {"a yellow car": ("a yellow car", 90)})).measure()
    assert turned["view"] == pytest.approx(14 / 15)


def test_the_judge_leaves_each_toy_out(few):
    world, _ = few
    # one seed; the apples are red and orange only
    one = [i for i in range(24) if i % 2 == 0 and i not in (4, 6)]
    judge = Judge(
        dataclasses.replace(world, toys=world.toys.subset(one), kind_label=world.kind_label[one])
    )
    own = judge(judge.pictures, judge.kind)
    assert torch.equal(own.kind, judge.kind[:, None].expand(-1, 4)) and torch.equal(
        own.view, torch.arange(4).expand(10, -1)
    )
    assert torch.equal(own.colour, judge.colour[:, None].expand(-1, 4))
    out = judge(judge.pictures, judge.kind, left_out=True)
    assert torch.equal(out.kind, own.kind) and torch.equal(out.view, own.view)
    # another kind has the same colour, in as many pixels; the histogram cannot tell
    assert torch.equal(out.colour, own.colour)
    alone = Judge(
        dataclasses.replace(
            world, toys=world.toys.subset(one[:2]), kind_label=world.kind_label[one[:2]]
        )
    )
    told = alone(alone.pictures, alone.kind, left_out=True).colour
    assert torch.equal(told, alone.colour.flip(0)[:, None].expand(-1, 4))  # the only other apple


def test_colours_are_counted_without_white():
    picture = torch.ones(3, 4, 4)
    picture[:, 0, 0], picture[:, 1, 1:] = (
        torch.tensor([1.0, 0, 0]),
        torch.tensor([0, 0, 1.0])[:, None],
    )
    histogram = colour_histogram(torch.stack([picture, picture.flip(2)]), bins=2)
    assert histogram.shape == (2, 8) and torch.equal(histogram[0], histogram[1])
    torch.testing.assert_close(histogram[0].square(), torch.tensor([0, 0.75, 0, 0, 0.25, 0, 0, 0]))
    assert colour_histogram(torch.ones(3, 4, 4)).sum() == 0


# ---- the card


def flat_exam(kind=PictureExam):
    """An exam whose prior is named, and draws nothing."""
    return kind(SimpleNamespace(name="flat", prompts=("dark", "bright")))


@pytest.fixture
def folder(tmp_path):
    """A mini's folder as a training leaves it: 0.8 million weights in half precision, and a
    checkpoint.
    """
    for part, count in {"unet": 500_000, "vae": 300_000, "checkpoint": 900_000}.items():
        (tmp_path / part).mkdir()
        weights = torch.zeros(count, dtype=torch.float16)
        save_file({"weights": weights}, tmp_path / part / "model.safetensors")
    (tmp_path / "model_index.json").write_text("{}")
    recipe = {
        "autoencoder": None,
        "start": None,
        "autoencoder_steps": 11,
        "autoencoder_batch": 8,
        "autoencoder_lr": 2e-3,
        "steps": 22,
        "batch": 32,
        "lr": 1e-3,
        "prediction": "v_prediction",
        "min_snr": 5.0,
        "ema": 0.999,
        "blurry": 0.05,
        "drop": 0.1,
    }
    facts = {
        "data": "greys",
        "pictures": 66,
        "objects": 33,
        "credit": "Greys: made here.",
        "recipe": recipe,
        "hardware": "one abacus",
        "minutes": {"autoencoder": 3.0, "network": 4.0},
    }
    (tmp_path / "training.json").write_text(json.dumps(facts))
    return tmp_path


def retold(folder, **recipe):
    facts = json.loads((folder / "training.json").read_text())
    facts["recipe"] |= recipe
    (folder / "training.json").write_text(json.dumps(facts))


PICTURES = {
    "steps": 25,
    "cfg": 4.0,
    "prompts": 2,
    "samples": 16,
    "accuracy": 0.5,
    "data_accuracy": 0.625,
    "distance": 0.123,
    "near_copies": 0.25,
    "precision": 0.75,
    "recall": 0.5,
    "pairwise": 0.345,
    "data_pairwise": 0.456,
    "reconstruction": 27.89,
}


def parts_of(text, parts):
    text = " ".join(text.split())
    assert [part for part in parts if part not in text] == [] and "{" not in text


def test_everything_is_written_into_the_folder(folder):
    write_card(flat_exam(), PICTURES, torch.rand(2, 3, 3, SIDE, SIDE), folder)
    parts = ["# flat ", "v prediction", "Greys: made here.", "66 pictures", "11 steps of 8"]
    parts += ["22 steps of 32", "3 minutes", "one abacus", "| 50.0% | 62.5% (", "guidance_scale=4"]
    parts += ["closer than 0.05", "| 25.0% |", "| 0.123 |", "| 0.345 | 0.456 |", "| 0.75, 0.50 |"]
    parts += ["| 27.9 dB |", 'load_prior("flat")', "16 DDIM samples", "license: other"]
    parts += ["0.8 million parameters, 1.6 MB"]  # without the checkpoint
    parts_of((folder / "README.md").read_text(), parts)
    assert json.loads((folder / "quality.json").read_text()) == PICTURES
    lines = (folder / "checksums.sha256").read_text().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    assert set(sums) == {"unet/model.safetensors", "vae/model.safetensors", "model_index.json"}
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    with Image.open(folder / "samples.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 100


@pytest.mark.parametrize(
    ("autoencoder", "parts"),
    [
        (None, ["license: apache-2.0", "11 steps of 8"]),
        ("icons-mini", ["license: cc-by-4.0", "that of `icons-mini`", "Noto Emoji"]),
    ],
)
def test_the_card_of_a_mini_that_takes_the_camera(autoencoder, parts, folder):
    names = ["kind", "data_kind", "seen_kind", "seen_colour", "data_colour", "held_out_kind"]
    names += ["held_out_colour", "view", "data_view", "near_copies"]
    measured = {name: 0.5 + 0.01 * i for i, name in enumerate(names)}
    measured |= {"distance": 0.111, "data_distance": 0.112, "pairwise": 0.113}
    measured |= {"data_pairwise": 0.114, "reconstruction": 30.25, "steps": 25, "cfg": 3.0}
    retold(folder, autoencoder=autoencoder)
    parts += ["16 kinds", "8 colours", "guidance 3", "1152 DDIM samples", "| 50.0% | 51.0% |"]
    parts += ["| 52.0% | |", "| 53.0% | 54.0% |", "| 55.0% | |", "| 56.0% | |", "| 57.0% | 58.0% |"]
    parts += ["| 59.0% | |", "| 0.111 | 0.112 |", "| 0.113 | 0.114 |", "| 30.2 dB |", "256 true"]
    text = card(flat_exam(ToyExam), {**measured, "prompts": 144, "samples": 1152}, folder)
    parts_of(text, parts)
    assert ("11 steps" in text) == (autoencoder is None) != ("Noto Emoji" in text)


def test_the_card_of_new_views(folder):
    exam = NovelViewExam(SimpleNamespace(name="turned", prompts=()))
    measured = {"steps": 5, "cfg": 2.0, "toys": 6, "samples": 48, "psnr": 12.34, "same_psnr": 11.5}
    measured |= {"known_psnr": 13.5, "view": 0.875, "near": 0.1, "behind": 0.2}
    measured |= {f"any_{name}": measured[name] for name in [*measured][4:]}
    measured |= {"any_psnr": 10.76, "reconstruction": 20.0}
    parts = [
        "22 steps of 32 pairs of views, 4 minutes on one abacus.",
        "66 renders of 33",
        "12.3 dB | 10.8 dB",
    ]
    parts += ["87.5%", "0.100", "0.200", "in 10% of the pairs"]
    parts_of(card(exam, measured, folder), [*parts, "license: apache-2.0", "comes nearer"])
    assert "comes nearer" not in card(exam, measured | {"known_psnr": 12.0}, folder)
    retold(folder, autoencoder="icons-mini", start="toybox-mini")
    parts += ["The UNet starts as `toybox-mini`'s", "The autoencoder is `icons-mini`'s"]
    parts_of(card(exam, measured, folder), [*parts, "license: cc-by-4.0"])


def test_a_card_without_a_number_is_an_error(folder):
    measured = {name: value for name, value in PICTURES.items() if name != "samples"}
    with pytest.raises(UndefinedError, match="samples"):
        card(flat_exam(), measured, folder)


@pytest.mark.parametrize("name", MINIS)
def test_the_shipped_cards_are_the_templates_with_the_numbers_measured(name):
    measured = json.loads((MODELS / name / "quality.json").read_text())
    text = (MODELS / name / "README.md").read_text()
    assert card(exam_of(load_prior(name, device="cpu")), measured, MODELS / name) == text


def test_few_prompts_have_more_seeds_and_few_pictures_no_precision(monkeypatch):
    """Of two labels: as many samples as precision and recall need, if there are the pictures."""
    prior = Flat({"dark": [0.1] * 32, "bright": [0.9] * 32})
    images = torch.full((32, 3, SIDE, SIDE), 0.5)
    monkeypatch.setattr(exams, "ddim", lambda *_: SimpleNamespace(images=images))
    assert len(exam_of(prior).seeds) == 32
    measured, samples = exam_of(prior).measure()
    assert samples.shape[:2] == (2, 32) and {"precision", "recall"} < set(measured)
    keep = torch.arange(0, 66, 2)
    few = dataclasses.replace(
        prior.world,
        pixels=prior.world.pixels[keep],
        label=prior.world.label[keep],
        sources=prior.world.sources[: len(keep)],
    )
    monkeypatch.setattr(prior, "world", few)
    assert not {"precision", "recall"} & set(exam_of(prior).measure()[0])

"""The judge: its shipped weights mark spoiled pictures down, and its parts do what they say."""

import json
import shutil

import pytest
import torch
from torch.nn import functional as F

from dsd_lab.checkpoint import differences
from dsd_lab.draws import generator_of
from dsd_lab.methods import SDS
from dsd_lab.metrics import (
    JudgeNetwork,
    coverage,
    kid,
    label_accuracy,
    load_judge,
    precision_recall,
)
from dsd_lab.minis import train_judge
from dsd_lab.minis.train_judge import Pictures, averaged, batch_of, blur, card, vary
from dsd_lab.priors import MODELS, load_prior
from dsd_lab.studies import Grid, read, study, summarise

WORLDS = sorted(folder.name.removesuffix("-judge") for folder in MODELS.glob("*-judge"))


@pytest.fixture(scope="module")
def drawings():
    return Pictures.of("icons")


@pytest.fixture(scope="module")
def judge():
    return load_judge("icons")


# ---- the shipped weights -------------------------------------------------------------------------


@pytest.mark.parametrize("world", WORLDS)
def test_the_folder_is_small_and_its_card_says_what_was_measured(world):
    folder = MODELS / f"{world}-judge"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 0.9e6
    facts = json.loads((folder / "quality.json").read_text())
    credit = load_prior(world).world.credit
    assert card(facts, credit) == (folder / "README.md").read_text()
    whole, *spoiled = facts["measured"].values()
    for other in spoiled:
        assert other["accuracy"][0] < whole["accuracy"][0]
        assert other["precision"][2] < whole["precision"][1]
        assert other["kid"][1] > whole["kid"][2]  # intervals apart


def test_held_out_drawings_are_named_and_spoiled_ones_are_not(drawings, judge):
    held, label = drawings.part(True)
    names = [drawings.names[k] for k in label]
    facts = json.loads((MODELS / "icons-judge" / "quality.json").read_text())["measured"]
    got = label_accuracy(held, names, judge)
    assert got.value == pytest.approx(facts["as they are"]["accuracy"][0], abs=0.005)
    assert label_accuracy(blur(held, 1.6), names, judge).high < got.low - 0.3
    every = drawings.pixels.float() / 255
    mixed = averaged(every, drawings.label, label, 3, generator_of("test"))
    assert label_accuracy(mixed, names, judge).high < got.low - 0.3
    assert label_accuracy(held, names[::-1], judge).value < 0.1  # it reads the prompt


def test_sets_of_spoiled_pictures_are_farther_from_the_data(drawings, judge):
    held, data = drawings.part(True)[0][:100], drawings.part(False)[0][::8]
    near = kid(held, data, features=judge.features)
    assert kid(blur(held, 1.6), data, features=judge.features).low > near.high
    near, far = (
        precision_recall(x, data, features=judge.features).precision
        for x in (held, blur(held, 1.6))
    )
    assert far.high < near.low


def test_a_larger_picture_is_averaged_over_blocks(drawings, judge):
    held = drawings.part(True)[0][:3]
    large = held.repeat_interleave(2, 2).repeat_interleave(2, 3)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(judge.features(large), judge.features(held), **close)
    assert judge.features(held).dtype == torch.float64
    torch.testing.assert_close(judge.features(held)[1:2], judge.features(held[1:2]), **close)


def test_the_head_reads_the_features(drawings, judge):
    held, label = drawings.part(True)
    scores = judge.features(held).float() @ judge.head.weight.T + judge.head.bias
    names = [drawings.names[k] for k in label]
    for top in (1, 5):
        best = scores.argsort(1, descending=True)[:, :top]
        assert torch.equal(judge.named(held, names, top), (best == label[:, None]).any(1))


def test_what_is_refused(drawings, judge, tmp_path):
    x = drawings.part(True)[0][:2]
    with pytest.raises(ValueError, match='unknown label "a dargon"; did you mean "a dragon"'):
        judge.named(x, "a dargon")
    with pytest.raises(ValueError, match="2 images but 1 prompts"):
        judge.named(x, ["a dragon"])
    with pytest.raises(ValueError, match="at least 32 px a side"):
        judge.features(x[..., :16, :16])
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        judge.features(x + 1)
    with pytest.raises(ValueError, match="missing or cannot be read; .*train_judge"):
        load_judge(tmp_path)
    shutil.copytree(MODELS / "icons-judge", tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "judge.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="does not match its checksum"):
        load_judge(tmp_path)


# ---- sets in other features ----------------------------------------------------------------------


def test_sets_are_measured_in_any_features():
    """In features that are a picture's mean, pictures are as far apart as their means."""
    g = generator_of("sets")
    means, data = torch.rand(64, generator=g), torch.rand(70, generator=g)

    def textured(values):
        noise = torch.rand(len(values), 3, 8, 8, generator=g) - 0.5
        noise = noise - noise.mean((1, 2, 3), keepdim=True)
        return 0.3 + 0.4 * values[:, None, None, None] + 0.2 * noise

    def flat(values):
        return (0.3 + 0.4 * values[:, None, None, None]).expand(-1, 3, 8, 8)

    def mean(x):
        return x.double().mean((1, 2, 3))[:, None]

    for measure in (precision_recall, coverage):
        got = measure(textured(means), textured(data), features=mean)
        assert got == measure(flat(means), flat(data)) != measure(textured(means), textured(data))
    x, y = mean(flat(means[:3])), mean(flat(data[:2]))
    want = torch.stack([(x[i] * x[j] + 1) ** 3 for i in range(3) for j in range(3) if i != j])
    want = want.mean() + (y[0] * y[1] + 1) ** 3 - 2 * (x @ y.T + 1).pow(3).mean()
    got = kid(textured(means[:3]), textured(data[:2]), features=mean)
    assert got.value == pytest.approx(float(want), rel=1e-4, abs=1e-7)


# ---- its training --------------------------------------------------------------------------------


def test_a_quarter_of_each_label_is_held_out(drawings):
    total = drawings.label.bincount()
    held = drawings.label[drawings.kept_back].bincount(minlength=len(total))
    assert torch.equal(held, (0.25 * total).round().long())
    assert torch.equal(drawings.kept_back, Pictures.of("icons").kept_back)
    assert len(drawings.part(False)[0]) + len(drawings.part(True)[0]) == len(drawings.label)


def test_all_views_of_a_toy_are_on_one_side(monkeypatch):
    monkeypatch.setattr(train_judge, "TOYS", 4)
    monkeypatch.setattr(train_judge, "VIEWS", 2)
    monkeypatch.setattr(train_judge, "KINDS", ("chair", "dragon"))
    toys = Pictures.of("toybox")
    assert toys.names == ("a chair", "a dragon") and toys.pixels.shape == (16, 3, 32, 32)
    assert toys.label.tolist() == [0] * 8 + [1] * 8
    sides = toys.kept_back.reshape(8, 2)
    assert torch.equal(sides[:, 0], sides[:, 1])
    assert sides[:4, 0].sum() == sides[4:, 0].sum() == 1


def test_averages_are_of_different_pictures_of_the_label():
    pictures = torch.eye(6)[:, None, None] * torch.ones(1, 3, 1, 1)  # each has a place of its own
    label = torch.tensor([0, 0, 0, 0, 1, 1])
    got = averaged(pictures, label, torch.tensor([0, 1]), 3, generator_of(0))
    assert sorted(got[0, 0, 0].tolist()) == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3])
    assert got[0, 0, 0, 4:].sum() == 0
    assert got[1, 0, 0].tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0.5])  # all that it has


def test_a_blurred_point_is_a_gaussian():
    x = torch.zeros(1, 3, 32, 32)
    x[..., 16, 16] = 1
    got, place = blur(x, 2.0)[0, 0], torch.arange(32) - 16
    assert float(got.sum()) == pytest.approx(1, abs=1e-5)
    assert float((got.sum(0) * place**2).sum()) == pytest.approx(4, rel=1e-2)


def test_a_batch_has_a_tenth_of_averages_and_a_tenth_blurred(drawings):
    pictures, label = drawings.part(False)
    x, target = batch_of(pictures, label, 107, 40, generator_of(1))
    assert (target == 107).tolist() == [True] * 8 + [False] * 32
    assert 0 <= x.min() and x.max() <= 1
    rough = [(part[..., 1:] - part[..., :-1]).abs().mean() for part in (x[4:8], x[8:])]
    assert rough[0] < 0.7 * rough[1]  # blurred


def test_variation_keeps_white_and_moves_by_a_tenth_at_most():
    white = torch.ones(64, 3, 32, 32)
    torch.testing.assert_close(vary(white, generator_of(0)), white)
    dot = white.clone()
    dot[..., 15:17, 15:17] = 0
    got = 1 - vary(dot, generator_of(0)).mean(1)
    place = torch.arange(32) - 15.5
    centre = torch.stack([(got * place).sum((1, 2)), (got * place[:, None]).sum((1, 2))])
    centre = centre / got.sum((1, 2))
    assert 2.5 < centre.abs().max() < 0.1 * 32 / 0.85 + 0.2


def test_a_training_goes_on_and_its_judge_is_loaded(tmp_path, monkeypatch):
    g = generator_of("tiny")
    label = torch.arange(2).repeat_interleave(260)
    pixels = torch.randint(0, 120, (520, 3, 32, 32), generator=g, dtype=torch.uint8)
    pixels[label == 1] += 130
    tiny = Pictures("tiny", ("a dark", "a light"), pixels, label, torch.arange(520), "nobody")
    monkeypatch.setattr(Pictures, "of", lambda world: tiny)
    short = train_judge.Recipe(steps=6, batch=16, lr=2e-3, ema=0.5, seed=1)
    monkeypatch.setattr(train_judge, "RECIPE", short)
    numbers = dict.fromkeys(("accuracy", "top5", "precision", "recall", "kid"), [0.0, 0.0, 0.0])
    monkeypatch.setattr(train_judge, "examine", lambda judge, pictures: {"none": numbers})
    train_judge.main("tiny", tmp_path / "out", tmp_path / "work")
    judge = load_judge(tmp_path / "out")
    assert judge.labels == ("a dark", "a light")
    before = (tmp_path / "out" / "judge.safetensors").read_bytes()
    train_judge.main("tiny", tmp_path / "out", tmp_path / "work")  # is finished
    assert (tmp_path / "out" / "judge.safetensors").read_bytes() == before
    assert differences(tiny.identity(), tiny.identity()) == []


def test_the_loss_takes_spoiled_pictures_for_the_last_label(drawings):
    pictures, label = drawings.part(False)
    network = JudgeNetwork(drawings.names)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    network.head.bias.data[-1] = 9.0  # it calls everything spoiled
    got = train_judge.loss(pictures, label, network, generator_of(0))
    x, target = batch_of(pictures, label, 107, train_judge.RECIPE.batch, generator_of(0))
    want = F.cross_entropy(network.head.bias.expand(len(x), -1), target, label_smoothing=0.1)
    torch.testing.assert_close(got, want)


# ---- studies -------------------------------------------------------------------------------------


def test_a_summary_says_what_the_judge_named(tmp_path, judge):
    grid = Grid({"SDS": SDS()}, ["a cat", "a dog"], [0, 1, 2], [{"steps": 3}])
    study(load_prior("icons", size=32), grid, tmp_path, progress=False)
    for s in summarise(tmp_path, judge):
        cells = [c for c in read(tmp_path).cells if c.method == s.method]
        shares = [judge.named(c.images, c.prompt).double().mean() for c in cells]
        assert s.named.value == pytest.approx(float(sum(shares) / 2))
    assert all(s.named is None for s in summarise(tmp_path))

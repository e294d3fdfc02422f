"""The exam of a mini of new views, on a stand-in whose views are known."""

from types import SimpleNamespace

import pytest
import torch

from dsd_lab.metrics import distances
from dsd_lab.minis import exams
from dsd_lab.minis.data import GIVEN
from dsd_lab.minis.exams import NovelViewExam, exam_of, wanted
from dsd_lab.worlds import make_toys, render
from dsd_lab.worlds.toybox.world import KINDS

SIZE, RENDERED = 16, {}


def rendered(toys, cameras, size):
    """`render`, once for the same toys and cameras: all tests here ask for the same."""
    numbers = [toys.melt, *(part for slots in toys.table.values() for part in slots)]
    exact = b"".join(part.numpy().tobytes() for part in numbers)
    key = toys.kinds, toys.colours, exact, tuple(cameras), size
    if key not in RENDERED:
        RENDERED[key] = render(toys, cameras, size)
    return RENDERED[key]


class Known:
    """A prior whose views are the true ones, turned by so many of the four cameras, and whose
    autoencoder loses 0.1.
    """

    name, picture_size, asked_by = "known", SIZE, "picture"

    def __init__(self, turned=0, apart=0.0):
        self.turned, self.apart, self.calls = turned, apart, 0

    def noise(self, seeds):
        return torch.tensor(list(seeds))

    def condition(self, view, camera):
        return view, camera

    def encode(self, images):
        return images - 0.1

    def decode(self, x):
        return x


@pytest.fixture
def answers(monkeypatch):
    """DDIM gives the wanted cameras' true views; of the second seed, those behind are moved by
    `apart`.
    """
    monkeypatch.setattr(exams, "KINDS", KINDS[:3])
    monkeypatch.setattr(exams, "render", rendered)
    monkeypatch.setattr(exams, "toys_to_turn", lambda kinds: make_toys([*kinds] * 2, [0, 1]))
    toys = make_toys([k for k in KINDS[:3] for _ in range(2)], [200, 201] * 3)

    def fake(prior, noise, cond, steps, cfg):
        view, cameras = cond
        i, prior.calls = prior.calls, prior.calls + 1
        given = view.camera
        assert (given == GIVEN) == (i % 2 == 0) and given.elevation <= 45
        turns = [round((c.azimuth - given.azimuth) % 360) for c in cameras]
        assert turns == [45, 135, 225, 315] * 2 and {c.elevation for c in cameras} == {20.0}
        picture, *pictures = rendered(toys.subset([i // 2]), (given, *cameras[:4]), SIZE).rgb[0]
        assert torch.equal(view.image, picture)
        views = torch.stack(pictures).roll(prior.turned, 0)
        other = views.clone()
        other[1:3] -= prior.apart
        prior.settings = steps, cfg, noise.tolist()
        return SimpleNamespace(images=torch.cat([views, other]))

    monkeypatch.setattr(exams, "ddim", fake)


def test_true_views_are_perfect(answers):
    prior = Known(apart=0.2)
    exam = exam_of(prior)
    measured, samples = exam.measure(7, 3.0)
    assert prior.settings == (7, 3.0, [0] * 4 + [1] * 4)
    assert [measured[name] for name in ("toys", "samples", "steps", "cfg")] == [6, 48, 7, 3.0]
    for given in ("", "any_"):
        assert measured[given + "near"] == 0
        assert measured[given + "view"] > 0.9  # what is moved by 0.2 may come near another view
        assert measured[given + "behind"] == pytest.approx(0.2, abs=1e-6)
    assert measured["reconstruction"] == pytest.approx(20, abs=1e-4)  # 0.1 everywhere
    assert samples.shape == (6, 2, 2, 4, 3, SIZE, SIZE)
    assert len(exam.sheet(samples, "Toys: made here.").axes) > 0


def test_views_of_other_cameras_are_told(answers):
    exam = NovelViewExam(Known(turned=2))
    measured, _ = exam.measure(5)
    for k, name in enumerate(("", "any_")):
        given, true = exam.views[:, k, 0], exam.views[:, k, 1:]
        assert measured[name + "view"] == 0
        by_hand = -10 * (true.roll(2, 1) - true).square().mean((-3, -2, -1)).log10().mean()
        assert measured[name + "psnr"] == pytest.approx(float(by_hand), rel=1e-5)
        same = -10 * (given[:, None] - true).square().mean((-3, -2, -1)).log10().mean()
        assert measured[name + "same_psnr"] == pytest.approx(float(same), rel=1e-5)


def test_the_known_toy_is_the_most_alike_of_its_kind(answers):
    exam = NovelViewExam(Known(turned=1))
    measured, _ = exam.measure(5)
    for k, name in enumerate(("", "any_")):
        total = 0.0
        for i, (given, *true) in enumerate(exam.views[:, k]):
            camera = exam.cameras[i][k]
            known = make_toys([KINDS[i // 2]] * 2, [0, 1])
            own = rendered(known, (camera, *wanted(camera)), SIZE)
            best = own.rgb[distances(given[None], own.rgb[:, 0]).argmin(), 1:]
            error = (best - torch.stack(true)).square().mean((-3, -2, -1))
            total += float(-10 * error.log10().mean()) / 6
        assert measured[name + "known_psnr"] == pytest.approx(total, rel=1e-2)

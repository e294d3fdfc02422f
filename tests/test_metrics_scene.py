"""How scenes are judged: distances and counts by hand, and objects whose sides are known."""

import math
import sys

import pytest
import torch
from device import MOCK

from dsd_lab import InputView
from dsd_lab.cameras import HELD_OUT, Camera, orbit
from dsd_lab.metrics import MissingWeights
from dsd_lab.metrics.scenes import (
    janus,
    judge,
    judge_reconstructed_views,
    judge_reconstructions,
    judge_views,
    seen_as,
    ssim,
    true_views,
)
from dsd_lab.worlds import ToyboxWorld, make_toys, render

CAMERAS = (Camera(10, 10), Camera(130, 30), Camera(-110, 30))


@pytest.fixture(scope="module")
def world():
    """Three chairs, then a mug and a rocket; judging needs no pictures of the bank."""
    toys = make_toys(["chair", "chair", "chair", "mug", "rocket"], [0, 1, 2, 0, 0])
    prompts = ("a chair", "a mug", "a rocket", *toys.captions)
    return ToyboxWorld(
        prompts,
        toys,
        torch.tensor([0, 0, 0, 1, 2]),
        torch.arange(5),
        orbit(1),
        torch.zeros(5, 1, 3, 16, 16, dtype=torch.uint8),
    )


class Toy:
    """What stands for a scene: one toy of the world, turned by some degrees, or one that shows its
    front to every camera.
    """

    def __init__(self, world, number, turned=0.0, facing=None):
        self.toys, self.turned, self.facing = world.toys.subset(number), turned, facing

    def images(self, cameras, size):
        self.asked = cameras
        side = [
            camera.azimuth - self.turned if self.facing is None else self.facing
            for camera in cameras
        ]
        return render(
            self.toys, [Camera(a, c.elevation) for a, c in zip(side, cameras, strict=True)], size
        ).rgb[0]


def test_true_views(world):
    views = true_views(world, "a chair", CAMERAS, 16)
    assert views.shape == (3, 3, 3, 16, 16) and true_views(world, "a chair", CAMERAS, 16) is views
    one = render(make_toys("chair", [2]), [CAMERAS[1]], 16).rgb[0, 0]
    assert (views[2, 1] - one).abs().mean() < 1e-3
    assert true_views(world, "a mug", size=16).shape == (1, len(HELD_OUT), 3, 16, 16)


def test_judge_views_by_hand(world):
    """The first chair, the third, and twice the third with all values moved: by 0.08, and by 0.3 in
    one of the three views.
    """
    true = true_views(world, "a chair", CAMERAS, 16).double()
    one_view = torch.tensor([0, 0.3, 0], dtype=torch.float64)[:, None, None, None]
    got = judge_views(
        torch.stack([true[0], true[2], true[2] - 0.08, true[2] - one_view]),
        world,
        "a chair",
        CAMERAS,
    )
    far = 0.3 / math.sqrt(3)
    apart = (true[0] - true[2]).square().mean().sqrt().item()
    assert apart > 0.1
    assert (got.scenes, got.objects, got.nearest, got.distinct, got.reached) == (
        4,
        3,
        (0, 2, 2, 2),
        2,
        2,
    )
    assert got.distances == pytest.approx((0, 0, 0.08, far), abs=1e-7)
    assert (
        got.distance.value == pytest.approx((0.08 + far) / 4)
        and got.distance.low <= got.distance.value <= got.distance.high
    )
    pairs = [
        apart,
        0.08,
        far,
        math.sqrt((2 * 0.08**2 + 0.22**2) / 3),
        *(
            (true[0] - other).square().mean().sqrt().item()
            for other in (true[2] - 0.08, true[2] - one_view)
        ),
    ]
    assert got.pairwise.value == pytest.approx(sum(pairs) / 6)
    assert got.psnr == pytest.approx(
        (120 + 120 - 20 * math.log10(0.08) - 20 * math.log10(far)) / 4
    )  # 120 is the most it says


def test_reached_is_within_a_radius_and_distinct_is_at_any(world):
    true = true_views(world, "a chair", CAMERAS, 16)
    got = judge_views(torch.stack([true[1] + 0.2, true[0] + 0.099]), world, "a chair", CAMERAS)
    assert (got.distinct, got.reached, got.pairwise) == (2, 1, None) and got.nearest == (1, 0)
    assert judge_views(true[1:2] + 0.101, world, "a chair", CAMERAS).reached == 0


def test_judge_looks_at_scenes_from_the_cameras(world):
    scenes = [Toy(world, 2), Toy(world, 0), Toy(world, 2)]
    got = judge(scenes, world, "a chair", CAMERAS, 16)
    assert (
        got.nearest == (2, 0, 2)
        and got.distance.value < 0.01
        and (got.scenes, got.distinct, got.reached) == (3, 2, 2)
    )
    turned = judge([Toy(world, 0, turned=120)], world, "a chair", CAMERAS, 16)
    assert turned.distance.value > 0.05


@pytest.mark.parametrize("shape", [(2, 2, 3, 16, 16), (3, 3, 16, 16)])
def test_judge_wants_a_view_a_camera(shape, world):
    with pytest.raises(ValueError, match=r"views must be \(B, 3, 3, H, W\), one a camera"):
        judge_views(torch.zeros(shape), world, "a chair", CAMERAS)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_object_with_one_face(number, world):
    scene = Toy(world, number)
    assert seen_as(scene, world, "a chair", size=32).tolist() == [
        0,
        45,
        90,
        135,
        180,
        225,
        270,
        315,
    ]
    assert janus(scene, world, "a chair", size=32) == 0


def test_a_face_on_every_side(world):
    """Its eight views are off by 0, 45, 90, 135, 180, 135, 90, 45 degrees: five of them by more
    than 60.
    """
    scene = Toy(world, 1, facing=0.0)
    assert seen_as(scene, world, "a chair", size=32).tolist() == [0] * 8
    assert janus(scene, world, "a chair", size=32) == 5 / 8
    assert janus(scene, world, "a chair", views=6, size=32) == 3 / 6  # by 0, 60, 120, 180, 120, 60
    assert janus(Toy(world, 1, facing=90.0), world, "a chair", views=4, size=32) == 3 / 4


def test_a_turned_object_is_off_by_its_turn(world):
    """Turned by 90 degrees: from 0 one sees what the true one shows from 270. A turn of 45 is
    within the 60.
    """
    assert seen_as(Toy(world, 1, turned=90), world, "a chair", views=4, size=32).tolist() == [
        270,
        0,
        90,
        180,
    ]
    assert janus(Toy(world, 1, turned=90), world, "a chair", size=32) == 1
    assert janus(Toy(world, 1, turned=45), world, "a chair", size=32) == 0


def test_it_is_measured_against_the_nearest_object_and_its_elevation(world):
    """All eight views together choose the object, from cameras at the elevation asked for."""
    scene = Toy(world, 2)
    assert janus(scene, world, "a chair", elevation=40.0, size=32) == 0 and scene.asked == orbit(
        8, 40.0
    )
    assert janus(Toy(world, 1, facing=0.0), world, world.toys.captions[1], size=32) == 5 / 8


# ---- reconstructions of one picture

FRONT = Camera(
    170, 10
)  # the picture's; 20, 90 and 90 degrees from the first three below, then 91, 91 and 170
AROUND = (
    Camera(-170, 0),
    Camera(-100, 30),
    Camera(80, 30),
    Camera(-99, 30),
    Camera(79, 0),
    Camera(0, 0),
)


def flat(seen, unseen):
    """Pictures from `AROUND`, each of one grey: (6, 3, 16, 16)."""
    grey = torch.tensor([seen] * 3 + [unseen] * 3, dtype=torch.float64)
    return grey[:, None, None, None].expand(6, 3, 16, 16)


def picture(size=32):
    image = torch.rand(
        3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return InputView(image, torch.ones(1, size, size), FRONT)


def shown_with(*errors):
    """The picture in half its size, each time with all values moved by an error."""
    small = picture().image.reshape(3, 16, 2, 16, 2).mean((2, 4))
    return torch.stack([small + error for error in errors])


ANSWERS = torch.stack([flat(0.5, 0.2), flat(0.5, 0.3), flat(0.5, 0.8)])


@pytest.fixture
def no_lpips(monkeypatch):
    def missing(images, others):
        raise MissingWeights("LPIPS needs the weights")

    monkeypatch.setattr(sys.modules["dsd_lab.metrics.scenes"], "lpips", missing)


def test_reconstructions_by_hand(no_lpips):
    """What is behind alone says which answer a scene is: here what is in front is near to none, and
    as far from all.
    """
    views = torch.stack([flat(0.9, 0.249), flat(0.1, 0.36), flat(0.5, 0.79), flat(0.5, 0.8)])
    got = judge_reconstructed_views(
        views, shown_with(0.1, 0.01, 0.01, 0.1), picture(), ANSWERS, AROUND
    )
    assert (got.scenes, got.answers, got.nearest, got.lpips) == (4, 3, (0, 1, 2, 2), None)
    assert got.input_psnr.value == pytest.approx((20 + 40 + 40 + 20) / 4, abs=1e-4)
    error = [(0.4**2 + 0.049**2) / 2, (0.4**2 + 0.06**2) / 2, 0.01**2 / 2]  # all cameras count
    assert got.psnr.value == pytest.approx(
        (sum(-10 * math.log10(e) for e in error) + 120) / 4
    )  # 120 is the most it says
    assert got.distance.value == pytest.approx((0.049 + 0.06 + 0.01 + 0) / 4)
    pairs = [0.111, 0.541, 0.551, 0.43, 0.44, 0.01]
    assert got.pairwise.value == pytest.approx(sum(pairs) / 6)
    like = [
        alike(0.9, 0.5),
        alike(0.249, 0.2),
        alike(0.1, 0.5),
        alike(0.36, 0.3),
        1.0,
        alike(0.79, 0.8),
        1.0,
        1.0,
    ]
    assert got.ssim.value == pytest.approx(sum(like) / 8)
    assert (
        got.found == 2
    )  # the second and the third; the first scene is nearly halfway to the second answer


@pytest.mark.parametrize(
    "grey, found",
    [
        (0.224, 1),
        (0.226, 0),
        (0.274, 0),
        (0.276, 1),  # a quarter of the way between the first two is 0.025
        (0.101, 1),
        (0.099, 0),
        (0.399, 1),
        (0.401, 0),
        (0.701, 1),
        (0.699, 0),
        (0.899, 1),
        (0.901, 0),  # and 0.1 from all
    ],
)
def test_an_answer_is_found_up_to_a_quarter_of_the_way_to_the_next(grey, found, no_lpips):
    views = flat(0.9, grey)[None]
    assert (
        judge_reconstructed_views(views, shown_with(0.1), picture(), ANSWERS, AROUND).found == found
    )


def test_an_error_that_leads_to_no_other_answer_does_not_count_against_it(no_lpips):
    """A checkerboard of 0.09 around the first answer: nearly as far as the second is, but not
    towards it.
    """
    views = flat(0.5, 0.2)[None].clone()
    views[..., ::2, ::2] += 0.09
    views[..., 1::2, 1::2] += 0.09
    views[..., ::2, 1::2] -= 0.09
    views[..., 1::2, ::2] -= 0.09
    got = judge_reconstructed_views(views, shown_with(0.1), picture(), ANSWERS, AROUND)
    assert got.distance.value == pytest.approx(0.09) and got.found == 1


def test_different_answers_are_counted_once(no_lpips):
    views = torch.stack([flat(0.5, grey) for grey in (0.2, 0.21, 0.22, 0.31)])
    got = judge_reconstructed_views(views, shown_with(*[0.1] * 4), picture(), ANSWERS, AROUND)
    assert got.found == 2 and got.nearest == (0, 0, 0, 1)
    one = judge_reconstructed_views(views, shown_with(*[0.1] * 4), picture(), ANSWERS[:1], AROUND)
    assert (one.found, one.answers, one.nearest) == (1, 1, (0,) * 4)
    two = judge_reconstructed_views(views[2:], shown_with(0.1, 0.1), picture(), ANSWERS, AROUND)
    assert two.pairwise is None and two.found == 2


def test_the_unseen_side_is_beyond_90_degrees_on_either_hand(no_lpips):
    """One camera at a time differs from the answer; whether that counts as distance is whether it
    is behind.
    """
    counts = []
    for k in range(6):
        views = ANSWERS[:1].clone()
        views[0, k] += 0.03
        got = judge_reconstructed_views(views, shown_with(0.1), picture(), ANSWERS[:1], AROUND)
        counts.append(got.distance.value)
    assert counts == pytest.approx([0, 0, 0] + [0.03 / math.sqrt(3)] * 3)
    with pytest.raises(
        ValueError, match="no camera looks at the unseen side, more than 90 degrees of azimuth from"
    ):
        judge_reconstructed_views(
            ANSWERS[:, :3], shown_with(0, 0, 0), picture(), ANSWERS[:, :3], AROUND[:3]
        )


def test_lpips_is_taken_between_a_scene_and_its_own_answer(monkeypatch):
    monkeypatch.setattr(
        sys.modules["dsd_lab.metrics.scenes"],
        "lpips",
        lambda a, b: (a - b).abs().flatten(1).mean(1),
    )
    views = torch.stack([flat(0.6, 0.22), flat(0.5, 0.77)])
    got = judge_reconstructed_views(views, shown_with(0.1, 0.1), picture(), ANSWERS, AROUND)
    assert got.lpips.value == pytest.approx(((0.1 + 0.02) / 2 + 0.03 / 2) / 2)


def test_scenes_are_looked_at_from_the_held_out_cameras_and_the_pictures(world, no_lpips):
    view = InputView(
        render(world.toys.subset(1), [FRONT], 16).rgb[0, 0], torch.ones(1, 16, 16), FRONT
    )
    scenes, answers = [Toy(world, 1), Toy(world, 0)], world.toys.subset([0, 1])
    got = judge_reconstructions(scenes, view, answers, CAMERAS, 16)
    assert (
        got.nearest == (1, 0)
        and got.found == 2
        and got.distance.value < 0.02
        and got.psnr.value > 34
    )
    assert scenes[0].asked == [FRONT]  # the last that it was asked for
    other = (render(world.toys.subset(0), [FRONT], 16).rgb[0, 0] - view.image).square().mean()
    assert got.input_psnr.high > 40 and got.input_psnr.low == pytest.approx(
        -10 * math.log10(other), abs=0.1
    )


# ---- structural similarity


def alike(x, y):
    """SSIM of two pictures of one grey each: their means alone count, with C1 = 0.01^2."""
    return (2 * x * y + 1e-4) / (x * x + y * y + 1e-4)


def test_ssim():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 3, 16, 16, generator=generator)
    assert ssim(images, images).tolist() == [1, 1]
    torch.testing.assert_close(
        ssim(flat(0.2, 0.4)[None], flat(0.3, 0.8)[None]),
        torch.tensor([(alike(0.2, 0.3) + alike(0.4, 0.8)) / 2], dtype=torch.float64),
    )
    sign = (-1.0) ** (torch.arange(16)[:, None] + torch.arange(16))
    up, down = ((0.5 + change * sign).expand(1, 1, 3, 16, 16) for change in (0.1, -0.2))
    # means 0.5 both; variances 0.1^2 and 0.2^2, covariance -0.1 * 0.2, C2 = 0.03^2
    want = (-2 * 0.02 + 9e-4) / (0.01 + 0.04 + 9e-4)
    assert float(ssim(up, down)) == pytest.approx(want, rel=0.01)
    far = torch.arange(-5, 6, dtype=torch.float64)
    bell = torch.exp(-(far**2) / (2 * 1.5**2))
    window = (bell[:, None] * bell / bell.sum() ** 2)[None, None]

    def mean(x):
        return torch.nn.functional.conv2d(x, window)  # where the whole window is in the picture

    x, y = images.double()[:, 0, :, None]  # three channels each
    mx, my = mean(x), mean(y)
    vx, vy, xy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    want = (2 * mx * my + 1e-4) * (2 * xy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert float(ssim(images[:1, :1], images[1:, :1])) == pytest.approx(
        float(want.mean()), abs=1e-6
    )
    noise = images + 0.1 * torch.randn(images.shape, generator=generator)
    both = ssim(torch.cat([images, images]), torch.cat([images, noise]))
    assert both.shape == (4,) and both[:2].tolist() == [1, 1] and both[2:].max() < 0.97


def test_views_may_be_on_any_device(world, no_lpips):
    true = true_views(world, "a chair", CAMERAS, 16)
    want = judge_views(true, world, "a chair", CAMERAS)
    assert judge_views(true.to(MOCK), world, "a chair", CAMERAS) == want
    views, shown = torch.stack([flat(0.6, 0.22), flat(0.5, 0.77)]).float(), shown_with(0.1, 0.1)
    want = judge_reconstructed_views(views, shown, picture(), ANSWERS, AROUND)
    got = judge_reconstructed_views(
        views.to(MOCK), shown.float().to(MOCK), picture(), ANSWERS, AROUND
    )
    assert (got.distance, got.nearest, got.found) == (want.distance, want.nearest, want.found)
    assert tuple(ssim(true.to(MOCK), true)) == (1, 1, 1)

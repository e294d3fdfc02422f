import itertools
import math

import pytest
import torch

from dsd_lab import GaussianMixture, ImageSet
from dsd_lab.metrics import (
    Estimate,
    bootstrap,
    distances,
    effective_modes,
    evaluate,
    jackknife,
    mean_pairwise,
    modes_even,
    table,
)

f64 = torch.float64


@pytest.fixture
def prior(small_world):
    return ImageSet(small_world)


# ---- the numbers ---------------------------------------------------------------------------------


def test_distances_are_rmse_per_channel():
    a = torch.tensor([[[[0.0, 0.5]]], [[[1.0, 1.0]]]])
    b = torch.tensor([[[[0.3, 0.1]]], [[[1.0, 0.0]]], [[[0.0, 0.5]]]])
    want = [
        [math.sqrt((0.09 + 0.16) / 2), math.sqrt((1 + 0.25) / 2), 0.0],
        [math.sqrt((0.49 + 0.81) / 2), math.sqrt(1 / 2), math.sqrt((1 + 0.25) / 2)],
    ]
    torch.testing.assert_close(distances(a, b), torch.tensor(want, dtype=f64), rtol=1e-6, atol=1e-8)


def test_distances_of_equal_pictures_are_zero_to_the_bit():
    pictures = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert distances(pictures, pictures).diagonal().tolist() == [0.0] * 5


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 5), (2, 2), (3, 2), (4, 3), (2, 6)])
def test_modes_even_is_the_mean_over_all_draws(n, k):
    counts = [len(set(draw)) for draw in itertools.product(range(k), repeat=n)]
    assert modes_even(n, k) == pytest.approx(sum(counts) / len(counts), rel=1e-12)


def test_modes_even_by_hand():
    assert modes_even(2, 4) == pytest.approx(1.75)  # 1 + 3/4
    assert modes_even(3, 2) == pytest.approx(1.75)  # 2 (1 - 1/8)


def test_effective_modes_by_hand():
    assert effective_modes(torch.tensor([7, 3, 7, 9])) == pytest.approx(
        2 * math.sqrt(2)
    )  # H = 1/2 ln 2 + 2 (1/4 ln 4)
    assert effective_modes(torch.tensor([4, 4, 4])) == pytest.approx(1.0)
    assert effective_modes(torch.arange(6)) == pytest.approx(6.0)


def test_mean_pairwise_leaves_the_diagonal_out():
    matrix = torch.tensor([[9.0, 1.0, 2.0], [1.0, 9.0, 6.0], [2.0, 6.0, 9.0]], dtype=f64)
    assert mean_pairwise(matrix) == pytest.approx(3.0)


# ---- the intervals -------------------------------------------------------------------------------


def test_jackknife_of_the_mean_is_its_standard_error():
    values = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0], dtype=f64)
    value, low, high = jackknife(lambda i: float(values[i].mean()), 6, floor=-100)
    error = float(values.std()) / math.sqrt(6)
    assert value == pytest.approx(float(values.mean()))
    assert value - low == pytest.approx(1.96 * error, rel=1e-9)
    assert high - value == pytest.approx(1.96 * error, rel=1e-9)


def test_jackknife_is_not_below_its_floor():
    values = torch.tensor([0.0, 0.0, 9.0], dtype=f64)
    assert jackknife(lambda i: float(values[i].mean()), 3).low == 0.0  # 3 - 1.96 * 3 without it
    assert jackknife(lambda i: float(values[i].mean()), 3, floor=1.0).low == 1.0
    assert jackknife(lambda i: float(values[i].mean()), 3, floor=-9.0).low == pytest.approx(
        3 - 1.96 * 3
    )


def test_bootstrap_interval_of_a_normal():
    values = 2 + 0.5 * torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=f64)
    value, low, high = bootstrap(values)
    error = float(values.std(correction=0)) / 20  # what resampling sees
    assert value == pytest.approx(float(values.mean()), rel=1e-12)
    # a quantile of 2000 resamples has a standard error of 0.06 of a standard error
    assert low == pytest.approx(value - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(value + 1.96 * error, abs=0.2 * error)


def test_bootstrap_is_the_same_each_time_and_leaves_the_global_generator_alone():
    values = torch.tensor([1.0, 2.0, 4.0])
    torch.manual_seed(3)
    first, after = bootstrap(values), torch.rand(1)
    torch.manual_seed(3)
    assert torch.rand(1) == after
    assert bootstrap(values) == first
    assert bootstrap(torch.tensor([2.0, 2.0])) == Estimate(2.0, 2.0, 2.0)


def test_an_estimate_prints_its_interval():
    assert str(Estimate(1.23456, 0.5, 2)) == "1.235 [0.500, 2.000]"
    assert f"{Estimate(0.5, 0.25, 1):.0%}" == "50% [25%, 100%]"
    nan = float("nan")
    assert (str(Estimate(0.5, nan, nan)), Estimate(0.5, nan, nan).bar) == ("0.500", None)
    assert Estimate(0.5, 0.25, 1).bar == [[0.25], [0.5]]


# ---- evaluate ------------------------------------------------------------------------------------


def shifted(picture, by):
    """The picture with every value moved by `by`, towards the side that has room for it."""
    return picture + torch.where(picture < 0.5, by, -by)


@pytest.fixture
def report(prior):
    """Six samples on the 12 warm pictures: 0 twice, 1 moved by 0.05, 2 exactly, 3 moved by 0.15 and
    0.09.
    """
    p = prior.world.images("warm")
    samples = torch.stack(
        [p[0], p[0], shifted(p[1], 0.05), p[2], shifted(p[3], 0.15), shifted(p[3], 0.09)]
    )
    reference = torch.stack([p[0], p[4], p[1], p[2], p[3], p[5]])
    return evaluate(samples, prior, "warm", reference), samples, reference, p


def test_evaluate_counts_modes_within_the_radius(report):
    r = report[0]
    assert (r.samples, r.pictures, r.modes) == (
        6,
        12,
        4,
    )  # the sample at 0.15 reaches nothing, its neighbour at 0.09 does
    assert r.outside == pytest.approx(1 / 6)
    assert r.modes_even == pytest.approx(12 * (1 - (11 / 12) ** 6))
    assert r.nearest == 4  # at any distance: the six fall 2, 1, 1, 2, so H = 2/3 ln 3 + 1/3 ln 6
    assert r.effective_modes.value == pytest.approx(
        math.exp(2 / 3 * math.log(3) + 1 / 3 * math.log(6))
    )


def test_evaluate_jackknifes_the_effective_modes(report):
    def entropy(*counts):
        return math.exp(-sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts))

    without = [entropy(1, 1, 1, 2)] * 4 + [entropy(2, 1, 2)] * 2
    mean = sum(without) / 6
    error = math.sqrt(5 / 6 * sum((w - mean) ** 2 for w in without))
    e = report[0].effective_modes
    assert e.high - e.value == pytest.approx(1.96 * error)
    assert e.low == pytest.approx(max(1.0, e.value - 1.96 * error))


def test_there_is_no_fewer_than_one_effective_mode(prior):
    p = prior.world.images("warm")
    low = evaluate(
        p[[0, 0, 0, 1]], prior, "warm"
    ).effective_modes.low  # 1.75 - 1.31 without the floor
    assert low == 1.0


def test_evaluate_measures_distances(report):
    r, samples, reference, p = report
    assert r.distance.value == pytest.approx((0.05 + 0.15 + 0.09) / 6, rel=1e-5)
    assert r.distance.low < r.distance.value < r.distance.high

    def rmse(a, b):
        return math.sqrt(float((a.double() - b.double()).square().mean()))

    pairs = [rmse(a, b) for a, b in itertools.combinations(samples, 2)]
    assert r.pairwise.value == pytest.approx(sum(pairs) / 15, rel=1e-9)
    apart = [0, rmse(p[0], p[4]), 0.05, 0, 0.15, rmse(samples[5], p[5])]
    assert r.agreement.value == pytest.approx(sum(apart) / 6, rel=1e-5)
    assert r.same_mode == pytest.approx(4 / 6)  # seeds 1 and 5 differ


def test_the_radius_is_a_tenth_unless_given(prior):
    p = prior.world.images("warm")[:1]
    inside, outside = (evaluate(shifted(p, by), prior, "warm") for by in (0.0999, 0.1001))
    assert (inside.modes, inside.outside) == (1, 0.0)
    assert (outside.modes, outside.outside) == (0, 1.0)
    assert evaluate(shifted(p, 0.2), prior, "warm", radius=0.21).modes == 1


def test_evaluate_looks_at_the_pictures_of_its_prompt_alone(prior):
    cold = prior.world.images("cold")[:3]
    assert evaluate(cold, prior, "cold").distance == Estimate(0.0, 0.0, 0.0)
    assert evaluate(cold, prior, "warm").modes == 0
    assert evaluate(cold, prior, "warm").pictures == 12


def test_what_cannot_be_told_is_none(prior):
    p = prior.world.images("warm")
    one, two, three = (evaluate(p[:n], prior, "warm") for n in (1, 2, 3))
    assert one.pairwise is one.effective_modes is None
    assert two.pairwise is None
    assert two.effective_modes is None
    assert three.pairwise is not None
    assert three.agreement is three.same_mode is None
    nobody = evaluate(torch.stack([shifted(p[0], 0.3)] * 4), prior, "warm")
    assert (nobody.modes, nobody.nearest, nobody.outside, nobody.effective_modes.value) == (
        0,
        1,
        1.0,
        1.0,
    )


def test_evaluate_says_what_is_wrong(prior):
    good = prior.world.images("warm")[:3]
    with pytest.raises(TypeError, match="prior of pictures.*got gaussian-mixture"):
        evaluate(good, GaussianMixture({"a": [[0.0, 0.0]]}), "a")
    with pytest.raises(ValueError, match=r"images must be \(B, 3, 8, 8\).*got \(3, 3, 8, 4\)"):
        evaluate(good[..., :4], prior, "warm")
    with pytest.raises(ValueError, match=r"images must be .*got \(3, 8, 8\)"):
        evaluate(good[0], prior, "warm")
    with pytest.raises(ValueError, match=r"images must be .*B >= 1, got \(0, 3, 8, 8\)"):
        evaluate(good[:0], prior, "warm")
    with pytest.raises(ValueError, match=r"reference must be .*got \(3, 3, 4, 8\)"):
        evaluate(good, prior, "warm", good[:, :, :4])
    with pytest.raises(ValueError, match="images must lie in .*; decode them first"):
        evaluate(2 * good - 1, prior, "warm")
    with pytest.raises(ValueError, match="images must lie in"):
        evaluate(torch.full_like(good, torch.nan), prior, "warm")
    with pytest.raises(ValueError, match="reference must lie in"):
        evaluate(good, prior, "warm", good * 3)
    with pytest.raises(ValueError, match="3 images but 2 references"):
        evaluate(good, prior, "warm", good[:2])
    with pytest.raises(ValueError, match='unknown prompt "hot"'):
        evaluate(good, prior, "hot")


# ---- the table -----------------------------------------------------------------------------------


def test_table_has_one_aligned_line_a_method(prior, report):
    alone = evaluate(prior.world.images("warm")[:1], prior, "warm")
    lines = table({"DDIM": alone, "a method of a long name": report[0]}).split("\n")
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == [
        "modes",
        "nearest",
        "even",
        "effective",
        "distance",
        "outside",
        "pairwise",
        "agreement",
        "same",
        "mode",
    ]
    for name, row in (("DDIM", lines[1]), ("a method of a long name", lines[2])):
        assert row.startswith(name)
    for head, cell in (
        ("modes", "4/12"),
        ("even", "4.9"),
        ("outside", "17%"),
        ("distance", str(report[0].distance)),
        ("pairwise", str(report[0].pairwise)),
        ("agreement", str(report[0].agreement)),
        ("same mode", "67%"),
    ):
        end = lines[0].index(head) + len(head)
        assert lines[2][:end].endswith(" " + cell)  # each value ends where its heading ends
    assert lines[1].split() == [
        "DDIM",
        "1/12",
        "1",
        "1.0",
        "-",
        "0.000",
        "[0.000,",
        "0.000]",
        "0%",
        "-",
        "-",
        "-",
    ]


def test_table_of_some_columns(report):
    lines = table({"DDIM": report[0]}, ("outside", "modes")).split("\n")
    assert [line.split() for line in lines] == [["outside", "modes"], ["DDIM", "17%", "4/12"]]
    with pytest.raises(ValueError, match='unknown column "mode"; did you mean "modes"'):
        table({"DDIM": report[0]}, ["mode"])

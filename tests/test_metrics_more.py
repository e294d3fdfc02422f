import itertools
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from device import MOCK
from torch.nn import functional as F

from dsd_lab import ImageSet, metrics
from dsd_lab.metrics import (
    MissingWeights,
    Report,
    blocks,
    coverage,
    evaluate_unknown,
    features,
    frechet,
    frechet_distance,
    kid,
    precision_recall,
    vendi,
    vendi_score,
)

f64 = torch.float64


def grey(*values):
    """8x8 pictures of one grey each: the RMSE between two is the difference of their greys."""
    return torch.tensor(values, dtype=f64)[:, None, None, None].expand(-1, 3, 8, 8)


def random_pictures(count, seed, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(
        count, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=f64
    )


# ---- precision, recall, coverage -----------------------------------------------------------------


def test_a_set_covers_itself_and_disjoint_sets_do_not_meet():
    a, b = random_pictures(70, 0, 0, 0.4), random_pictures(80, 1, 0.6, 1)
    for got in (*precision_recall(a, a), coverage(a, a)):
        assert got.value == got.high == 1.0
    for got in (*precision_recall(a, b), coverage(a, b)):
        assert tuple(got) == (0.0, 0.0, 0.0)


def test_precision_recall_and_coverage_by_hand():
    """Data at 0, 1, ..., 63; images: 32 of them at 10.2, 16 at 40.4, 8 at 63.9 + 3, 8 far out (all
    in hundredths).

    k = 3: a datum inside reaches 2 (its third neighbour), those at either end 3, their neighbours
    2. 66.9 is 3.9 from the last datum: outside. The images' balls: 32 and 16 equal ones, and the
    8s, have radius 0, so they hold no datum.
    """
    data = grey(*(i / 100 for i in range(64)))
    images = grey(*[0.102] * 32, *[0.404] * 16, *[0.669] * 8, *[0.9] * 8)
    precision, recall = precision_recall(images, data, 3)
    assert precision.value == 48 / 64
    assert precision.low < 0.75 < precision.high
    assert recall.value == 0.0
    # within 2 of 10.2: 9, 10, 11, 12; of 40.4: 39, 40, 41, 42 (the datum's radius, 2, decides)
    assert coverage(images, data, 3).value == 8 / 64
    # k = 1: radius 1: 10, 11; 40, 41
    assert coverage(images, data, 1).value == 4 / 64


def test_recall_by_hand():
    """Images at 0, 1, ..., 63 hundredths of a half: radius 1 (k = 2); data half inside, half beyond
    the last.
    """
    images = grey(*(i / 200 for i in range(64)))
    inside, beyond = (
        [(i + 0.4) / 200 for i in range(32)],
        [(63 + 2.2) / 200 + i / 1000 for i in range(32)],
    )
    assert precision_recall(images, grey(*inside, *beyond), 2).recall.value == 0.5


def test_precision_recall_against_a_double_loop():
    images, data = random_pictures(64, 2, 0.1, 0.6), random_pictures(66, 3, 0.2, 0.7)

    def rmse(a, b):
        return math.sqrt(float((a - b).square().mean()))

    def share(inner, outer, k):
        radius = [sorted(rmse(o, p) for p in outer)[k] for o in outer]
        return sum(
            any(rmse(x, o) <= r for o, r in zip(outer, radius, strict=True)) for x in inner
        ) / len(inner)

    precision, recall = precision_recall(images, data)
    assert precision.value == pytest.approx(share(images, data, 3))
    assert recall.value == pytest.approx(share(data, images, 3))
    assert 0 < precision.value < 1
    assert 0 < recall.value < 1
    radius = [sorted(rmse(d, p) for p in data)[5] for d in data]
    want = sum(any(rmse(d, x) <= r for x in images) for d, r in zip(data, radius, strict=True)) / 66
    assert coverage(images, data).value == pytest.approx(want)


# ---- Vendi ---------------------------------------------------------------------------------------


def test_vendi_counts_what_is_far_apart():
    far = 10 * (1 - torch.eye(5, dtype=f64))
    assert vendi(far) == pytest.approx(5)
    assert vendi(torch.zeros(7, 7)) == pytest.approx(1)
    pair = torch.tensor([[0.0, 0.1], [0.1, 0.0]])
    high, low = (1 + math.exp(-0.5)) / 2, (1 - math.exp(-0.5)) / 2  # the eigenvalues over 2
    assert vendi(pair) == pytest.approx(math.exp(-high * math.log(high) - low * math.log(low)))
    three = torch.zeros(3, 3, dtype=f64)
    three[2, :2] = three[:2, 2] = 10.0  # two alike and one apart: eigenvalues 2/3 and 1/3
    assert vendi(three) == pytest.approx(3 / 2 ** (2 / 3))


def test_vendi_score_of_pictures():
    assert tuple(vendi_score(grey(0.3, 0.3, 0.3, 0.3))) == pytest.approx((1, 1, 1))
    assert vendi_score(grey(0.0, 0.5, 1.0), width=0.01).value == pytest.approx(3)
    assert vendi_score(grey(0.0, 0.1, 0.5), width=0.1).value == pytest.approx(
        vendi(torch.tensor([[0, 0.1, 0.5], [0.1, 0, 0.4], [0.5, 0.4, 0]]))
    )
    with pytest.raises(ValueError, match="at least 3 images, got 2"):
        vendi_score(grey(0.1, 0.2))
    with pytest.raises(ValueError, match="width must be positive"):
        vendi_score(grey(0.1, 0.2, 0.3), width=0)


# ---- Frechet and KID -----------------------------------------------------------------------------


def test_blocks_are_mean_colours():
    picture = torch.arange(3 * 8 * 8).reshape(1, 3, 8, 8) / 200
    want = picture.reshape(1, 3, 4, 2, 4, 2).double().mean((3, 5)).flatten(1)
    torch.testing.assert_close(blocks(picture), want)
    assert blocks(torch.zeros(2, 3, 30, 30)).shape == (2, 48)


def test_frechet_of_gaussians():
    # diagonal: |m - m'|^2 + sum (s - s')^2
    got = frechet(
        torch.tensor([0.0, 1.0], dtype=f64),
        torch.diag(torch.tensor([4.0, 9.0], dtype=f64)),
        torch.tensor([3.0, 1.0], dtype=f64),
        torch.diag(torch.tensor([1.0, 25.0], dtype=f64)),
    )
    assert got == pytest.approx(9 + 1 + 4)
    # covariances that do not commute: tr (C C')^1/2 from the eigenvalues of the product
    g = torch.Generator().manual_seed(0)
    a, b = (m @ m.T for m in torch.randn(2, 5, 5, generator=g, dtype=f64))
    cross = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    zero = torch.zeros(5, dtype=f64)
    assert frechet(zero, a, zero, b) == pytest.approx(
        float(a.trace() + b.trace() - 2 * cross), rel=1e-9
    )
    assert frechet(zero, a, zero, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_pictures():
    a = random_pictures(70, 4, 0.2, 0.6)
    assert frechet_distance(a, a).value == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a + 0.25, a).value == pytest.approx(
        48 * 0.25**2
    )  # a shift of every mean
    x, y = random_pictures(90, 5, 0, 0.5), random_pictures(64, 6, 0.3, 1)
    fx, fy = (F.avg_pool2d(v, 2).flatten(1) for v in (x, y))
    cov = [(f - f.mean(0)).T @ (f - f.mean(0)) / (len(f) - 1) for f in (fx, fy)]
    cross = torch.linalg.eigvals(cov[0] @ cov[1]).real.clamp(min=0).sqrt().sum()
    want = (fx.mean(0) - fy.mean(0)).square().sum() + cov[0].trace() + cov[1].trace() - 2 * cross
    got = frechet_distance(x, y)
    assert got.value == pytest.approx(float(want), rel=1e-8)
    assert 0 < got.low < got.value < got.high


def test_frechet_distance_of_many_samples_is_the_gaussians():
    """Grey pictures of normal grey: one feature, 48 times; 48 ((m - m')^2 + (s - s')^2)."""
    g = torch.Generator().manual_seed(7)
    a, b = (
        m + s * torch.randn(3000, generator=g, dtype=f64) for m, s in ((0.4, 0.05), (0.55, 0.08))
    )
    exact = 48 * (0.15**2 + 0.03**2)
    fa, fb = (blocks(grey(*v.clamp(0, 1).tolist())) for v in (a, b))
    assert frechet(fa.mean(0), fa.T.cov(), fb.mean(0), fb.T.cov()) == pytest.approx(exact, rel=0.05)


def poly(a, b):
    return (float(blocks(a[None])[0] @ blocks(b[None])[0]) / 48 + 1) ** 3


def test_kid_against_a_double_loop():
    x, y = random_pictures(5, 8), random_pictures(4, 9, 0.2, 1)
    within = sum(poly(a, b) for a, b in itertools.permutations(x, 2)) / 20
    among = sum(poly(a, b) for a, b in itertools.permutations(y, 2)) / 12
    across = sum(poly(a, b) for a in x for b in y) / 20
    got = kid(x, y)
    assert got.value == pytest.approx(within + among - 2 * across, rel=1e-10)
    assert got.low < got.value < got.high
    among = sum(poly(a, b) for a in y for b in y) / 16
    assert kid(x, y, whole=True).value == pytest.approx(within + among - 2 * across, rel=1e-10)


def test_kid_is_unbiased():
    """The mean over all draws is the squared MMD of the two populations."""
    p, q = grey(0.1, 0.6, 0.9), grey(0.2, 0.7)

    def mean(a, b):
        return sum(poly(u, v) for u in a for v in b) / (len(a) * len(b))

    want = mean(p, p) + mean(q, q) - 2 * mean(p, q)
    draws = [p[list(i)] for i in itertools.product(range(3), repeat=3)]
    datas = [q[list(i)] for i in itertools.product(range(2), repeat=2)]
    assert sum(kid(x, y).value for x in draws for y in datas) / (27 * 4) == pytest.approx(
        want, rel=1e-10
    )
    # against a whole population: its own draws give 0 on average
    assert sum(kid(x, q, whole=True).value for x in draws) / 27 == pytest.approx(want, rel=1e-10)
    assert sum(kid(x, p, whole=True).value for x in draws) / 27 == pytest.approx(0, abs=1e-12)


# ---- unknown pictures, and what is refused -------------------------------------------------------


def test_evaluate_unknown(small_world):
    a, b = random_pictures(4, 10), random_pictures(4, 11)
    got = evaluate_unknown(a, b)
    pairs = [math.sqrt(float((x - y).square().mean())) for x, y in itertools.combinations(a, 2)]
    assert got.samples == 4
    assert got.pairwise.value == pytest.approx(sum(pairs) / 6)
    apart = [math.sqrt(float((x - y).square().mean())) for x, y in zip(a, b, strict=True)]
    assert got.agreement.value == pytest.approx(sum(apart) / 4)
    assert evaluate_unknown(a[:2]) == Report(2)
    with pytest.raises(ValueError, match="4 images but 3 references"):
        evaluate_unknown(a, b[:3])
    with pytest.raises(ValueError, match="decode them first"):
        evaluate_unknown(a * 2)


@pytest.mark.parametrize(
    ("measure", "what"),
    [
        (precision_recall, "precision and recall"),
        (coverage, "coverage"),
        (frechet_distance, "the Frechet distance"),
    ],
)
def test_too_few_are_refused(measure, what):
    enough, few = random_pictures(64, 0), random_pictures(63, 1)
    measure(enough, enough)
    with pytest.raises(
        ValueError, match=f"{what}: at least 64 images are needed, got 63; kid works with few"
    ):
        measure(few, enough)
    with pytest.raises(ValueError, match=f"{what}: at least 64 data are needed, got 63"):
        measure(enough, few)
    with pytest.raises(ValueError, match="data must be .B, 3, 8, 8.*got .64, 3, 8, 4"):
        measure(enough, enough[..., :4])


def test_other_limits():
    a = random_pictures(64, 0)
    for k in (0, 63, 2.5, True):
        with pytest.raises(ValueError, match=r"k must be an int in 1\.\.62"):
            precision_recall(a, a, k)
    with pytest.raises(ValueError, match="KID: at least 3 images are needed, got 2"):
        kid(a[:2], a)
    with pytest.raises(ValueError, match="KID: at least 2 data are needed, got 1"):
        kid(a[:3], a[:1])


# ---- pretrained networks -------------------------------------------------------------------------


def test_missing_weights_are_said_and_nothing_is_fetched(tmp_path, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    a = random_pictures(64, 0)
    with pytest.raises(
        MissingWeights, match="weights of .*none/here.* are not here; fetch them once with"
    ):
        metrics.clip_score(a[:2], "a dragon", model="none/here")
    with pytest.raises(
        MissingWeights,
        match="Inception-FID needs the weights weights-inception.*not here.*put them at",
    ):
        metrics.inception_fid(a, a)
    with pytest.raises(
        MissingWeights, match="LPIPS needs the weights alexnet.*not here.*put them at"
    ):
        metrics.lpips(a[:2], a[:2])


def test_weights_of_another_checksum_are_not_loaded(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"something else")
    a = random_pictures(64, 0)
    with pytest.raises(
        RuntimeError, match="weights.pth is not weights-inception.*its checksum differs"
    ):
        metrics.inception_fid(a, a, tmp_path / "weights.pth")


def test_clip_score_of_a_small_network(tmp_path):
    """A CLIP of random weights in a folder: the score is the cosine of its own embeddings."""
    transformers = pytest.importorskip("transformers")
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    config = transformers.CLIPConfig(
        text_config={
            **small,
            "vocab_size": 8,
            "max_position_embeddings": 8,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        vision_config={**small, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    torch.manual_seed(0)
    net = transformers.CLIPModel(config).eval()
    net.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(
        '{"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b</w>": 3}'
    )
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    )
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}, do_resize=False
    )
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(tmp_path)
    a = random_pictures(3, 12)
    got = metrics.clip_score(a, "a b", model=str(tmp_path))
    mean, std = (torch.tensor(v)[:, None, None] for v in (images.image_mean, images.image_std))
    with torch.no_grad():
        out = net(input_ids=torch.tensor([[0, 2, 3, 1]]), pixel_values=((a - mean) / std).float())
    want = (out.logits_per_image[:, 0] / net.logit_scale.exp()).clamp(min=0) * 100
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-4)


# ---- colours of what is shown --------------------------------------------------------------------


def pixels(*colours):
    """One picture whose pixels, in a row, have these colours."""
    return torch.tensor(colours, dtype=f64).T[None, :, None]


def test_saturation_by_hand():
    """(max - min) / max over the channels: 1 for red however dark, 1/2 for (0.5, 0.25, 0.3), 0 for
    greys; white is left out.
    """
    white, red, dark, half, grey = (
        (1, 1, 1),
        (1, 0, 0),
        (0.2, 0, 0),
        (0.5, 0.25, 0.3),
        (0.6, 0.6, 0.6),
    )
    assert metrics.saturation(pixels(white, red, dark, half, grey)) == pytest.approx(2.5 / 4)
    assert metrics.saturation(pixels(white, grey, (0, 0, 0))) == 0
    assert (
        metrics.saturation(pixels(white, (0.99, 1, 0.985))) == 0
    )  # all above 250 / 255: white enough
    assert metrics.saturation(pixels((1, 1, 0.9))) == pytest.approx(0.1)  # and this is not
    both = torch.cat(
        [pixels(red, white, white), pixels(grey, grey, white)]
    )  # a mean over pixels, not over pictures
    assert metrics.saturation(both) == pytest.approx(1 / 3)


def test_clipped_by_hand():
    """Of the nine values that are not white's, red has three at 0 or 1, (0.5, 0.25, 1) one and the
    grey none.
    """
    white = (1, 1, 1)
    assert metrics.clipped(
        pixels(white, (1, 0, 0), (0.5, 0.25, 1), (0.6, 0.6, 0.6))
    ) == pytest.approx(4 / 9)
    assert metrics.clipped(pixels(white, (0, 0, 0))) == 1
    assert metrics.clipped(pixels(white, (0.999, 0.999, 1))) == 0
    assert metrics.clipped(pixels((1e-6, 0.97, 0.5))) == 0


# ---- devices -------------------------------------------------------------------------------------


def measured(images, data, reference, prior):
    """Every measure of pictures, on the device they are on."""
    return {
        "evaluate": vars(metrics.evaluate(images[:4], prior, "warm", reference[:4])),
        "unknown": vars(metrics.evaluate_unknown(images[:4], reference[:4])),
        "distances": metrics.distances(images, data),
        "apart": metrics.apart(images, reference),
        "precision": metrics.precision_recall(images, data),
        "coverage": metrics.coverage(images, data),
        "vendi": metrics.vendi_score(images[:5]),
        "frechet": metrics.frechet_distance(images, data),
        "kid": metrics.kid(images[:5], data),
        "saturation": metrics.saturation(images),
        "clipped": metrics.clipped(images),
    }


def test_pictures_may_be_on_any_device(small_world):
    prior = ImageSet(small_world)
    batches = [random_pictures(64, seed).float() for seed in (0, 1, 2)]
    want = measured(*batches, prior)
    for where in ((MOCK,) * 3, (MOCK, "cpu", MOCK)):
        got = measured(*(batch.to(d) for batch, d in zip(batches, where, strict=True)), prior)
        for name, value in want.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(got[name], value), name
            else:
                assert got[name] == value, name


def test_lpips_builds_its_network_once(tmp_path, monkeypatch):
    """And an error that is no missing file is not taken for one."""
    built = []

    class LPIPS(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            built.append(net)

        def forward(self, a, b, normalize):
            assert normalize and a.shape[-1] == 64
            return (a - b).abs().mean((1, 2, 3), keepdim=True)

    features._lpips_network.cache_clear()
    monkeypatch.setattr(features, "_weights", lambda *args: tmp_path)
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=LPIPS))
    a, b = grey(0.2, 0.5).float(), grey(0.3, 0.9).float()
    for where in ("cpu", MOCK):
        got = metrics.lpips(a.to(where), b).cpu()
        assert got.tolist() == pytest.approx([0.1, 0.4], rel=1e-5)
    assert built == ["alex"]
    features._lpips_network.cache_clear()

"""The test that fixes the scale of the exact picture prior's space, before any distillation is
looked at.
"""

import pytest
import torch

from dsd_lab import ddim, load_prior


def chi_square_p(counts):
    """P(a chi-square this large or larger) if all are equally likely: the regularised upper
    incomplete gamma function.
    """
    counts = counts.double()
    expected = counts.mean()
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(
        torch.special.gammaincc(
            torch.tensor((len(counts) - 1) / 2, dtype=torch.float64), statistic / 2
        )
    )


def test_chi_square_p_by_hand():
    # 30, 20, 10 against 20 each: statistic 10, two degrees of freedom: exp(-5)
    assert chi_square_p(torch.tensor([30, 20, 10])) == pytest.approx(0.006738, abs=1e-6)


@pytest.mark.parametrize(
    "size, prompts", [(64, ["a tree"]), (32, ["a tree", "a mushroom", "a cat"])]
)
@pytest.mark.slow
def test_ddim_without_guidance_samples_a_prompts_pictures_evenly(size, prompts):
    prior = load_prior("icons", size=size)
    for prompt in prompts:
        final = ddim(
            prior, prior.noise(range(256)), prior.condition(prompt), steps=50, cfg=1.0
        ).final
        pictures = prior.means[prior.members(prompt)].float()
        distance, mode = torch.cdist(final.flatten(1), pictures).min(1)
        assert distance.max() < 0.02 * pictures.norm(dim=1).mean()  # and each result is one of them
        assert chi_square_p(torch.bincount(mode, minlength=len(pictures))) > 0.01

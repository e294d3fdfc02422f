import pytest
import torch
from diffusers import DDIMScheduler

from dsd_lab import NoiseSchedule

CONFIGS = {
    "linear": dict(beta_schedule="linear"),
    "scaled_linear": dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    "squaredcos": dict(beta_schedule="squaredcos_cap_v2"),
    "zero_snr": dict(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("as_config", [True, False])
def test_levels_equal_diffusers(name, as_config):
    scheduler = DDIMScheduler(**CONFIGS[name])
    ours = NoiseSchedule.from_diffusers(scheduler.config if as_config else scheduler)
    # diffusers accumulates in float32, hence the tolerance; a different beta formula is off by far
    # more
    torch.testing.assert_close(
        ours.alphas_cumprod, scheduler.alphas_cumprod.double(), rtol=2e-5, atol=1e-7
    )
    assert ours.prediction_type == scheduler.config.prediction_type
    torch.testing.assert_close(
        ours.alpha**2 + ours.sigma**2, torch.ones(1000, dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_first_levels_by_hand():
    s = NoiseSchedule.stable_diffusion()
    # beta_0 = 0.00085; beta_1 = (sqrt(0.00085) + (sqrt(0.012) - sqrt(0.00085)) / 999)^2 =
    # 0.00085470...
    beta_1 = (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) / 999) ** 2
    assert s.alphas_cumprod[0].item() == pytest.approx(0.99915, rel=1e-14)
    assert s.alphas_cumprod[1].item() == pytest.approx(0.99915 * (1 - beta_1), rel=1e-14)
    assert s.ratio[999].item() == pytest.approx(
        14.61, abs=0.01
    )  # Stable Diffusion's largest sigma in k-diffusion


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_native_outputs_give_back_noise_and_picture(kind):
    s = NoiseSchedule.stable_diffusion(kind)
    g = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(3, 2, 4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0, 500, 999])
    a, b = s.alpha[t].reshape(3, 1, 1, 1), s.sigma[t].reshape(3, 1, 1, 1)
    output = {"epsilon": eps, "v_prediction": a * eps - b * x0, "sample": x0}[kind]
    x_t = s.add_noise(x0, t, eps)
    torch.testing.assert_close(s.to_eps(output, x_t, t), eps, rtol=0, atol=1e-12)
    torch.testing.assert_close(s.to_x0(output, x_t, t), x0, rtol=0, atol=1e-12)


def test_timesteps():
    s = NoiseSchedule.stable_diffusion()
    assert s.timesteps(1).tolist() == [999, 0]
    assert s.timesteps(4).tolist() == [999, 749, 499, 249, 0]  # 999 * 3/4 = 749.25, 499.5, 249.75
    assert len(s.timesteps(999).unique()) == 1000


@pytest.mark.parametrize("t", [-1, 1000, torch.tensor([3, 1000])])
def test_timestep_outside_is_refused(t):
    with pytest.raises(ValueError, match=r"0\.\.999"):
        NoiseSchedule.stable_diffusion().check(t)


@pytest.mark.parametrize("t", [0.5, torch.tensor([1.0]), torch.zeros(2, 2, dtype=torch.long), True])
def test_timestep_must_be_integers(t):
    with pytest.raises(TypeError, match="int"):
        NoiseSchedule.stable_diffusion().check(t)


@pytest.mark.parametrize("steps", [0, -3, 1000, 2.0, True])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match=r"steps must be an int in 1\.\.999"):
        NoiseSchedule.stable_diffusion().timesteps(steps)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="scaled_linear"):
        NoiseSchedule.from_diffusers({"beta_schedule": "sigmoid"})
    with pytest.raises(ValueError, match="v_prediction"):
        NoiseSchedule.from_diffusers({"prediction_type": "score"})
    with pytest.raises(ValueError, match="falls"):
        NoiseSchedule(torch.tensor([0.5, 0.6]))


def test_epsilon_cannot_begin_at_pure_noise():
    config = {**CONFIGS["zero_snr"], "prediction_type": "epsilon"}
    with pytest.raises(ValueError, match="pure noise.*v_prediction"):
        NoiseSchedule.from_diffusers(config)
    betas = [0.01] * 9 + [1.0]  # the same, said otherwise
    with pytest.raises(ValueError, match="pure noise"):
        NoiseSchedule.from_diffusers({"trained_betas": betas})
    at_the_end = NoiseSchedule.from_diffusers({"trained_betas": betas, "prediction_type": "sample"})
    assert at_the_end.alpha[-1] == 0


@pytest.mark.parametrize(
    "config, what",
    [
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEuler"),
        ({"_class_name": "SCMScheduler", "prediction_type": "trigflow"}, "trigflow|SCM"),
    ],
)
def test_flow_matching_is_not_taken_for_ddpm(config, what):
    with pytest.raises(ValueError, match=f"flow matching .*({what})"):
        NoiseSchedule.from_diffusers({**CONFIGS["zero_snr"], **config})
    fine = {"use_flow_sigmas": False, "_class_name": "UniPCMultistepScheduler"}
    assert len(NoiseSchedule.from_diffusers({**CONFIGS["zero_snr"], **fine})) == 1000

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


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_native_outputs_give_back_noise_and_picture(kind):
    s = NoiseSchedule.stable_diffusion(kind)
    g = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(3, 2, 4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0, 500, 999])
    a, b = s.alpha[t].reshape(3, 1, 1, 1), s.sigma[t].reshape(3, 1, 1, 1)
    output = {"epsilon": eps, "v_prediction": a * eps - b * x0, "sample": x0, "flow": eps - x0}[
        kind
    ]
    x_t = s.add_noise(x0, t, eps)
    torch.testing.assert_close(s.to_output(x0, eps, t), output)
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


# ---- flow matching


def test_a_flows_levels_equal_diffusers():
    from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

    for scheduler in (FlowMatchEulerDiscreteScheduler(shift=3.0), FlowMatchHeunDiscreteScheduler()):
        ours = NoiseSchedule.from_diffusers(scheduler)
        assert (ours.prediction_type, ours.is_flow, len(ours)) == ("flow", True, 1000)
        want = scheduler.sigmas[:1000].flip(0).double()
        torch.testing.assert_close(ours.time, want, rtol=1e-6, atol=1e-7)
        assert ours.time[-1] == 1 and ours.alpha[-1] == 0 and ours.ratio[-1] == torch.inf
    again = NoiseSchedule.from_diffusers(FlowMatchEulerDiscreteScheduler(shift=3.0).config)
    torch.testing.assert_close(again.time, NoiseSchedule.flow(3.0).time, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_shift_that_follows_the_number_of_tokens(kind):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (1024 - 256)  # FLUX at 512 pixels
    u = [1.0, 0.7, 0.2, 0.001]
    scheduler.set_timesteps(sigmas=u, mu=mu)
    ours = NoiseSchedule.from_diffusers(scheduler, tokens=1024)
    got = ours.time[[round(1000 * v) - 1 for v in u]]
    torch.testing.assert_close(got, scheduler.sigmas[:4].double(), rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="number of latent tokens"):
        NoiseSchedule.from_diffusers(scheduler)


def test_the_flow_of_a_dpm_solver():
    from diffusers import DPMSolverMultistepScheduler

    settings = dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    ours = NoiseSchedule.from_diffusers(DPMSolverMultistepScheduler(**settings))  # Sana's
    torch.testing.assert_close(ours.time, NoiseSchedule.flow(3.0).time)


def test_a_flow_is_a_diffusion_rescaled():
    s, g = NoiseSchedule.flow(3.0), torch.Generator().manual_seed(0)
    t = torch.tensor([0, 400, 999])
    x0, eps = (torch.randn(3, 2, generator=g, dtype=torch.float64) for _ in range(2))
    time, x_t = s.time[t][:, None], s.add_noise(x0, t, eps)
    x_flow, velocity = (1 - time) * x0 + time * eps, eps - x0
    torch.testing.assert_close(s.to_input(x_t, t), x_flow, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(s.to_output(x0, eps, t), velocity)
    torch.testing.assert_close(s.to_eps(velocity, x_t, t), eps, rtol=0, atol=1e-12)
    torch.testing.assert_close(s.to_x0(velocity, x_t, t), x0, rtol=0, atol=1e-12)


def test_ranges_of_t_on_a_flow_are_stable_diffusions():
    usual, flow = NoiseSchedule.stable_diffusion(), NoiseSchedule.flow(3.0)
    assert [usual.level(f) for f in (0, 0.29, 0.98, 1)] == [0, 290, 980, 999]
    assert [round(flow.level(f) / 1000, 2) for f in (0.32, 0.98)] == [0.23, 0.81]
    for f in (0.02, 0.32, 0.98, 1.0):
        t, r = flow.level(f), usual.ratio[usual.level(f)]
        assert flow.ratio[t - 1] < r <= flow.ratio[t]
    assert flow.last == 998 and flow.reach(0.29) == 290
    assert "flow, 1000 levels, t_min 0.02: t = 43, r = 0.138" in repr(flow)
    assert "0.98: t = 980, r = 13" in repr(usual)


@pytest.mark.parametrize("shift", [0, -1.0, float("inf")])
def test_a_shift_that_is_none(shift):
    with pytest.raises(ValueError, match="shift must be a positive number"):
        NoiseSchedule.flow(shift)


@pytest.mark.parametrize(
    "config, what",
    [
        ({"use_flow_sigmas": True}, r"\(use_flow_sigmas\).* predicts v_prediction"),
        ({"prediction_type": "flow_prediction"}, "flow_prediction.*use_flow_sigmas is not set"),
        ({"_class_name": "SCMScheduler", "prediction_type": "trigflow"}, "TrigFlow"),
        ({"invert_sigmas": True, "prediction_type": "flow", "use_flow_sigmas": 1}, "backwards"),
        ({"_class_name": "FlowMatchX", "shift_terminal": 0.1, "beta_schedule": 0}, "predicts v"),
    ],
)
def test_other_flows_are_not_taken_for_what_they_are_not(config, what):
    with pytest.raises(ValueError, match=f"flow matching .*{what}"):
        NoiseSchedule.from_diffusers({**CONFIGS["zero_snr"], **config})
    fine = {"use_flow_sigmas": False, "_class_name": "UniPCMultistepScheduler"}
    assert len(NoiseSchedule.from_diffusers({**CONFIGS["zero_snr"], **fine})) == 1000
    terminal = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.1}
    with pytest.raises(ValueError, match="end before pure noise"):
        NoiseSchedule.from_diffusers(terminal)

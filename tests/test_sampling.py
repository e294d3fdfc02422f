import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from dsd_lab import GaussianMixture, ImageSet, NoiseSchedule, ddim, ddim_invert
from dsd_lab.priors import Prior

f64 = torch.float64
SD = dict(
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=0,
    timestep_spacing="leading",
)


class Canned(Prior):
    """A prior whose network output is any fixed smooth function, to compare updates with the same
    outputs.
    """

    def __init__(self, prediction_type):
        super().__init__((3, 4, 4), NoiseSchedule.stable_diffusion(prediction_type))

    def resolve(self, prompt):
        return prompt

    def network(self, x, t):
        return (
            torch.sin(3 * x)
            + 0.2 * torch.cos(x.flip(-1))
            + torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1, 1, 1) / 1000
        )

    def _outputs(self, queries):
        return [{term: self.network(q.x, q.t) for term in q.terms} for q in queries]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [10, 50])
def test_every_ddim_step_equals_diffusers(kind, steps):
    prior = Canned(kind)
    scheduler = DDIMScheduler(**SD, prediction_type=kind)
    scheduler.set_timesteps(steps)
    levels = [*scheduler.timesteps.tolist()]
    x = prior.noise([0, 1], f64)
    trajectory = ddim(prior, x, prior.condition("a"), cfg=1.0, levels=levels)
    assert trajectory.t.tolist() == levels
    for k, t in enumerate(levels):
        torch.testing.assert_close(trajectory.x_t[k], x, rtol=1e-5, atol=1e-5)
        out = scheduler.step(prior.network(x, t), t, x)
        torch.testing.assert_close(trajectory.x0[k], out.pred_original_sample, rtol=1e-5, atol=1e-5)
        x = out.prev_sample


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_every_inversion_step_equals_diffusers(kind):
    """diffusers' inverse step to level t takes the output it is given; feed it ours, made at the
    level before.
    """
    prior = Canned(kind)
    scheduler = DDIMInverseScheduler(
        **{k: v for k, v in SD.items() if k != "set_alpha_to_one"}, prediction_type="epsilon"
    )
    scheduler.set_timesteps(20)
    levels = [0, *(t for t in range(50, 1000, 50))]
    x = 0.3 * prior.noise([3], f64)
    trajectory = ddim_invert(prior, x, prior.condition("a"), cfg=1.0, levels=levels)
    for k, t in enumerate(levels[1:]):
        x = scheduler.step(trajectory.eps[k], t, x).prev_sample
        torch.testing.assert_close(trajectory.x_t[k + 1], x, rtol=1e-5, atol=1e-5)


def test_round_trip_error_halves_when_steps_double():
    prior = GaussianMixture({"a": [[1.0, 0.0], [-1.0, 0.5]]}, width=0.4)
    cond, x = prior.condition("a"), torch.tensor([[0.7, 0.2], [-0.9, 0.1], [0.1, -0.3]], dtype=f64)
    errors = []
    for steps in (50, 100, 200):
        up = ddim_invert(prior, x, cond, steps=steps)
        down = ddim(prior, up.x_t[-1], cond, steps=steps, cfg=1.0)
        errors.append((down.x_t[-1] - x).norm().item())
    assert 1.6 < errors[0] / errors[1] < 2.5
    assert 1.6 < errors[1] / errors[2] < 2.5


def test_ddim_on_a_gaussian_converges_to_the_closed_form_at_first_order():
    """For N(y, h^2 I) the ODE keeps (x_t - a_t y) / sqrt(s_t^2 + a_t^2 h^2) constant."""
    prior = GaussianMixture({"a": [[2.0, -1.0]]}, width=0.6)
    s = prior.schedule
    noise, y = prior.noise([0, 1, 2], f64), torch.tensor([2.0, -1.0], dtype=f64)

    def spread(t):
        return (s.sigma[t] ** 2 + (s.alpha[t] * 0.6) ** 2).sqrt()

    exact = s.alpha[0] * y + spread(0) * (noise - s.alpha[999] * y) / spread(999)
    cond = prior.condition("a")
    errors = [
        (ddim(prior, noise, cond, steps, cfg=1.0).x_t[-1] - exact).norm().item()
        for steps in (50, 100, 200)
    ]
    assert errors[-1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.25)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.25)


def test_trajectory_keeps_everything(small_world):
    prior = ImageSet(small_world)
    cond, noise = prior.condition("warm"), prior.noise([0, 1, 2])
    path = ddim(prior, noise, cond, steps=7, cfg=2.0)
    assert path.t.tolist() == prior.schedule.timesteps(7).tolist()
    assert path.x_t.shape == path.eps.shape == path.x0.shape == (8, 3, 3, 8, 8)
    torch.testing.assert_close(path.x_t[0], noise)
    torch.testing.assert_close(path.final, path.x0[-1])
    torch.testing.assert_close(path.images, prior.decode(path.x0[-1]))
    for k in range(8):
        prediction = prior.predict_guided(path.x_t[k], path.t[k], cond, 2.0)
        torch.testing.assert_close(path.eps[k], prediction.eps)
        torch.testing.assert_close(path.x0[k], prediction.x0)


def test_one_network_call_a_level(small_world):
    prior = ImageSet(small_world)
    ddim(prior, prior.noise([0, 1, 2]), prior.condition("warm"), steps=7, cfg=2.0)
    assert prior.evaluations == 8 * 3 * 2


def test_the_kept_path_equals_simulating_again(small_world):
    """A point at t' is what DDIM on the nodes above t' and then t' itself arrives at."""
    prior = ImageSet(small_world)
    cond, e_star = prior.condition("cold"), prior.noise([0, 1, 2], f64)
    nodes = list(range(999, 320, -100))
    path = ddim(prior, e_star, cond, cfg=7.5, levels=nodes)
    t = torch.randint(321, 1000, (5, 3), generator=torch.Generator().manual_seed(1))
    t[0] = torch.tensor([999, 899, 321])
    points = path.point(t)
    for row in range(5):
        for b in range(3):
            level = t[row, b].item()
            again = ddim(
                prior,
                e_star[b : b + 1],
                cond,
                cfg=7.5,
                levels=[n for n in nodes if n > level] + [level],
            )
            torch.testing.assert_close(points[row, b], again.x_t[-1, 0], rtol=1e-10, atol=1e-10)


def test_bad_input(small_world):
    prior = ImageSet(small_world)
    cond, noise = prior.condition("cold"), prior.noise([0])
    for levels in ([10, 20], [20, 20], [1000, 3]):
        with pytest.raises(ValueError, match=r"levels|0\.\.999"):
            ddim(prior, noise, cond, levels=levels)
    with pytest.raises(ValueError, match="rising"):
        ddim_invert(prior, noise, cond, levels=[20, 10])
    with pytest.raises(ValueError, match="steps"):
        ddim(prior, noise, cond, steps=0)
    with pytest.raises(ValueError, match="begins"):
        ddim(prior, noise, cond, levels=[500, 100]).point(torch.tensor([501]))
    with pytest.raises(ValueError, match="expected|shape"):
        ddim(prior, noise[:, :2], cond)


@pytest.mark.parametrize("walk", [ddim, ddim_invert])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_path_stops_at_the_first_value_that_is_not_finite(walk, kind):
    class Broken(Canned):
        asked = 0

        def network(self, x, t):
            self.asked += 1
            output = super().network(x, t)
            output[1, 0, 0, 0] = torch.nan if self.asked == 3 else 0.0
            return output

    prior = Broken(kind)
    levels = [999, 700, 400, 100]
    levels = levels if walk is ddim else levels[::-1]
    with pytest.raises(ValueError, match=rf"step 3 of the path, t = {levels[2]}, items \[1\]; low"):
        walk(prior, prior.noise([0, 1]), prior.condition("a"), cfg=1, levels=levels)
    assert prior.asked == 3  # no more was asked for

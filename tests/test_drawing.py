"""A distribution drawn by hand: its points are what the browser sends, its prior is exact."""

import pytest
import torch

from dsd_lab.viz.drawing import WIDTH, Drawing, Pad, on_drawing, reached, watch_drawing

SPOTS = [(-1.5, 0.0, "A"), (1.5, 0.0, "A"), (0.0, 2.0, "B")]


def test_a_drawing_is_the_exact_prior_of_its_points():
    drawing = Drawing(SPOTS)
    prior = drawing.prior()
    assert prior.prompts == ("A", "B") and str(drawing) == "2 points by pen A, 1 points by pen B"
    assert prior.means.tolist() == [[-1.5, 0.0], [1.5, 0.0], [0.0, 2.0]]
    density = prior.log_density(torch.tensor([[1.5, 0.0]]).double(), 0, prior.condition("A")).exp()
    variance = prior.schedule.alpha[0] ** 2 * WIDTH**2 + prior.schedule.sigma[0] ** 2
    assert float(density) == pytest.approx(float(0.5 / (2 * torch.pi * variance)), rel=1e-3)
    assert Drawing(SPOTS[2:]).prior().prompts == ("B",)


@pytest.mark.parametrize("point", [(0, 3, "A"), (float("nan"), 0, "A"), (0, 0, "C")])
def test_a_drawing_refuses_what_is_no_point_of_it(point):
    with pytest.raises(ValueError, match=r"x and y from -2.5 to 2.5 and pen A or B, got \("):
        Drawing([point])
    with pytest.raises(ValueError, match="pen A or B"):
        Pad(value=[point])
    with pytest.raises(ValueError, match="nothing is drawn yet"):
        Drawing().prior()


def test_a_pad_gets_what_a_browser_sends():
    pad = Pad(value=SPOTS)
    assert pad.get_state("value") == {"value": [list(point) for point in SPOTS]}
    pad.set_state({"value": [[0.5, -1, "B"]]})
    assert pad.value == Drawing([(0.5, -1.0, "B")])
    assert "export default { render }" in str(Pad._esm)


def test_points_are_reached_by_what_is_near_them():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert reached(points, points[:1] + WIDTH) == 0.5
    assert reached(points, points + 4 * WIDTH) == 0


def test_ddim_and_dsd_reach_two_spots_and_sds_goes_between_them():
    experiment = on_drawing(Drawing(SPOTS[:2]), "A", seed=0, cfg=1.0, count=8, steps=60)
    _, before = experiment.look()
    while experiment.take():
        pass
    ends = {name: values[-1] for name, values in experiment.curves.items()}
    assert ends == {"DDIM": 1.0, "SDS": 0.0, "DSD": 1.0} and experiment.index == 60
    seen = experiment.seen()
    assert seen.fact == "drawn points with a result near them: DDIM 100%, SDS 0%, DSD 100%"
    assert seen.fact != before and seen.curve


def test_a_drawing_is_watched_and_says_what_it_lacks():
    explorer = watch_drawing(SPOTS[:2])
    assert explorer.fact.endswith("DDIM 100%, SDS 0%, DSD 100%")
    assert explorer.controls["cfg"].disabled  # one pen alone
    assert "nothing is drawn with pen B" in explorer.set(prompt="B")
    assert (
        explorer.set(drawing=SPOTS).startswith("drawn points")
        and not explorer.controls["cfg"].disabled
    )
    assert "nothing is drawn with pen B" in explorer.set(drawing=[])

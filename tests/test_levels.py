"""The figure of what levels stand for."""

import pytest
import torch

from dsd_lab import NoiseSchedule
from dsd_lab.viz.levels import levels


def test_each_schedule_is_a_line_with_its_range_marked():
    schedules = {"SD": NoiseSchedule.stable_diffusion(), "flow": NoiseSchedule.flow(3.0)}
    (axes,) = levels(schedules, 0.1, 0.9).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SD", "flow"]
    for k, schedule in enumerate(schedules.values()):
        line, dots = axes.lines[2 * k : 2 * k + 2]
        ends = [schedule.level(0.1), schedule.level(0.9)]
        assert list(dots.get_xdata()) == ends
        assert list(dots.get_ydata()) == pytest.approx(schedule.ratio[ends].tolist())
        assert len(line.get_ydata()) == schedule.last + 1  # an infinite r is not drawn
        assert torch.equal(torch.as_tensor(line.get_ydata()), schedule.ratio[: schedule.last + 1])
    assert axes.get_yscale() == "log"

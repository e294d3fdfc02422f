"""What noise the levels of schedules stand for."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from ..schedule import NoiseSchedule
from . import style
from .style import COLOURS, INK, SOFT


@style.theme()
def levels(
    schedules: Mapping[str, NoiseSchedule], t_min: float = 0.02, t_max: float = 0.98
) -> Figure:
    """r_t of schedules, each under its name, against t; on each, dots where a method's range
    t_min..t_max ends (see `NoiseSchedule.level`).
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for k, (name, schedule) in enumerate(schedules.items()):
        colour, ends = (INK, *COLOURS)[k], [schedule.level(t_min), schedule.level(t_max)]
        r = schedule.ratio[: schedule.last + 1]
        axes.plot(range(len(r)), r, color=colour, lw=1.6, label=name)
        axes.plot(ends, r[ends], "o", color=colour, ms=6, mec="white")
    for end in ends:
        axes.axhline(float(r[end]), color=SOFT, lw=0.7, ls=":", zorder=0)
    axes.set(yscale="log", xlabel="t", ylabel="$r_t = \\sigma_t / \\alpha_t$", ylim=(1e-3, 2e3))
    axes.legend(loc="upper left")
    return figure

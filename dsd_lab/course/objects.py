"""The measurements of lesson 08 that take too long for a notebook: `python -m
dsd_lab.course.objects`.

Text to 3-D on the exact prior `toybox`, several seeds of each method. On these two prompts the form
and the levels of DSD were tried, so they are development prompts; `python -m
dsd_lab.course.objects_fresh` has three on which nothing was chosen. How each object looks is kept
as it comes, so the command can be stopped and goes on. What they come to is written to objects.json
beside this file, with the command, versions and seconds, and how they look to objects.png, which
is not shipped. `python -m dsd_lab.course.objects_mini` does the same on `toybox-mini`, `...
.objects_joint` on `toybox-joint`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from ..cameras import HELD_OUT
from ..command import run_module
from ..distill.scenes import SCENE_DSD, Stage
from ..files import write_file
from ..methods import ASD, DSD, SDI, SDS, ConsistentODE, Method
from ..metrics import bootstrap, judge_views, load_judge
from ..priors import load_prior
from ..sampling import ddim
from ..scene import Scene
from ..tasks import text_to_3d
from ..viz.pictures import sheet, small_png
from .measured import JUDGED, Table, Workers

TALL = 20  # rows of a sheet, from which on it gets fewer pixels
SHOWN = [0, 4]  # of HELD_OUT: front right, and the opposite side


@dataclass(frozen=True)
class Study(Table):
    """Objects of several methods from the same seeds, and the table that is made of them.

    prior: by name; about: it in words. runs: by label a method, the steps for which a target is
    held, and seeds. settings: as in `text_to_3d`, for all. yardstick: steps and guidance of DDIM's
    pictures from the same cameras and seeds, each denoised alone; where it is given, the judge of
    toys names all views.
    """

    prior: str = "toybox"
    about: str = "toybox, 64 px, 24 cameras"
    prompts: Sequence[str] = ("a chair", "a dragon")
    runs: Mapping[str, tuple[Method, int, Sequence[int]]] = field(default_factory=dict)
    steps: int = 400
    settings: Mapping[str, object] = field(default_factory=dict)
    yardstick: tuple[int, float] | None = None

    @property
    def picture(self) -> Path:
        """The file with what the objects look like."""
        return self.path.with_suffix(".png")

    def distil(self, prompt: str, label: str, seed: int, progress: Callable) -> Scene:
        """One object of the study."""
        method, refresh, _ = self.runs[label]
        how = {"refresh": refresh, "progress": progress, **self.settings}
        return text_to_3d(load_prior(self.prior), prompt, method, seed, self.steps, **how)

    def sample(self, prompt: str, seeds: Sequence[int]) -> Tensor:
        """The yardstick: what DDIM makes for the held-out cameras, (seeds, V, 3, 64, 64)."""
        prior, pictures = load_prior(self.prior), []
        for seed in seeds:
            cond = prior.condition(prompt, camera=HELD_OUT)
            path = ddim(prior, prior.noise([seed] * len(HELD_OUT)), cond, *self.yardstick)
            pictures.append(path.images.cpu())
        return torch.stack(pictures)

    def judged(self, prompt: str, views: Tensor) -> dict:
        """What views (seeds, V, 3, H, W) are worth; named: the share that the judge of toys takes
        for the prompt, with its interval over seeds.
        """
        report = asdict(judge_views(views, load_prior(self.prior).world, prompt))
        if self.yardstick is None:
            return report
        right = load_judge("toybox").named(views.flatten(0, 1), prompt)
        return report | {"named": bootstrap(right.reshape(views.shape[:2]).double().mean(1))}

    def measure(
        self,
        folder: Annotated[Path | None, typer.Argument(help="Where the objects are kept.")] = None,
        workers: Workers = None,
    ) -> None:
        """Make what is still missing, judge everything, and write the table and the picture."""
        looks = {}

        def judge(prompt, label, views):
            looks[f"{prompt}\n{label}"] = views[:, SHOWN].flatten(0, 1)
            method, refresh, _ = self.runs.get(label, (label, None, None))
            about = {"prompt": prompt, "method": label, "settings": str(method), "refresh": refresh}
            return about | self.judged(prompt, views)

        identity = {
            "prior": self.prior,
            "runs": {
                label: f"{method}, {refresh}" for label, (method, refresh, _) in self.runs.items()
            },
            "steps": self.steps,
            "settings": str(self.settings),
        }
        groups = {(p, label): run[2] for p in self.prompts for label, run in self.runs.items()}
        rows = self.scenes(folder, identity, groups, self.distil, judge, workers=workers)
        seeds, facts = max(groups.values(), key=len), {"steps": self.steps, "judged": JUDGED}
        if self.yardstick is not None:
            rows += [judge(prompt, "DDIM", self.sample(prompt, seeds)) for prompt in self.prompts]
            steps, cfg = self.yardstick
            facts["yardstick"] = f"DDIM, {steps} steps, cfg {cfg:g}, each view alone"
        self.write({"prior": self.about, **facts}, rows=rows)
        heads = [f for seed in seeds for f in (f"seed {seed}", "behind")]
        credit = load_prior(self.prior).world.credit
        figure = sheet(looks, heads, "Each object from two held-out cameras", credit)
        if len(looks) > TALL:  # a lesson has to stay below 2 MB
            figure.set_dpi(0.75 * figure.dpi)
        write_file(self.picture, small_png(figure))


AT_32 = {"stages": (Stage(size=32, resolution=32, share=1.0, views=4),)}
SEEDS, FEWER = range(8), range(4)  # fewer for what only shows why the defaults are what they are
X0 = DSD(form="x0", t_min=0.02)
AS_PUBLISHED = DSD(form="unit", reference_cfg=1.0)  # with the published code's second term
STUDY = Study(
    "objects",
    runs={
        "SDS": (SDS(), 4, SEEDS),
        "DSD unit gain": (SCENE_DSD, 4, SEEDS),
        "DSD unit gain, second cfg 1": (AS_PUBLISHED, 4, SEEDS),
        "DSD x0": (X0, 4, SEEDS),
        "ASD": (ASD(), 4, SEEDS),
        "ASD unit gain": (ASD(rho=0.5), 4, SEEDS),
        "ConsistentODE": (ConsistentODE(), 4, SEEDS),
        "SDI": (SDI(t_first=0.1), 4, SEEDS),
        "SDS, not held": (SDS(), 1, FEWER),
        "DSD x0, not held": (X0, 1, FEWER),
        "DSD ode": (DSD(), 4, FEWER),
        "DSD reference": (DSD(form="reference"), 4, FEWER),
    },
)
load = STUDY.load

if __name__ == "__main__":
    run_module(STUDY.measure)

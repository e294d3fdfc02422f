"""The measurements of lesson 07 that take too long for a notebook: `python -m
dsd_lab.course.objects`.

Text to 3-D on the exact prior `toybox`, several seeds of each method, on prompts that no setting
was chosen on. Each object is kept as it comes, so the command can be stopped and goes on. What they
come to is written to objects.json beside this file, with the command, versions and seconds, and how
they look to objects.png. `python -m dsd_lab.course.objects_mini` does the same on `toybox-mini`,
`... .objects_joint` on `toybox-joint`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from ..cameras import HELD_OUT
from ..distill.scenes import SCENE_DSD
from ..files import slug, write_file
from ..methods import ASD, DSD, SDI, SDS, ConsistentODE, Method
from ..metrics.scenes import judge_views
from ..priors import load_prior
from ..scene import Scene
from ..tasks import text_to_3d
from ..viz.pictures import sheet, small_png

SHOWN = [0, 4]  # of HELD_OUT: front right, and the opposite side


@dataclass(frozen=True)
class Study:
    """Objects of several methods from the same seeds, and the table that is made of them.

    name: of its module and its table. prior: by name; about: it in words. runs: by label a method,
    the steps for which a target is held, and seeds. settings: as in `text_to_3d`, for all.
    packages: whose versions the table states.
    """

    name: str
    prior: str
    about: str
    prompts: Sequence[str]
    runs: Mapping[str, tuple[Method, int, Sequence[int]]]
    steps: int = 400
    settings: Mapping[str, object] = field(default_factory=dict)
    packages: Sequence[str] = ("torch", "dsd_lab")

    @property
    def table(self) -> Path:
        """The table's file, beside this one."""
        return Path(__file__).parent / f"{self.name}.json"

    @property
    def picture(self) -> Path:
        """The file with what the objects look like."""
        return self.table.with_suffix(".png")

    def measure(
        self,
        folder: Annotated[Path | None, typer.Argument(help="Where the objects are kept.")] = None,
    ) -> None:
        """Make what is still missing, judge everything, and write the table and the picture."""
        folder = folder or Path("results") / self.name
        prior, rows, looks = load_prior(self.prior), [], {}
        folder.mkdir(parents=True, exist_ok=True)
        cells = [
            (prompt, label, seed)
            for label in self.runs
            for prompt in self.prompts
            for seed in self.runs[label][2]
        ]
        seconds: dict[tuple[str, str], list[float]] = {}
        for prompt, label, seed in tqdm(cells, disable=None):
            file = folder / f"{slug(prompt)}-{slug(label)}-{seed}.safetensors"
            note = file.with_suffix(".seconds")
            if not note.is_file():
                method, refresh, _ = self.runs[label]
                began = time.perf_counter()
                text_to_3d(
                    prior, prompt, method, seed, self.steps, refresh=refresh, **self.settings
                ).save(file)
                write_file(note, f"{time.perf_counter() - began:.1f}")
            seconds.setdefault((prompt, label), []).append(float(note.read_text()))
        for prompt in self.prompts:
            for label, (method, refresh, seeds) in self.runs.items():
                files = [
                    folder / f"{slug(prompt)}-{slug(label)}-{seed}.safetensors" for seed in seeds
                ]
                views = torch.stack([Scene.load(file).images(HELD_OUT, 64) for file in files])
                looks[f"{prompt}\n{label}"] = views[:, SHOWN].flatten(0, 1)
                report = judge_views(views, prior.world, prompt)
                own = seconds[prompt, label]
                rows.append(
                    {
                        "prompt": prompt,
                        "method": label,
                        "settings": str(method),
                        "refresh": refresh,
                        **asdict(report),
                        "seconds": sum(own) / len(own),
                    }
                )
        about = {
            "command": f"python -m dsd_lab.course.{self.name}",
            "prior": self.about,
            "steps": self.steps,
            "judged": f"{len(HELD_OUT)} held-out cameras, 64 px",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            **{name: version(name) for name in self.packages},
        }
        write_file(self.table, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
        seeds = max((seeds for _, _, seeds in self.runs.values()), key=len)
        heads = [head for seed in seeds for head in (f"seed {seed}", "behind")]
        write_file(
            self.picture,
            small_png(
                sheet(looks, heads, "Each object from two held-out cameras", prior.world.credit)
            ),
        )

    def load(self) -> dict:
        """The table: {"about", "rows"}: what was run, and a row for each prompt and method."""
        return json.loads(self.table.read_text(encoding="utf-8"))


SEEDS, FEWER = range(8), range(4)  # fewer for what only shows why the defaults are what they are
STUDY = Study(
    "objects",
    "toybox",
    "toybox, 64 px, 24 cameras",
    ["a chair", "a dragon"],
    {
        "SDS": (SDS(), 4, SEEDS),
        "DSD": (SCENE_DSD, 4, SEEDS),
        "ASD": (ASD(), 4, SEEDS),
        "ConsistentODE": (ConsistentODE(), 4, SEEDS),
        "SDI": (SDI(t_first=0.1), 4, SEEDS),
        "SDS, not held": (SDS(), 1, FEWER),
        "DSD, not held": (SCENE_DSD, 1, FEWER),
        "DSD ode": (DSD(), 4, FEWER),
        "DSD reference": (DSD(form="reference"), 4, FEWER),
    },
)
load = STUDY.load

if __name__ == "__main__":
    typer.run(STUDY.measure)

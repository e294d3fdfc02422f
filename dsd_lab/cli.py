"""The `dsd-lab` command: the main job without a browser, the course in one, and the notebooks
re-executed.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from .checks import meant
from .command import run as run_command
from .course.measured import Workers
from .files import expanded, prepare_folder, write_file
from .methods import VARIANTS, variant
from .priors import Prior, load_prior
from .tasks import compare

app = typer.Typer(
    help="Score distillation on a laptop: DDIM, SDS and DSD from the same seeds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

METHOD_NAMES = tuple(VARIANTS)


def make_method(name: str, cfg: float):
    """(label, method object) for a name on the command line. Raises ValueError with the names there
    are.
    """
    chosen = variant(name)
    return chosen.label, chosen.make(cfg=cfg)


MOST_SEEDS = 100_000


def parse_seeds(text: str) -> list[int]:
    """Seeds from "16" (0 to 15), "3,5,8" or "10-20". Raises ValueError for anything else."""
    allowed = "give a count (16), a list (3,5,8) or a range (10-20)"
    try:
        if "-" in text:
            first, last = map(int, text.split("-"))
            seeds = range(first, last + 1)
        else:
            seeds = [int(p) for p in text.split(",")] if "," in text else range(int(text))
        if len(seeds) > MOST_SEEDS:
            raise OverflowError
    except ValueError:
        raise ValueError(f'cannot read the seeds "{text}"; {allowed}') from None
    except OverflowError:
        raise ValueError(f'"{text}" are too many seeds, at most {MOST_SEEDS}; {allowed}') from None
    if not seeds:
        raise ValueError(f'"{text}" names no seed; {allowed}')
    return list(seeds)


def prior_of_prompts(name: str, size: int) -> Prior:
    """A prior of pictures, to be asked by prompts. Raises ValueError for another."""
    prior = load_prior(name, size=size)
    if prior.asked_by != "prompt":
        raise ValueError(
            f'"{name}" is asked by a {prior.asked_by}, not by a prompt: use dsd_lab.image_to_3d'
        )
    if prior.cameras is not None:
        raise ValueError(
            f'"{name}" is asked for views from cameras, not for a picture: use dsd_lab.text_to_3d'
        )
    return prior


def notebooks_folder() -> Path:
    """The course's folder. Raises ValueError if it is neither here nor beside the library."""
    for folder in (Path.cwd() / "notebooks", Path(__file__).resolve().parent.parent / "notebooks"):
        if (folder / "00_start_here.ipynb").is_file():
            return folder
    raise ValueError(
        "no notebooks found: run this in a clone of the project, where "
        "notebooks/00_start_here.ipynb is"
    )


def lessons_named(names: list[str] | None) -> list[Path]:
    """The notebooks of these names, all if none. Raises ValueError with the names there are."""
    lessons = {path.name: path for path in sorted(notebooks_folder().glob("*.ipynb"))}
    names = [Path(name).name for name in names] if names else list(lessons)
    names = [meant(name, lessons) or name for name in names]
    for name in names:
        if name not in lessons:
            raise ValueError(f"no notebook {name}; there are: {', '.join(lessons)}")
    return [lessons[name] for name in names]


Prompts = Annotated[list[str], typer.Option(help="A prompt; repeat for several.")]
Methods = Annotated[
    list[str], typer.Option(help=f"A method; repeat for several: {', '.join(METHOD_NAMES)}.")
]
Seeds = Annotated[str, typer.Option(help="A count (16), a list (3,5,8) or a range (10-20).")]
PriorName = Annotated[
    str, typer.Option(help='"icons", "icons-mini", a folder of pictures, or one of a pipeline.')
]
Size = Annotated[int, typer.Option(help="Side of the pictures in pixels.")]
Start = Annotated[
    str | None,
    typer.Option(help="zeros or x0hat, for all methods; each method's own if not given."),
]
Rate = Annotated[
    float | None,
    typer.Option(help="Learning rate, for all methods; each method's own if not given."),
]
Refresh = Annotated[int, typer.Option(help="Optimiser steps for which a target is held.")]
Dask = Annotated[
    str | None,
    typer.Option(help="A Dask scheduler's address or file, whose workers share the work."),
]
PROMPTS = ["a hamburger", "a dragon", "an apple"]


@app.command()
def run(
    prompt: Prompts = PROMPTS,
    method: Methods = ["sds", "dsd", "dsd-reference", "dsd-star"],
    seeds: Seeds = "16",
    steps: Annotated[int, typer.Option(help="Optimisation steps.")] = 300,
    cfg: Annotated[float, typer.Option(help="Guidance: e_u + cfg (e_c - e_u); 1 is none.")] = 7.5,
    prior: PriorName = "icons",
    size: Size = 64,
    start: Start = None,
    lr: Rate = None,
    refresh: Refresh = 1,
    out: Annotated[
        Path, typer.Option(help="Folder for the grids, results.json and report.html.")
    ] = Path("results"),
) -> None:
    """Make pictures by DDIM and by distillation from the same seeds; measure them; write grids,
    numbers and a report.
    """
    from .studies.report import deviations, table_text, write_report

    numbers, methods = parse_seeds(seeds), dict(make_method(name, cfg) for name in method)
    model = prior_of_prompts(prior, size)
    prompts = list(dict.fromkeys(model.resolve(p) for p in prompt))
    folder, settings = prepare_folder(out), {"start": start, "lr": lr, "refresh": refresh}
    with tqdm(total=1, leave=False) as bar:

        def show(name, running):
            bar.total, bar.n = running.steps, running.index
            bar.set_description(name, refresh=False)
            bar.update(0)

        comparisons = compare(
            model, prompts, methods, numbers, steps, cfg=cfg, progress=show, **settings
        )
    about = {"prior": prior, "size": size, "steps": steps, "cfg": cfg}
    credit = model.world.credit if model.world else ""
    page = write_report(folder, comparisons, numbers, about, credit)
    for wanted, results in comparisons.items():
        typer.echo(f"\n{wanted}\n{table_text(results)}")
    name, last = list(results.items())[-1]
    if not last.finished:
        typer.echo(f"\nstopped early, in {name}: the report holds what there is")
    typer.echo("\n".join(["\nSettings", *deviations(results), "", str(page)]))


@app.command()
def study(
    prompt: Prompts = PROMPTS,
    method: Methods = ["sds", "asd", "dsd", "dsd-star"],
    seeds: Seeds = "16",
    cfg: Annotated[list[float], typer.Option(help="Guidance; repeat for several.")] = [7.5],
    steps: Annotated[list[int], typer.Option(help="Optimisation steps; several too.")] = [300],
    prior: PriorName = "icons",
    size: Size = 64,
    start: Start = None,
    lr: Rate = None,
    refresh: Refresh = 1,
    workers: Workers = None,
    dask: Dask = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the table, the cells, ranking.txt and the figures.")
    ] = Path("study"),
) -> None:
    """Run methods x prompts x seeds x settings, keeping each result as it comes; the same command
    again goes on, with any number of workers.
    """
    from .studies import Grid, Setting, ranking, summarise
    from .studies import study as run_study
    from .studies.executor import dask_client
    from .studies.figures import figures
    from .viz.pictures import png

    settings = [
        Setting(cfg=c, steps=s, lr=lr, start=start, refresh=refresh) for c in cfg for s in steps
    ]
    methods = dict(make_method(name, 7.5) for name in method)
    grid = Grid(methods, prompt, parse_seeds(seeds), settings)
    if workers is not None and dask is not None:
        raise ValueError("give --workers or --dask, not both")
    executor = workers if dask is None else dask_client(dask)
    model, out = prior_of_prompts(prior, size), expanded(out)
    done = run_study(model, grid, out, executor=executor)
    if not done.cells:
        typer.echo("stopped before there was anything; the same command goes on")
        return
    text = ranking(summarise(out))
    page = write_file(out / "ranking.txt", text + "\n")
    for name, figure in figures(out).items():
        write_file(out / f"{name}.png", png(figure))
    typer.echo(f"\n{text}\n")
    if not done.finished:
        typer.echo("not complete; the same command goes on")
    typer.echo(page)


@app.command()
def prompts(prior: Annotated[str, typer.Option(help="As for `run`.")] = "icons") -> None:
    """List a prior's prompts and how many pictures or objects each has."""
    model = load_prior(prior)
    if model.world is None:
        typer.echo(f"{model.name} takes any text as a prompt")
        return
    for name in model.prompts:
        typer.echo(f"{len(model.world.index(name)):>4}  {name}")


@app.command()
def train(
    world: Annotated[
        str,
        typer.Argument(
            help='"icons", "toybox", "toybox-multi-view", "toybox-novel-view", or a folder of a '
            "folder a label."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The pipeline's folder; the same command again goes on.")
    ] = Path("my-mini"),
    steps: Annotated[
        int | None, typer.Option(help="Steps of the network; the recipe's if not given.")
    ] = None,
    autoencoder_steps: Annotated[
        int | None, typer.Option(help="Steps of the autoencoder; the recipe's if not given.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures in a step of the network.")] = None,
    lr: Annotated[float | None, typer.Option(help="The network's learning rate.")] = None,
    start: Annotated[
        str | None, typer.Option(help="A mini, or a pipeline's folder, to train on from.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights and the draws.")] = 0,
    precision: Annotated[
        str, typer.Option(help="no, bf16 or fp16 (mixed precision, on a GPU).")
    ] = "no",
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, ...; for several: `accelerate launch -m dsd_lab.cli train ...`, "
            "on CPUs `torchrun --nproc-per-node N -m ...`."
        ),
    ] = "auto",
    every: Annotated[int, typer.Option(help="Steps between checkpoints and pictures.")] = 250,
) -> None:
    """Train a mini: a small, complete pipeline, written as a diffusers folder."""
    from accelerate import PartialState

    from .checks import at_least
    from .minis import task_of
    from .minis import train as run_training
    from .priors.network import pick_device
    from .viz.pictures import png

    at_least("every", every)
    pick_device(device)
    folder = prepare_folder(out / "samples")
    settings = {"steps": steps, "autoencoder_steps": autoencoder_steps, "batch": batch}
    settings |= {"lr": lr, "start": start}
    settings = {name: value for name, value in settings.items() if value is not None}
    task = task_of(world, seed=seed, precision=precision, **settings)

    def samples(mini, step):
        write_file(folder / f"{step:06d}.png", png(task.preview(mini, f"step {step}")))

    run_training(task, out, device=device, every=every, samples=samples)
    if PartialState().is_main_process:
        typer.echo(f'{out}: a pipeline folder; dsd_lab.load_prior("{out}") opens it')


@app.command()
def quality(
    name: Annotated[
        str, typer.Argument(help="A mini: a shipped one, or a folder that `dsd-lab train` wrote.")
    ],
    world: Annotated[
        str | None, typer.Option(help="What it has seen, as for `train`; shipped ones know.")
    ] = None,
    cfg: Annotated[
        float | None, typer.Option(help="Guidance; 4, of new views 2, if not given.")
    ] = None,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 25,
    card: Annotated[
        bool, typer.Option(help="Write the model card and the sheet of samples into its folder.")
    ] = False,
) -> None:
    """Measure a mini: whether samples show what was asked for, how near they are to the training's
    pictures, how diverse.
    """
    from .minis.card import write_card
    from .minis.exams import exam_of
    from .minis.parts import mini_folder
    from .priors import load_pipeline
    from .worlds import folder, icons, toy_shop

    if world is None:
        prior = load_prior(name)
    else:
        worlds = {"icons": icons, "toybox": toy_shop, "toybox-novel-view": lambda: None}
        worlds["toybox-multi-view"] = toy_shop
        known = meant(world, worlds)
        seen = worlds[known]() if known else folder(world)
        prior = load_pipeline(name, world=seen, name=Path(name).name)
    exam = exam_of(prior)
    measured, samples = exam.measure(steps, cfg)
    for key, value in measured.items():
        typer.echo(f"{key:<16} {value:.3f}" if isinstance(value, float) else f"{key:<16} {value}")
    if card:
        write_card(exam, measured, samples, mini_folder(name))


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="here (toys, on the CPU) or gpu (full size).")],
    shape: Annotated[
        list[str], typer.Option(help="Of the network: sd-2.1, sdxl, sd3; repeat for several.")
    ] = ["sd-2.1", "sdxl", "sd3"],
    size: Annotated[list[int], typer.Option(help="Pixels a side; repeat for several.")] = [64, 512],
    steps: Annotated[int, typer.Option(help="Of each run.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cuda, mps, cpu, ...")] = "auto",
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Tiny networks: only whether it runs.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the table goes as JSON.")] = Path("bench.json"),
) -> None:
    """Time the methods on this machine; on networks of real sizes, which have random weights."""
    from .checks import at_least, choice

    if choice("bench", what, ("here", "gpu")) == "here":
        from .studies.bench import main as of_toys

        return of_toys()
    from .course.gpu import bench as of_networks

    at_least("steps", steps)
    of_networks(out, shape, size, steps, device, tiny=tiny)
    typer.echo(out)


@app.command()
def lab() -> None:
    """Open the course in JupyterLab."""
    page = notebooks_folder() / "00_start_here.ipynb"
    raise SystemExit(subprocess.call([sys.executable, "-m", "jupyter", "lab", str(page)]))


@app.command()
def notebooks(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="File names such as 01_ddim_trajectories.ipynb; all if none."),
    ] = None,
) -> None:
    """Re-execute notebooks from top to bottom and save them; one that fails is left as it was."""
    from nbclient.exceptions import CellExecutionError

    from .course.execute import execute

    for lesson in lessons_named(names):
        try:
            typer.echo(f"{lesson.name}: {execute(lesson):.0f} s")
        except CellExecutionError as error:
            typer.echo(f"{error}\n{lesson.name} failed and is left as it was", err=True)
            raise typer.Exit(1) from None


@app.command()
def handout(
    folder: Annotated[Path, typer.Argument(help="Where the copies go.")],
    names: Annotated[
        list[str] | None, typer.Argument(help="As for `notebooks`; all if none.")
    ] = None,
    otter: Annotated[
        bool, typer.Option("--otter", help="The exercises alone, as otter-grader's assignments.")
    ] = False,
) -> None:
    """Write copies of the lessons for students: without solutions and outputs."""
    from .course.handout import hand_out
    from .course.otter import hand_out_otter

    for path in (hand_out_otter if otter else hand_out)(lessons_named(names), folder):
        typer.echo(path)


@app.command()
def book(
    out: Annotated[Path, typer.Argument(help="The book's folder; an earlier book is replaced.")],
    notebooks: Annotated[
        Path | None, typer.Option(help="The folder of lessons; the course's if not given.")
    ] = None,
) -> None:
    """Make a book of the lessons as they are stored: static pages, to be read without a network."""
    from .course.book import build

    page, warnings = build(notebooks or notebooks_folder(), out)
    for warning in warnings:
        typer.echo(warning, err=True)
    typer.echo(page)


@app.command()
def grade(
    folder: Annotated[Path, typer.Argument(help="Holds the submitted notebooks, at any depth.")],
    seconds: Annotated[int, typer.Option(help="For each submission.")] = 120,
    memory: Annotated[int, typer.Option(help="For each submission, in MB.")] = 4000,
    out: Annotated[Path, typer.Option(help="The table, for a spreadsheet.")] = Path("grades.csv"),
) -> None:
    """Grade submitted notebooks by their checks, each in a process of its own, into a table."""
    from .course.grading import Limits, as_csv, columns, without
    from .course.grading import grade as run_grading
    from .metrics import aligned

    for missing in without():
        typer.echo(f"not on this system: {missing}; grade what you trust", err=True)
    grades = run_grading(folder, Limits(seconds, memory), partial(typer.echo, err=True))
    numbers, sign = columns(grades), {"right": "right", "": ""}
    rows = {
        each.submission: {n: sign.get(each.answers.get(n, ""), "not yet") for n in numbers}
        | {"right": str(each.right), "points": str(each.points), "remark": each.remark}
        for each in grades
    }
    write_file(out, as_csv(grades))
    typer.echo(f"{aligned(rows)}\n{out}")


def main() -> None:
    """The command's entry."""
    run_command(app, "dsd-lab")


if __name__ == "__main__":
    main()

"""Exercises: the right answer is right, and each known mistake gets its own hint."""

import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from device import MOCK
from test_exercises_3d import SOLUTIONS as SCENES
from test_exercises_more import SOLUTIONS as MORE

from dsd_lab.course.exercises import EXERCISES, RECORD, check
from dsd_lab.course.exercises.limits import TimeIsUp, within
from dsd_lab.course.exercises.record import Explain, Implement, Predict
from dsd_lab.schedule import NoiseSchedule

LESSONS = Path(__file__).parents[1] / "notebooks"
schedule = NoiseSchedule.stable_diffusion()
alpha, sigma, r = schedule.alpha, schedule.sigma, schedule.ratio


def dsd(predict, x, n, t, t_prime, cfg):
    def guided(level):
        e_u, e_c = predict(alpha[level] * x + sigma[level] * n, level)
        return e_u + cfg * (e_c - e_u)

    return r[t] * (guided(t) - guided(t_prime))


def denoise(x_t, t, y, width):
    variance = alpha[t] ** 2 * width**2 + sigma[t] ** 2
    away = x_t[:, None] - alpha[t] * y
    weights = (-away.square().sum(2) / (2 * variance)).softmax(dim=1)
    return (weights[:, :, None] * (y + alpha[t] * width**2 / variance * away)).sum(1)


def loss(epsilon, x, t, n):
    g = sigma[t] ** 2 * (epsilon(alpha[t] * x + sigma[t] * n, t) - n)
    return 0.5 * (x - (x - g).detach()).square().sum()


def cfd(predict, x, e_star, t, cfg):
    e_u, e_c = predict(alpha[t] * x + sigma[t] * e_star, t)
    return r[t] * (e_u + cfg * (e_c - e_u) - e_star)


SOLUTIONS = {"01.1": 0.2, "01.2": denoise, "01.3": "b", "02.1": 0.5, "02.2": loss, "02.3": "d"}
SOLUTIONS |= {"03.1": 0.85, "03.2": dsd, "03.3": "c", "04.1": 6.5 / 7.5, "04.2": cfd, "04.3": "a"}
SOLUTIONS |= MORE | SCENES


def mistakes():
    for number, exercise in EXERCISES.items():
        for hint in exercise.mistakes:
            yield pytest.param(exercise, hint, id=f"{number} {hint[:30]}")


def answer_of(exercise, hint):
    """What somebody who makes this mistake hands in."""
    wrong = exercise.mistakes[hint]
    return {"predict": wrong, "implement": lambda: wrong, "explain": lambda: hint}[exercise.kind]()


@pytest.mark.parametrize("number", EXERCISES)
def test_the_solution_is_right(number):
    verdict = check(number, SOLUTIONS[number])
    assert verdict.right, verdict
    assert str(verdict) == f"{number} right: {EXERCISES[number].praise}"


@pytest.mark.parametrize(("exercise", "hint"), list(mistakes()))
def test_each_mistake_gets_its_own_hint(exercise, hint):
    verdict = check(exercise.number, answer_of(exercise, hint))
    text = exercise.mistakes[hint] if exercise.kind == "explain" else hint
    assert not verdict.right and verdict.text == text


@pytest.mark.parametrize("number", EXERCISES)
def test_an_exercise_knows_at_least_four_mistakes_and_waits_for_an_answer(number):
    exercise = EXERCISES[number]
    assert len(exercise.mistakes) >= 4
    for nothing in (None, ...):
        assert check(number, nothing).text == "there is no answer yet."


def test_each_lesson_has_one_of_each_kind():
    kinds = {}
    for number, exercise in EXERCISES.items():
        kinds.setdefault(number[:2], []).append(type(exercise))
    assert all(kind == [Predict, Implement, Explain] for kind in kinds.values())


def forever(*_):
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass


def leaves(*_):
    raise SystemExit("bye")


GENERIC = {
    "nothing": (lambda *_: None, "it returned nothing"),
    "no function": (torch.zeros(4, 2), "give the function itself; this is Tensor"),
    "no tensor": (lambda *_: [1.0], "it returned list, not a tensor"),
    "shape": (lambda *a: dsd(*a)[0], "the shape should be (4, 2), as the library's answer; it is"),
    "nan": (lambda *a: dsd(*a) / 0, "it holds NaN or infinity"),
    "raises": (lambda *a: a[7], "it raised IndexError: tuple index out of range"),
    "leaves": (leaves, "it raised SystemExit: bye"),
    "arguments": (lambda x: x, "it raised TypeError"),
    "a factor": (lambda *a: 3 * dsd(*a), "the result is 3 times the right one"),
    "fresh noise": (
        lambda predict, x, n, *a: dsd(predict, x, torch.randn_like(n), *a),
        "the same arguments gave two results, so it draws random numbers of its own. DSD's noise",
    ),
    "noise of its own seed": (
        lambda predict, x, n, *a: dsd(predict, x, torch.ones_like(n), *a),
        "the result does not depend on n, which is given",
    ),
    "anything": (lambda *a: dsd(*a) + 1, "the result is off by"),
}


@pytest.mark.parametrize("name", GENERIC)
def test_what_can_go_wrong_in_any_function_is_told(name):
    answer, text = GENERIC[name]
    verdict = check("03.2", answer)
    assert not verdict.right and verdict.text.startswith(text)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda epsilon, x, t, n: x - n, "a loss is one number; this is of shape (4, 2)"),
        (lambda epsilon, x, t, n: loss(epsilon, x.detach(), t, n), "the loss does not depend on x"),
        (lambda epsilon, x, t, n: n.requires_grad_().sum(), "the loss does not depend on x"),
        (lambda epsilon, x, t, n: None, "it returned nothing"),
    ],
)
def test_what_can_go_wrong_in_a_loss_is_told(wrong, text):
    assert check("02.2", wrong).text.startswith(text)


def test_another_loss_of_the_same_gradient_is_right():
    def linear(epsilon, x, t, n):
        return (x * sigma[t] ** 2 * (epsilon(alpha[t] * x + sigma[t] * n, t) - n).detach()).sum()

    assert check("02.2", linear).right


def test_single_precision_is_right_too():
    def in_float32(predict, x, n, *levels):
        return dsd(predict, x, n, *levels).float()

    assert check("03.2", in_float32).right


def test_an_answer_on_another_device_is_right_too():
    assert check("03.2", lambda *arguments: dsd(*arguments).float().to(MOCK)).right
    assert check("03.1", torch.tensor(0.85).to(MOCK)).right


def test_an_answer_may_change_its_arguments():
    def greedy(predict, x, n, *levels):
        g = dsd(predict, x, n, *levels)
        x.zero_(), n.zero_()
        return g

    assert check("03.2", greedy).right


def test_a_loop_without_end_is_stopped():
    verdict = replace(EXERCISES["03.2"], seconds=0.1).verdict(forever)
    assert verdict.text == "it was stopped after 0.1 s; is there a loop that never ends?"
    with pytest.raises(TimeIsUp):
        within(0.05, forever)
    assert within(5, lambda: 3) == 3


def test_numbers_and_letters_are_read_leniently():
    assert check("03.1", torch.tensor(0.852)).right and check("03.1", "0.85").right
    assert "one number; this is list" in check("03.1", [1]).text
    assert check("03.1", float("nan")).text == "NaN is no number."
    assert check("03.1", 12).text == "not this number."
    assert check("03.3", " C").right
    assert check("03.3", "z").text == "the answer is one of the letters a, b, c, d, e."


def test_an_unknown_exercise_is_named():
    with pytest.raises(ValueError, match='unknown exercise "03.7"'):
        check("03.7", 1)


def test_verdicts_are_recorded_where_asked(tmp_path, monkeypatch):
    monkeypatch.setenv(RECORD, str(tmp_path / "verdicts"))
    check("03.3", "a"), check("03.3", "c")
    lines = (tmp_path / "verdicts").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 and '"right": true' in lines[1]


@pytest.mark.parametrize("number", EXERCISES)
def test_a_lesson_asks_each_exercise_and_solves_it_in_a_collapsed_cell(number):
    (lesson,) = LESSONS.glob(f"{number[:2]}_*.ipynb")
    cells = nbformat.read(lesson, as_version=4).cells
    asked, solved = (
        cell for cell in cells if cell.cell_type == "code" and f'check("{number}"' in cell.source
    )
    assert asked.metadata.tags == ["exercise"] and solved.metadata.tags == ["solution"]
    assert solved.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}
    for cell, start in ((asked, f"{number} not yet: "), (solved, f"{number} right: ")):
        assert cell.outputs[-1].data["text/plain"].startswith(start)

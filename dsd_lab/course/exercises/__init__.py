"""The lessons' exercises, which tell right from wrong: `check("03.2", answer)`."""

import json
import os
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ...checks import choice
from .record import Exercise, Verdict

# a file lesson_NN.py for each lesson, in the order of their numbers
NAMES = sorted(file.name for file in iter_modules(__path__) if file.name.startswith("lesson_"))
LESSONS = [import_module(f"{__name__}.{name}") for name in NAMES]
EXERCISES: dict[str, Exercise] = {e.number: e for lesson in LESSONS for e in lesson.EXERCISES}

# names a file that each verdict is appended to, for `dsd-lab grade`
RECORD = "DSD_LAB_VERDICTS"


def check(number: str, answer: Any) -> Verdict:
    """Whether the answer to an exercise is right, with the hint that fits the mistake.

    number: lesson and exercise, such as "03.2". answer: a number, a letter, or the function that
    was to be written, which is tried on hidden questions against the library. None and `...` are no
    answer yet. Raises ValueError for an unknown number; a wrong answer is never an error.
    """
    verdict = EXERCISES[choice("exercise", number, EXERCISES)].verdict(answer)
    if place := os.environ.get(RECORD):
        with open(place, "a", encoding="utf-8") as file:
            file.write(json.dumps(verdict._asdict()) + "\n")
    return verdict

"""Small complete pipelines, trained on the project's own worlds: recipes, training, exams and model
cards.
"""

import os
from dataclasses import replace

from ..checks import meant
from ..files import find_path
from ..worlds import folder, icons
from .data import TrainingSet
from .novel_view import NovelView
from .recipe import RECIPES, Recipe
from .text_to_image import TextToImage
from .training import Task, train

__all__ = ["RECIPES", "NovelView", "Recipe", "TextToImage", "TrainingSet", "task_of", "train"]


def task_of(world: str, **changes) -> Task:
    """The task of a mini of "icons", "toybox", "toybox-multi-view", "toybox-novel-view", or a
    folder of pictures with a sub-folder for each label.

    changes: of its recipe's settings, which are checked before the data is made.
    """
    if not os.path.isdir(find_path(world)):
        world = meant(world, RECIPES) or world
    recipe = replace(RECIPES.get(world, Recipe()), **changes)
    if world == "toybox-novel-view":
        return NovelView(TrainingSet.toy_pairs(), recipe)
    if world == "toybox":
        return TextToImage(TrainingSet.toys(), recipe)
    if world == "toybox-multi-view":
        return TextToImage(TrainingSet.toys(together=4), recipe, together=4)
    return TextToImage(TrainingSet.of(icons() if world == "icons" else folder(world)), recipe)

"""The optimisation loop: what can be driven, stopped and resumed; on pictures and on scenes."""

from .pictures import LEARNING_RATE, OPTIMIZERS, STARTS, Loop, Run, Step, check_settings, distill
from .scenes import SCENE_DSD, STAGES, SceneRun, SceneStep, Stage, distill_scene

__all__ = [
    "LEARNING_RATE",
    "OPTIMIZERS",
    "SCENE_DSD",
    "STAGES",
    "STARTS",
    "Loop",
    "Run",
    "SceneRun",
    "SceneStep",
    "Stage",
    "Step",
    "check_settings",
    "distill",
    "distill_scene",
]

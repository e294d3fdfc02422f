"""The optimisation loop: what can be driven, stopped and resumed; on pictures and on scenes."""

from .loop import LEARNING_RATE, OPTIMIZERS, STARTS, Loop, check_settings
from .pictures import Run, Step, distill
from .scenes import SCENE_DSD, SceneRun, SceneStep, distill_scene
from .settings import STAGES, SceneSettings, Stage, fit_stages
from .setups import diverse_score_distillation

__all__ = [
    "LEARNING_RATE",
    "OPTIMIZERS",
    "SCENE_DSD",
    "STAGES",
    "STARTS",
    "Loop",
    "Run",
    "SceneRun",
    "SceneSettings",
    "SceneStep",
    "Stage",
    "Step",
    "check_settings",
    "distill",
    "distill_scene",
    "diverse_score_distillation",
    "fit_stages",
]

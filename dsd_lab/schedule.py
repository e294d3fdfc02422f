"""The noise schedule: how much signal and how much noise a picture holds at timestep t.

x_t = alpha[t] x0 + sigma[t] eps,  alpha[t]^2 + sigma[t]^2 = 1,  t = 0 (clean) ... T - 1 (noisiest)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .checks import choice
from .shapes import Batch

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Signal and noise levels of a variance-preserving diffusion, and what a network's output
    means.

    Shapes: `alphas_cumprod`, `alpha`, `sigma`, `ratio` are float64 tensors (T,).
    Source: DDPM (arXiv 2006.11239) with the notation of DDIM (arXiv 2010.02502); v from arXiv
    2202.00512.
    """

    alphas_cumprod: Tensor
    prediction_type: str = "epsilon"

    def __post_init__(self):
        choice("prediction type", self.prediction_type, PREDICTION_TYPES)
        acp = self.alphas_cumprod
        falls = acp.ndim == 1 and len(acp) > 1 and bool((acp[1:] < acp[:-1]).all())
        if not falls or acp[0] >= 1 or acp[-1] < 0:
            raise ValueError(
                "alphas_cumprod must be a 1-D tensor that falls strictly within 1 > ... >= 0"
            )
        check_end(acp, self.prediction_type)
        object.__setattr__(self, "alphas_cumprod", acp.to(torch.float64))

    @classmethod
    def from_diffusers(cls, scheduler) -> NoiseSchedule:
        """The schedule of a diffusers scheduler, given as the object or as its config mapping.

        Computed here in float64 from the betas' formula (diffusers accumulates in float32).
        Raises ValueError for a beta schedule or prediction type that is not supported, for flow
        matching, and for epsilon predictions with zero terminal SNR.
        """
        config = scheduler if isinstance(scheduler, Mapping) else scheduler.config
        refuse_flow(config)
        prediction = config.get("prediction_type", "epsilon")
        acp = torch.cumprod(1 - _betas(config), dim=0)
        if config.get("rescale_betas_zero_snr"):
            # arXiv 2305.08891, algorithm 1: shift and stretch sqrt(acp) so that the last level is
            # pure noise
            root = acp.sqrt()
            acp = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return cls(acp, prediction)

    @classmethod
    def stable_diffusion(cls, prediction_type: str = "epsilon") -> NoiseSchedule:
        """Stable Diffusion's schedule (scaled linear, 0.00085 to 0.012, 1000 steps)."""
        return cls.from_diffusers(STABLE_DIFFUSION | {"prediction_type": prediction_type})

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def alpha(self) -> Tensor:
        return self.alphas_cumprod.sqrt()

    @cached_property
    def sigma(self) -> Tensor:
        return (1 - self.alphas_cumprod).sqrt()

    @cached_property
    def ratio(self) -> Tensor:
        """r_t = sigma / alpha, the noise-to-signal ratio (infinite at a zero-SNR level)."""
        return self.sigma / self.alpha

    def check(self, t: int | Tensor) -> Tensor:
        """`t` as an int64 tensor, () or (B,). Raises TypeError or ValueError unless it holds
        integers in 0..T-1.
        """
        t = torch.as_tensor(t)
        if t.dtype.is_floating_point or t.dtype == torch.bool or t.ndim > 1:
            raise TypeError(
                f"t must be an int or a 1-D tensor of ints in 0..{len(self) - 1}, "
                f"got {t.dtype} of shape {tuple(t.shape)}"
            )
        if bool((t < 0).any() | (t >= len(self)).any()):
            raise ValueError(f"t must lie in 0..{len(self) - 1}, got {t.tolist()}")
        return t.long()

    def at(self, name: str, t: int | Tensor, like: Tensor) -> Tensor:
        """`alpha`, `sigma` or `ratio` at t, in the dtype and on the device of `like`, shaped to
        multiply it.
        """
        values = getattr(self, name)[self.check(t).cpu()].to(like.device, like.dtype)
        return values.reshape(-1, *(1,) * (like.ndim - 1)) if values.ndim else values

    def add_noise(self, x0: Batch, t: int | Tensor, eps: Batch) -> Batch:
        """x_t = alpha x0 + sigma eps; x0 and eps (B, ...)."""
        return self.at("alpha", t, x0) * x0 + self.at("sigma", t, x0) * eps

    # What a network's output at (x_t, t) stands for. Both come from the native output, so that v
    # and sample prediction never divide by a small alpha. v = alpha eps - sigma x0.

    def to_eps(self, output: Batch, x_t: Batch, t: int | Tensor) -> Batch:
        """The noise in x_t, like x_t."""
        if self.prediction_type == "epsilon":
            return output
        a, s = self.at("alpha", t, x_t), self.at("sigma", t, x_t)
        return (x_t - a * output) / s if self.prediction_type == "sample" else a * output + s * x_t

    def to_x0(self, output: Batch, x_t: Batch, t: int | Tensor) -> Batch:
        """The clean picture behind x_t, like x_t."""
        if self.prediction_type == "sample":
            return output
        a, s = self.at("alpha", t, x_t), self.at("sigma", t, x_t)
        return (x_t - s * output) / a if self.prediction_type == "epsilon" else a * x_t - s * output

    def timesteps(self, steps: int) -> Tensor:
        """The `steps` + 1 levels of a sampling path: int(linspace(T - 1, 0)), noisiest first; int64
        (steps + 1,).
        """
        if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps < len(self):
            raise ValueError(f"steps must be an int in 1..{len(self) - 1}, got {steps!r}")
        return torch.linspace(len(self) - 1, 0, steps + 1, dtype=torch.float64).long()


def _betas(config: Mapping) -> Tensor:
    """The share of noise that each step of a scheduler's config adds: float64 (T,)."""
    steps = config.get("num_train_timesteps", 1000)
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    kind = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        return torch.as_tensor(config["trained_betas"], dtype=torch.float64)
    if kind == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    if kind == "squaredcos_cap_v2":
        u = torch.arange(steps + 1, dtype=torch.float64) / steps
        bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    raise ValueError(
        f'unknown beta schedule "{kind}"; allowed: linear, scaled_linear, squaredcos_cap_v2'
    )


def told_flow(config: Mapping) -> str:
    """The setting by which a scheduler's config says that it is of flow matching, or ""."""
    if config.get("use_flow_sigmas"):
        return "use_flow_sigmas"
    if "flow" in str(config.get("prediction_type", "")):
        return f"prediction_type {config['prediction_type']}"
    kind = str(config.get("_class_name", ""))
    return kind if "FlowMatch" in kind or "SCM" in kind else ""


def refuse_flow(config: Mapping) -> None:
    """Raises ValueError for a scheduler of flow matching."""
    if flow := told_flow(config):
        raise ValueError(
            f"the scheduler is of flow matching ({flow}), whose levels are x_t = (1 - s) x0 + "
            "s eps and not those of its betas; give a pipeline of epsilon, v_prediction or "
            "sample predictions"
        )


def check_end(acp: Tensor, prediction: str) -> None:
    """Raises ValueError for epsilon predictions on levels that end in pure noise."""
    if acp[-1] == 0 and prediction == "epsilon":
        raise ValueError(
            "an epsilon prediction at a level of pure noise says nothing of the picture: a "
            "schedule that ends in pure noise (rescale_betas_zero_snr, or a last beta of 1) "
            "goes with v_prediction or sample"
        )

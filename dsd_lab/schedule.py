"""The noise schedule: how much signal and how much noise a picture holds at timestep t.

x_t = alpha[t] x0 + sigma[t] eps,  alpha[t]^2 + sigma[t]^2 = 1,  t = 0 (clean) ... T - 1 (noisiest)

Flow matching is the same thing rescaled: x_flow = (1 - s) x0 + s eps = x_t / (alpha + sigma), where
s = sigma / (alpha + sigma) is a flow's own time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

import torch
from torch import Tensor

from .checks import choice
from .shapes import Batch

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@dataclass(frozen=True, eq=False)
class Levels:
    """Signal and noise levels of a variance-preserving diffusion.

    Shapes: `alphas_cumprod`, `alpha`, `sigma`, `ratio`, `time` are float64 tensors (T,).
    is_flow: whether they are those of a flow; see `level` for what follows.
    Source: DDPM (arXiv 2006.11239) with the notation of DDIM (arXiv 2010.02502).
    """

    alphas_cumprod: Tensor
    is_flow: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        acp = self.alphas_cumprod
        falls = acp.ndim == 1 and len(acp) > 1 and bool((acp[1:] < acp[:-1]).all())
        if not falls or acp[0] >= 1 or acp[-1] < 0:
            raise ValueError(
                "alphas_cumprod must be a 1-D tensor that falls strictly within 1 > ... >= 0"
            )
        object.__setattr__(self, "alphas_cumprod", acp.to(torch.float64))

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

    @cached_property
    def time(self) -> Tensor:
        """A flow's time, sigma / (alpha + sigma) = r / (1 + r): 0 is clean, 1 is pure noise."""
        return self.sigma / (self.alpha + self.sigma)

    @property
    def last(self) -> int:
        """The noisiest level whose r_t is finite: T - 1, or T - 2 where that is pure noise."""
        return len(self) - 1 - int(self.alphas_cumprod[-1] == 0)

    def level(self, fraction: float) -> int:
        """The level that a method means by a fraction of the schedule, `last` at the most.

        On a flow's levels a fraction is read as Stable Diffusion's, since that is where published
        ranges come from: it is the lowest level with at least the r_t that Stable Diffusion has
        there. (0.32 and 0.98, r = 0.89 and 13, are then the fractions 0.23 and 0.81 of SD3's.)
        """
        if not self.is_flow:
            return min(self.reach(fraction), self.last)
        usual = stable_diffusion_ratio()
        wanted = usual[min(math.floor(len(usual) * fraction + 1e-9), len(usual) - 1)]
        return min(int(torch.searchsorted(self.ratio, wanted)), self.last)

    def reach(self, fraction: float) -> int:
        """How many levels a fraction of the schedule is long."""
        return math.floor(len(self) * fraction + 1e-9)  # 0.29 of 1000 is 290 in floats too

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

    def timesteps(self, steps: int) -> Tensor:
        """The `steps` + 1 levels of a sampling path: int(linspace(T - 1, 0)), noisiest first; int64
        (steps + 1,).
        """
        if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps < len(self):
            raise ValueError(f"steps must be an int in 1..{len(self) - 1}, got {steps!r}")
        return torch.linspace(len(self) - 1, 0, steps + 1, dtype=torch.float64).long()


@dataclass(frozen=True, eq=False)
class NoiseSchedule(Levels):
    """The levels of a diffusion, and what its network's output means.

    prediction_type: "epsilon", "v_prediction", "sample" (x0), or "flow", the velocity eps - x0.
    Source: v from arXiv 2202.00512, flow matching from arXiv 2210.02747.
    """

    prediction_type: str = "epsilon"

    def __post_init__(self):
        choice("prediction type", self.prediction_type, PREDICTION_TYPES)
        super().__post_init__()
        check_end(self.alphas_cumprod, self.prediction_type)

    @classmethod
    def from_diffusers(cls, scheduler, tokens: int | None = None) -> NoiseSchedule:
        """The schedule of a diffusers scheduler, given as the object or as its config mapping.

        Computed here in float64 from the betas' or the flow's formula, never from the scheduler's
        own tables (diffusers accumulates in float32, and its `set_timesteps` shifts a flow twice).
        tokens: of a latent, where the scheduler shifts with their number.
        Raises ValueError for a beta schedule or prediction type that is not supported, for flows of
        other kinds, and for epsilon predictions with zero terminal SNR.
        """
        config = scheduler
        if not isinstance(scheduler, Mapping):
            config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        if told_flow(config):
            steps = config.get("num_train_timesteps", 1000)
            return cls.flow(flow_shift(config, tokens), steps=steps)
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
        return cls(torch.cumprod(1 - _betas(STABLE_DIFFUSION), dim=0), prediction_type)

    @classmethod
    def flow(
        cls, shift: float = 1.0, prediction_type: str = "flow", steps: int = 1000
    ) -> NoiseSchedule:
        """The schedule of a flow: levels whose time s is evenly spaced, then shifted.

            s = shift u / (1 + (shift - 1) u),    u = 1 / T, 2 / T, ..., 1

        shift: above 1 it moves the levels towards noise (3 in Stable Diffusion 3). The last level
        is pure noise, where r_t is infinite. Source: arXiv 2403.03206, section 5.3.2.
        """
        if not 0 < shift < math.inf:
            raise ValueError(f"shift must be a positive number (3 in SD3), got {shift!r}")
        u = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        time = shift * u / (1 + (shift - 1) * u)
        clean = (1 - u) / (1 + (shift - 1) * u)  # 1 - time, exactly 0 at the end
        return cls(clean**2 / (clean**2 + time**2), prediction_type, is_flow=True)

    def __repr__(self) -> str:
        """What it is, and where a method's usual range of t, 0.02 to 0.98, lies on it."""
        kind = "flow" if self.is_flow else "diffusion"
        ends = (f"t = {t}, r = {self.ratio[t]:.3g}" for t in map(self.level, (0.02, 0.98)))
        low, high = ends
        return (
            f"NoiseSchedule({kind}, {self.prediction_type}, {len(self)} levels, "
            f"t_min 0.02: {low}; t_max 0.98: {high})"
        )

    def to_input(self, x_t: Batch, t: int | Tensor) -> Batch:
        """What the network is shown of x_t: a flow's x_flow = x_t / (alpha + sigma), else x_t."""
        if self.prediction_type != "flow":
            return x_t
        return x_t / (self.at("alpha", t, x_t) + self.at("sigma", t, x_t))

    # What a network's output at (x_t, t) stands for. Both come from the native output, so that v,
    # sample and flow prediction never divide by a small alpha. v = alpha eps - sigma x0; a flow's
    # is eps - x0.

    def to_eps(self, output: Batch, x_t: Batch, t: int | Tensor) -> Batch:
        """The noise in x_t, like x_t."""
        if self.prediction_type == "epsilon":
            return output
        a, s = self.at("alpha", t, x_t), self.at("sigma", t, x_t)
        if self.prediction_type == "flow":
            return (x_t + a * output) / (a + s)
        return (x_t - a * output) / s if self.prediction_type == "sample" else a * output + s * x_t

    def to_x0(self, output: Batch, x_t: Batch, t: int | Tensor) -> Batch:
        """The clean picture behind x_t, like x_t."""
        if self.prediction_type == "sample":
            return output
        a, s = self.at("alpha", t, x_t), self.at("sigma", t, x_t)
        if self.prediction_type == "flow":
            return (x_t - s * output) / (a + s)
        return (x_t - s * output) / a if self.prediction_type == "epsilon" else a * x_t - s * output

    def to_output(self, x0: Batch, eps: Batch, t: int | Tensor) -> Batch:
        """What a network should say of x0 noised by eps: the target of its training, like x0."""
        if self.prediction_type == "v_prediction":
            return self.at("alpha", t, x0) * eps - self.at("sigma", t, x0) * x0
        return {"epsilon": eps, "sample": x0, "flow": eps - x0}[self.prediction_type]


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
    if "FlowMatch" in kind or "SCM" in kind:
        return kind
    return "invert_sigmas" if "invert_sigmas" in config else ""  # a flow's alone


def flow_shift(config: Mapping, tokens: int | None = None) -> float:
    """The shift of a flow scheduler's config.

    Where it is dynamic, it is exp(mu), mu linear in the number of latent tokens. Raises ValueError
    for flows whose levels or outputs mean something else.
    """
    kind = str(config.get("_class_name", ""))
    by_nature = "FlowMatch" in kind or "invert_sigmas" in config  # they have no prediction_type
    prediction = config.get("prediction_type", "flow" if by_nature else "epsilon")
    of_betas = "beta_schedule" in config and not config.get("use_flow_sigmas")
    for wrong, why in (
        ("SCM" in kind or prediction == "trigflow", "its times are the angles of TrigFlow"),
        ("flow" not in prediction, f"on a flow's levels it predicts {prediction}, not velocity"),
        (of_betas, "its levels are those of betas, as use_flow_sigmas is not set"),
        (config.get("invert_sigmas"), "its time runs backwards (invert_sigmas)"),
        (config.get("shift_terminal"), "its levels end before pure noise (shift_terminal)"),
    ):
        if wrong:
            raise ValueError(
                f"this scheduler of flow matching ({told_flow(config)}) is not supported: {why}"
            )
    if not config.get("use_dynamic_shifting"):
        return config.get("shift") or config.get("flow_shift") or 1.0
    if tokens is None:
        raise ValueError("the scheduler shifts with the number of latent tokens: give `tokens`")
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    mu = low + (high - low) * (tokens - few) / (many - few)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


@cache
def stable_diffusion_ratio() -> Tensor:
    """r_t of Stable Diffusion's schedule, by which ranges of t are read on others: (1000,)."""
    return NoiseSchedule.stable_diffusion().ratio


def check_end(acp: Tensor, prediction: str) -> None:
    """Raises ValueError for epsilon predictions on levels that end in pure noise."""
    if acp[-1] == 0 and prediction == "epsilon":
        raise ValueError(
            "an epsilon prediction at a level of pure noise says nothing of the picture: a "
            "schedule that ends in pure noise (rescale_betas_zero_snr, or a last beta of 1) "
            "goes with v_prediction or sample"
        )

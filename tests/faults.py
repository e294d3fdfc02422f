"""Deliberate faults that the tests must catch: they keep the tests honest while code moves.

A fault is one small slip, put into a copy of the tree: a sign, a weight, an index, a missing
stop-gradient. The tests run there. A fault that none of them notices says which test is missing.

    python tests/faults.py --list             the faults, and where each stands in the code
    python tests/faults.py NAME ...           try some
    python tests/faults.py --all --out FILE   try all; FILE keeps results, to go on from

The tests that are likeliest to notice run first; if they do not, all the others do, unless
--hints-only is given. Notebooks are not run. The working tree is never changed. All tests must pass
without a fault, or what catches one means nothing.

A fault is known by the text that it changes, which must stand exactly once in the package; any
spaces and line breaks in it may differ. It knows no path, so files may move. When code that a fault
changes is itself rewritten, rewrite the fault.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "dsd_lab"
LONGEST = 3600  # seconds for one run of the tests


class Fault(NamedTuple):
    """One slip: `old`, which stands once in the package, becomes `new`.

    tests: the names of the test files to try first, such as "test_methods* test_exact".
    """

    name: str
    old: str
    new: str
    tests: str


FAULTS = [
    # ---- schedule and sampling
    Fault(
        "v-to-eps-sign",
        "else a * output + s * x_t",
        "else a * output - s * x_t",
        "test_schedule test_sampling",
    ),
    Fault(
        "flow-to-eps-sign",
        "return (x_t + a * output) / (a + s)",
        "return (x_t - a * output) / (a + s)",
        "test_schedule test_flow",
    ),
    Fault(
        "flow-to-x0-rescaled-twice",
        'if self.prediction_type == "flow": return (x_t - s * output) / (a + s)',
        'if self.prediction_type == "flow":\n            return (x_t - s * output) / (a + s) ** 2',
        "test_schedule test_families",
    ),
    Fault(
        "flow-shown-without-its-scale",
        'return x_t / (self.at("alpha", t, x_t) + self.at("sigma", t, x_t))',
        "return x_t",
        "test_schedule test_families",
    ),
    Fault(
        "flow-range-one-level-low",
        "return min(int(torch.searchsorted(self.ratio, wanted)), self.last)",
        "return min(int(torch.searchsorted(self.ratio, wanted)) - 1, self.last)",
        "test_schedule test_flow",
    ),
    Fault(
        "flow-shift-without-its-exponential",
        'return mu if config.get("time_shift_type") == "linear" else math.exp(mu)',
        "return mu",
        "test_schedule test_families",
    ),
    Fault(
        "sdxl-empty-prompt-encoded",
        "if pipe.config.force_zeros_for_empty_prompt:",
        "if False:",
        "test_families",
    ),
    Fault(
        "sana-instruction-for-all",
        "complex_human_instruction=instruction if wanted else None,",
        "complex_human_instruction=instruction,",
        "test_families",
    ),
    Fault(
        "flux-patches-transposed",
        "h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)",
        "h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 5, 3)",
        "test_families",
    ),
    Fault("blend-of-masks-by-weight", "return parts.amax(0)", "return parts[-1]", "test_families"),
    Fault(
        "last-level-left-out",
        "torch.linspace(len(self) - 1, 0, steps + 1,",
        "torch.linspace(len(self) - 1, 1, steps + 1,",
        "test_schedule test_sampling",
    ),
    Fault(
        "zero-snr-not-stretched",
        "* root[0] / (root[0] - root[-1])",
        "/ (root[0] - root[-1])",
        "test_schedule",
    ),
    Fault(
        "path-node-above-only",
        "(falling >= t).sum(0) - 1",
        "(falling > t).sum(0) - 1",
        "test_sampling test_methods",
    ),
    Fault(
        "result-keeps-its-noise",
        "return self.x0[-1]",
        "return self.x_t[-1]",
        "test_sampling test_methods",
    ),
    Fault(
        "paths-of-other-views",
        "eps=self.eps[:, items]",
        "eps=self.eps[:, items.sort().values]",
        "test_sampling test_distill_scene",
    ),
    # ---- guidance and conditions
    Fault(
        "guidance-of-another-scale",
        'torch.lerp(base.output, terms["cond"].output, cfg)',
        'torch.lerp(base.output, terms["cond"].output, cfg - 1)',
        "test_exact",
    ),
    Fault(
        "negative-prompt-ignored",
        'return "uncond" if self.negative is None else "negative"',
        'return "uncond"',
        "test_exact",
    ),
    Fault(
        "conditions-repeated-in-place",
        "list(range(len(self))) * times",
        "[i for i in range(len(self)) for _ in range(times)]",
        "test_views test_distill",
    ),
    # ---- draws
    Fault(
        "all-seeds-draw-alike",
        'generator_of(seed, "run")',
        'generator_of("run")',
        "test_distill test_distill_scene",
    ),
    Fault(
        "highest-timestep-never-drawn",
        "(high - low + 1)).floor()",
        "(high - low)).floor()",
        "test_distill test_contract",
    ),
    Fault(
        "asd-draws-in-another-order",
        "t = self.draw_t(state, step, draws) if self.rho",
        "t = self.draw_t(state, step, draws)\n        draws.normal()\n        if self.rho",
        "test_contract test_family",
    ),
    # ---- methods
    Fault(
        "sds-without-guidance",
        "e_g = state.prior.predict_noise(x_t, t, state.cond, self.cfg) return",
        "e_g = state.prior.predict_noise(x_t, t, state.cond)\n        return",
        "test_contract test_family",
    ),
    Fault(
        "sds-weight-not-squared",
        'return state.schedule.at("sigma", t, x) ** 2 * (e_g - n), t, state',
        'return state.schedule.at("sigma", t, x) * (e_g - n), t, state',
        "test_methods test_family",
    ),
    Fault(
        "asd-shift-from-zero",
        "(shift * (t - lowest).double())",
        "(shift * t.double())",
        "test_family test_methods",
    ),
    Fault(
        "sdi-cached-noise-stale",
        "return g, t, state.keep(k=e_g) if cached else state",
        "return g, t, state",
        "test_family test_distill_scene",
    ),
    Fault(
        "sdi-sigma-of-another-level",
        '* x) / schedule.at("sigma", top, x)',
        '* x) / schedule.at("sigma", t, x)',
        "test_family",
    ),
    Fault(
        "consistent-gap-one-too-wide",
        "schedule.reach(self.gap_max) - 1 t",
        "schedule.reach(self.gap_max)\n        t",
        "test_contract test_family",
    ),
    Fault(
        "consistent-sign",
        'if self.sign == "code" else e_s - e_t',
        'if self.sign != "code" else e_s - e_t',
        "test_family",
    ),
    Fault(
        "fsd-noise-drawn-afresh",
        "schedule, n = state.schedule, state.e_star",
        "schedule, n = state.schedule, draws.normal()",
        "test_contract test_family",
    ),
    Fault(
        "cfd-noise-shrinks",
        "math.sqrt(1 - self.gamma) * n",
        "(1 - self.gamma) * n",
        "test_family test_distill_scene",
    ),
    Fault(
        "cfd-last-weight",
        'self.weight == "ddim" and step + 1 < state.steps',
        'self.weight == "ddim" and step + 1 <= state.steps',
        "test_family",
    ),
    Fault(
        "dsd-ode-same-level-twice",
        'if self.form == "ode": return last',
        'if self.form == "ode":\n            return t',
        "test_methods",
    ),
    Fault(
        "dsd-reference-weight-of-t-prime",
        '"reference": schedule.at("sigma", t, x) ** 2,',
        '"reference": schedule.at("sigma", t_prime, x) ** 2,',
        "test_methods",
    ),
    Fault(
        "dsd-gain-of-the-noisier-level",
        "return ratio / (1 - (ratio /",
        'return schedule.at("ratio", t_prime, like) / (1 - (ratio /',
        "test_methods",
    ),
    Fault(
        "dsd-gain-grows-at-the-top",
        '(ratio / schedule.at("ratio", t_prime, like)).clamp(max=rho)',
        '(ratio / schedule.at("ratio", t_prime, like))',
        "test_methods",
    ),
    Fault(
        "dsd-last-level-not-kept",
        "return weight * (e_t - reference), t, state.keep(last=t)",
        "return weight * (e_t - reference), t, state",
        "test_distill test_methods test_distill_scene",
    ),
    Fault("repulsion-attracts", "(flat - k @ flat)", "(k @ flat - flat)", "test_family"),
    Fault(
        "repulsion-feels-itself",
        "torch.where(others, -squares / h, -torch.inf)",
        "(-squares / h)",
        "test_family",
    ),
    Fault(
        "esd-keeps-the-camera",
        "camera = cond.camera if cameras and cond.camera else",
        "camera = cond.camera if cond.camera else",
        "test_family",
    ),
    Fault(
        "pds-noise-of-each-its-own",
        "schedule.add_noise(clean, p, m), noisy, e",
        "schedule.add_noise(clean, p, draws.normal()), noisy, e",
        "test_family test_contract",
    ),
    Fault("rfds-weight-without-its-one", '{"flow": 1 + ratio,', '{"flow": ratio,', "test_family"),
    Fault(
        "dsd-x0-without-shift",
        "else torch.ones(len(t))",
        "else torch.zeros(len(t))",
        "test_methods",
    ),
    Fault(
        "dsd-star-level-behind",
        "schedule.timesteps(state.steps)[step + 1]",
        "schedule.timesteps(state.steps)[step]",
        "test_methods",
    ),
    Fault(
        "vsd-particles-of-all-prompts",
        "[i for i, other in enumerate(group) if other == name]",
        "[i for i, other in enumerate(group)]",
        "test_family",
    ),
    Fault(
        "failed-step-is-kept",
        "self.load_state_dict(before)",
        "pass",
        "test_distill test_distill_scene",
    ),
    Fault(
        "path-goes-on-from-nan",
        "check_finite(predictions[-1], len(points), t)",
        "pass",
        "test_sampling",
    ),
    Fault(
        "variant-of-fp16-alone",
        "return min(found, key=",
        'return "fp16" if "fp16" in found else min(found, key=',
        "test_pipeline",
    ),
    Fault(
        "vsd-network-trains-the-picture",
        "loss = self.loss(x.detach(), t, n)",
        "loss = self.loss(x, t, n)",
        "test_family",
    ),
    Fault(
        "vsd-network-not-restored",
        "weight in self.weights.items(): weight.copy_(",
        "weight in self.weights.items():\n            weight.clone().copy_(",
        "test_contract",
    ),
    Fault(
        "vsd-lora-target-sign",
        '* eps - self.at("sigma", t, x0) * x0',
        '* eps + self.at("sigma", t, x0) * x0',
        "test_schedule test_vsd_lora",
    ),
    Fault(
        "csd-without-its-factor",
        "** 2 * self.cfg * (e_c - e_u), t, state",
        "** 2 * (e_c - e_u), t, state",
        "test_family",
    ),
    Fault(
        "csd-ignores-the-negative",
        "base = state.cond.base terms",
        'base = "uncond"\n        terms',
        "test_family test_methods",
    ),
    Fault(
        "nfsd-limit-inclusive",
        "low = (t < state.schedule.level(self.small))",
        "low = (t <= state.schedule.level(self.small))",
        "test_family",
    ),
    Fault(
        "nfsd-mask-on-the-wrong-device",
        "(t < state.schedule.level(self.small)).to(x.device)",
        "(t < state.schedule.level(self.small))",
        "test_devices* test_family",
    ),
    Fault(
        "ism-weight-of-another-level",
        '0.1 * schedule.at("ratio", t, x)',
        '0.1 * schedule.at("ratio", s, x)',
        "test_family",
    ),
    Fault(
        "dds-source-follows-the-picture",
        '{"source": source.clone()}',
        '{"source": source}',
        "test_family",
    ),
    Fault(
        "annealing-ends-a-step-early",
        "progress = step / steps return",
        "progress = step / max(1, steps - 1)\n        return",
        "test_family",
    ),
    # ---- the loop on pictures
    Fault(
        "held-target-sign",
        "self.target, self.gradient_rms = self.x - g,",
        "self.target, self.gradient_rms = self.x + g,",
        "test_distill test_contract",
    ),
    Fault(
        "method-counts-held-steps",
        "k = self.index // self.refresh",
        "k = self.index",
        "test_distill test_contract",
    ),
    Fault(
        "checkpoint-without-its-target",
        'for name in ("x", "target", "gradient_rms")',
        'for name in ("x", "gradient_rms")',
        "test_contract",
    ),
    Fault(
        "checkpoint-without-what-is-kept", "return dict(self.kept)", "return {}", "test_contract"
    ),
    # ---- the loop on a scene
    Fault(
        "noise-of-another-view",
        "cond=cond, e_star=self.e_star[items], kept=kept",
        "cond=cond, e_star=self.e_star[: len(items)], kept=kept",
        "test_distill_scene",
    ),
    Fault(
        "what-views-keep-is-dropped",
        "t, self.state.merge(views, part)",
        "t, self.state",
        "test_distill_scene",
    ),
    Fault(
        "target-of-another-view",
        "self.values[views], self.held[views] = values, True",
        "self.values[: len(views)], self.held[views] = values, True",
        "test_targets",
    ),
    Fault(
        "sum-over-views",
        ".square().sum() / (2 * len(views))",
        ".square().sum() / 2",
        "test_distill_scene",
    ),
    Fault(
        "regulariser-unit-not-squared",
        "math.prod(self.prior.shape) * self.prior.unit**2",
        "math.prod(self.prior.shape) * self.prior.unit",
        "test_distill_scene",
    ),
    Fault(
        "terms-without-their-unit",
        "loss = loss + stage.whole * term(self, rendering)",
        "loss = loss + term(self, rendering)",
        "test_distill_scene",
    ),
    Fault(
        "noise-of-a-small-size-too-quiet",
        "F.avg_pool2d(run.e_star[None], block) * block",
        "F.avg_pool2d(run.e_star[None], block)",
        "test_distill_scene",
    ),
    Fault(
        "ring-not-from-the-picture",
        "around.elevation, around.distance, around.fov, around.azimuth)",
        "around.elevation, around.distance, around.fov)",
        "test_distill_scene",
    ),
    Fault(
        "empty-space-never-looked-at-again",
        "self.scene.step()",
        "pass",
        "test_distill_scene test_scene",
    ),
    Fault(
        "checkpoint-without-the-occupancys-count",
        "self.register_buffer(name, torch.tensor(value))",
        'self.register_buffer(name, torch.tensor(value), persistent=name != "steps")',
        "test_scene test_distill_scene",
    ),
    # ---- renderer and fields
    Fault(
        "light-after-the-sample",
        "(thickness - thickness.cumsum(1)).exp()",
        "(-thickness.cumsum(1)).exp()",
        "test_scene",
    ),
    Fault(
        "pixels-of-another-picture",
        "lines.pixel + view * size * size",
        "lines.pixel + view * size",
        "test_scene test_viz_scenes",
    ),
    Fault(
        "depth-not-normalised",
        "(weights * z).sum(1) / opacity.clamp(min=1e-6)",
        "(weights * z).sum(1)",
        "test_scene",
    ),
    Fault(
        "normals-inwards",
        "F.normalize(-slope.T, dim=1)",
        "F.normalize(slope.T, dim=1)",
        "test_scene",
    ),
    Fault(
        "occupancy-axes-swapped",
        "(z * side + y) * side + x",
        "(x * side + y) * side + z",
        "test_scene",
    ),
    Fault(
        "hash-corners-axes-swapped",
        "listed = corner[..., 0] + side * (corner[..., 1] + side * corner[..., 2])",
        "listed = corner[..., 0] + side * (corner[..., 2] + side * corner[..., 1])",
        "test_scene",
    ),
    Fault(
        "upsampling-shifts-by-half-a-voxel",
        'mode="trilinear", align_corners=True',
        'mode="trilinear", align_corners=False',
        "test_scene test_distill_scene",
    ),
    # ---- regularisers
    Fault(
        "orientation-moves-the-weights",
        "rendering.weights.detach() *",
        "rendering.weights *",
        "test_regularisers",
    ),
    Fault(
        "convexity-up-times-down",
        "cross_y(shown[..., 1:, :], shown[..., :-1, :])",
        "cross_y(shown[..., :-1, :], shown[..., 1:, :])",
        "test_regularisers",
    ),
    Fault(
        "ramp-goes-on",
        "min(1.0, progress / weight.until)",
        "(progress / weight.until)",
        "test_regularisers",
    ),
    # ---- priors
    Fault("mixture-norm-weight", "a**2 * half_norm", "a * half_norm", "test_exact"),
    Fault(
        "mixture-of-one-width",
        "return logits - self.shared(x, t, schedule) if width.ndim else logits",
        "return logits",
        "test_exact",
    ),
    Fault(
        "encoding-not-centred",
        "(pixels - self._casts.like(pixels)[0])",
        "pixels",
        "test_exact test_views",
    ),
    Fault(
        "scale-of-another-size",
        "resized(self.world, size), self.scale * side / size",
        "resized(self.world, size), self.scale",
        "test_views",
    ),
    Fault("joint-objects-run-together", "number[i] = count", "number[i] = 0", "test_views"),
    Fault(
        "posterior-of-another-size",
        "count=self.count, likeness=self.likeness",
        "count=self.count, tolerance=self.tolerance",
        "test_novel_view",
    ),
    Fault(
        "no-condition-still-sees-the-picture",
        "latents * keep[:, None, None, None]",
        "latents",
        "test_novel_view test_train_novel_view",
    ),
    Fault(
        "polar-angle-sign",
        "math.radians(seen.elevation - camera.elevation)",
        "math.radians(camera.elevation - seen.elevation)",
        "test_novel_view",
    ),
    Fault(
        "latents-shifted-after-scaling",
        "(latents - shift) * factor",
        "latents * factor - shift",
        "test_pipeline",
    ),
    Fault(
        "questions-at-two-levels-merged",
        "and bool(torch.equal(self.t, other.t))",
        "",
        "test_novel_view test_pipeline",
    ),
    Fault(
        "timesteps-on-the-wrong-device",
        "self._time(torch.cat([call.t for call in calls])).to(self.device)",
        "self._time(torch.cat([call.t for call in calls]))",
        "test_devices",
    ),
    Fault(
        "perp-neg-side-weight-of-the-front",
        "(SIDE, -f(1 - q, 4, -2.426))",
        "(SIDE, -f(q, 4, -2.426))",
        "test_view_prompts",
    ),
    Fault(
        "perp-neg-along-what-is-summed",
        "output - base, e_pos)",
        'output - base, outputs["cond"])',
        "test_view_prompts",
    ),
    Fault(
        "overhead-from-below-too",
        "if camera.elevation > 60: return OVERHEAD",
        "if abs(camera.elevation) > 60:\n        return OVERHEAD",
        "test_view_prompts",
    ),
    # ---- cameras and pictures
    Fault(
        "azimuth-wraps-to-minus-180",
        "180 - (180 - self.azimuth) % 360",
        "(self.azimuth + 180) % 360 - 180",
        "test_cameras",
    ),
    Fault(
        "rays-through-pixel-corners",
        "(torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size",
        "torch.arange(size, dtype=torch.float64) * 2 / size",
        "test_cameras",
    ),
    Fault(
        "half-clear-pixels-too-bright",
        "colour[inside] * mask[inside]",
        "colour[inside]",
        "test_inputs",
    ),
    # ---- metrics
    Fault(
        "distances-by-a-product",
        'torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")',
        'torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")',
        "test_metrics*",
    ),
    Fault("bootstrap-of-90-percent", "[0.025, 0.975]", "[0.05, 0.95]", "test_metrics*"),
    Fault(
        "jackknife-without-its-factor",
        "((samples - 1) / samples * (without",
        "(1 / samples * (without",
        "test_metrics*",
    ),
    Fault(
        "ratio-jackknife-without-its-factor",
        "(n - 1) / n * (without",
        "1 / n * (without",
        "test_study",
    ),
    Fault("what-reaches-nothing-counts", "mode[mode >= 0]", "mode", "test_study test_metrics*"),
    Fault("neighbour-of-itself", "kthvalue(k + 1, dim=1)", "kthvalue(k, dim=1)", "test_metrics*"),
    Fault(
        "kid-whole-the-wrong-way-round",
        "float(others.mean()) if whole",
        "float(others.mean()) if not whole",
        "test_metrics*",
    ),
    Fault(
        "unseen-side-from-90-degrees",
        ".remainder(360) - 180).abs() > 90",
        ".remainder(360) - 180).abs() >= 90",
        "test_metrics*",
    ),
    Fault("janus-one-way-round", "torch.minimum(off, 360 - off) > 60", "off > 60", "test_metrics*"),
    # ---- training
    Fault("min-snr-weight-of-v", '"v_prediction": snr + 1,', '"v_prediction": snr,', "test_train"),
    Fault(
        "average-the-wrong-way-round",
        "get_ema_multi_avg_fn(decay)",
        "get_ema_multi_avg_fn(1 - decay)",
        "test_train",
    ),
    Fault(
        "average-begins-again",
        'self.averaged.load_state_dict(part("averaged"))',
        'self.averaged.load_state_dict(part("network"))',
        "test_train test_train_novel_view",
    ),
    Fault(
        "first-caption-alone",
        "choices[of, (draw[2] * count[of]).long()]",
        "choices[of, 0]",
        "test_train",
    ),
    Fault(
        "blurred-latents-unscaled",
        "return sharp * scale, soft * scale",
        "return sharp * scale, soft",
        "test_train",
    ),
    Fault(
        "share-unweighted", "return self.count * size / sets", "return 1.0", "test_train_processes"
    ),
    Fault(
        "share-takes-anothers-noise",
        "chosen, noise = share.of(chosen).to(device), share.of(noise).to(device)",
        "chosen = share.of(chosen).to(device); noise = noise[: len(chosen)].to(device)",
        "test_train_processes",
    ),
    Fault(
        "share-takes-anothers-conditions",
        "share.of(part) for part in conditions",
        "part[: len(x0)] for part in conditions",
        "test_train_processes",
    ),
    # ---- studies
    Fault("old-answers-for-new-tries", "uuid.uuid4().hex)", '"")', "test_executor"),
    Fault(
        "cells-together-in-a-process",
        "with _alone: content = compute(cell)",
        "content = compute(cell)",
        "test_executor",
    ),
    Fault(
        "done-is-lost-at-an-early-end",
        "if future.done() and future.exception() is None:",
        "if future.done() and future.exception():",
        "test_executor",
    ),
    Fault("waiting-cells-go-on", "if not future.cancel()}", "}", "test_executor"),
    Fault(
        "prior-travels-whole",
        "partial(_itself, prior) if call is None else partial(_loaded, *call)",
        "partial(_itself, prior)",
        "test_executor",
    ),
    Fault("two-studies-in-a-folder", 'CELLS / ".lock"', 'CELLS / f".{id(cells)}"', "test_study"),
    # ---- the judge
    Fault(
        "blurred-pictures-keep-their-label",
        "torch.arange(count) < 2 * few",
        "torch.arange(count) < few",
        "test_judge",
    ),
    Fault(
        "judge-wants-all-of-the-first",
        "(best == label[:, None]).any(1)",
        "(best == label[:, None]).all(1)",
        "test_judge",
    ),
    Fault(
        "kid-in-blocks-alone",
        "x, y = features(images), features(data) def kernel",
        "x, y = blocks(images), blocks(data)\n\n    def kernel",
        "test_judge",
    ),
    Fault(
        "views-of-a-toy-on-both-sides",
        "back |= torch.isin(self.group, order",
        "back |= torch.isin(torch.arange(len(self.group)), order",
        "test_judge",
    ),
    # ---- text to 3-D at full size
    Fault(
        "lamp-behind-lights-too",
        "(normal * to_lamp).sum(0).clamp(min=0)",
        "(normal * to_lamp).sum(0).abs()",
        "test_setups",
    ),
    Fault("half-not-scaled-back", "next(found) / scale", "next(found) * scale", "test_setups"),
    Fault(
        "latent-weight-as-it-is",
        "    return weight / whole\n",
        "    return weight\n",
        "test_setups",
    ),
    Fault("perp-neg-base-free", "2 + (base not in terms)", "2", "test_view_gradients"),
    Fault(
        "path-anew-too-short",
        "if node >= t.min()",
        "if node >= t.min() + 150",
        "test_view_gradients",
    ),
    Fault(
        "drawn-cameras-forgotten",
        'stage.look_from(tuple(Camera(*row) for row in state["cameras"].tolist()))',
        "pass",
        "test_setups",
    ),
]


# ---- trying them


def places(fault: Fault, root: Path = ROOT) -> list[tuple[Path, re.Match]]:
    """Where the text of a fault stands in the package."""
    pattern = re.compile(r"\s+".join(map(re.escape, fault.old.split())))
    files = sorted((root / PACKAGE).rglob("*.py"))
    return [(f, match) for f in files for match in pattern.finditer(f.read_text(encoding="utf-8"))]


def put_in(fault: Fault, root: Path) -> None:
    """Put the fault into the tree. ValueError unless its text is there once, and leaves Python."""
    found = places(fault, root)
    if len(found) != 1:
        raise ValueError(f'"{fault.old}" stands {len(found)} times in {PACKAGE}, not once')
    file, match = found[0]
    text = match.string[: match.start()] + fault.new + match.string[match.end() :]
    try:
        compile(text, file.name, "exec")
    except SyntaxError as error:
        raise ValueError(f'with "{fault.new}" {file.name} is no Python: {error}') from None
    file.write_text(text, encoding="utf-8")


def copy_tree(to: Path) -> None:
    """The tree as it is, without what git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def environment(tree: Path, cache: Path) -> dict[str, str]:
    """Python imports from the tree, and what it caches goes elsewhere than to the user's cache."""
    import platformdirs

    cache.mkdir()
    known = Path(os.environ.get("DSD_LAB_CACHE") or platformdirs.user_cache_dir(PACKAGE))
    for file in known.glob("*.npz"):
        (cache / file.name).symlink_to(file)
    return {**os.environ, "PYTHONPATH": str(tree), "DSD_LAB_CACHE": str(cache)}


def first_failure(tree: Path, env: dict[str, str], files: list[str]) -> str | None:
    """The first test of some files or options of pytest that fails in the tree, by its id."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", *files]
    try:
        done = subprocess.run(
            command, cwd=tree, env=env, timeout=LONGEST, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return f"the clock: no end within {LONGEST} s"
    if done.returncode == 0:
        return None
    if found := re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE):
        return found[1]
    raise RuntimeError(
        f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
    )


def attempt(fault: Fault, hints_only: bool) -> str | None:
    """The test that catches a fault, or None.

    ValueError for a fault that cannot be put in, RuntimeError where no tests could be run.
    """
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        tree = Path(folder).resolve() / "tree"
        copy_tree(tree)
        put_in(fault, tree)
        env = environment(tree, tree.parent / "cache")
        where = f"from importlib.util import find_spec; print(find_spec({PACKAGE!r}).origin)"
        told = subprocess.run(
            [sys.executable, "-c", where], cwd=tree, env=env, capture_output=True, text=True
        )
        if Path(told.stdout.strip()).resolve().parent != tree / PACKAGE:
            raise RuntimeError(f"not the copy is imported but {told.stdout or told.stderr}")
        patterns = [f"{stem}.py" for stem in fault.tests.split()]
        found = [f for pattern in patterns for f in sorted((tree / "tests").rglob(pattern))]
        hinted = list(dict.fromkeys(str(f.relative_to(tree)) for f in found))
        caught = first_failure(tree, env, hinted) if hinted else None
        if caught or hints_only:
            return caught
        return first_failure(tree, env, ["tests", *(f"--ignore={file}" for file in hinted)])


def main() -> int:
    """Try faults, a line each, and count those caught. Returns 0 if all are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to try")
    parser.add_argument("--all", action="store_true", help="try all of them")
    parser.add_argument("--list", action="store_true", help="say what there is and where it stands")
    parser.add_argument("--hints-only", action="store_true", help="only the likeliest tests")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep results here, and go on")
    args = parser.parse_args()
    known = {fault.name: fault for fault in FAULTS}
    if unknown := [name for name in args.names if name not in known]:
        parser.error(f"no fault is named {', '.join(unknown)}; --list says which there are")
    if not (args.names or args.all or args.list):
        parser.error("name some faults, or give --all or --list")
    chosen = [known[name] for name in args.names] or FAULTS
    if args.list:
        for fault in chosen:
            where = [str(file.relative_to(ROOT)) for file, _ in places(fault)]
            print(f"{fault.name:42}", where[0] if len(where) == 1 else f"STANDS {len(where)} TIMES")
        return int(any(len(places(fault)) != 1 for fault in chosen))

    kept = json.loads(args.out.read_text()) if args.out and args.out.is_file() else {}
    count = 0
    for fault in chosen:
        row = kept.get(fault.name, {})
        # a fault whose text has changed, or that not all tests have seen, is tried again
        same = row.get("text") == [fault.old, fault.new] and not row["problem"]
        if not (same and (row["caught"] or row["whole"] or args.hints_only)):
            began, caught, problem = time.perf_counter(), None, None
            try:
                caught = attempt(fault, args.hints_only)
            except (ValueError, RuntimeError) as error:
                problem = str(error)
            seconds, whole = round(time.perf_counter() - began), not args.hints_only
            row = {"caught": caught, "problem": problem, "whole": whole, "seconds": seconds}
            kept[fault.name] = row | {"text": [fault.old, fault.new]}
            if args.out:
                beside = args.out.with_name(args.out.name + ".part")
                beside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
                beside.replace(args.out)
        count += bool(row["caught"])
        what = f"caught by {row['caught']}" if row["caught"] else "NOT CAUGHT"
        what = f"NOT TRIED: {row['problem']}" if row["problem"] else what
        print(f"{fault.name:42} {what}  ({row['seconds']} s)", flush=True)
    print(f"caught {count} of {len(chosen)}")
    return int(count < len(chosen))


if __name__ == "__main__":
    sys.exit(main())

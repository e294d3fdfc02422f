"""Lesson 04's overview: each method as the family's one line, with its source and its cost.

g = w(t) [ e_g(alpha_t x + sigma_t n, t) - reference ]
"""

import re
import sys
from typing import NamedTuple

from ..methods import VARIANTS, Method
from ..priors import Prior

ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")
FRESH, INVERTED, OWN = "fresh noise", "noise from inverting x", "the seed's own noise"
PAPER = {"VSD entropy 0.5": 1}  # which of the sources that a docstring names, if not the first
TRAINED = {"VSD network": "and one training step of a small network"}


class Row(NamedTuple):
    """A method in the family's line. origin: FRESH, INVERTED or OWN. n, reference, t, w: the
    blanks, as Markdown with mathematics. use: when one would take it.
    """

    origin: str
    n: str
    reference: str
    t: str
    w: str
    use: str


UNIFORM, ANNEALED, FALLS = "uniform", "uniform, range falls", "falls"
FRESH_N, AT_T_PRIME = r"$\mathcal N(0, I)$", r"$\epsilon_g$ at $t'$, same $n$"
PATH_N = r"$\epsilon_g$ on the seed's ODE at $t'$"
SQUARE, RATIO = r"$\sigma_t^2$", "$r_t$"
ROWS = {
    "SDS": Row(FRESH, FRESH_N, "$n$", UNIFORM, SQUARE, "the baseline; one result is enough"),
    "RFDS": Row(FRESH, FRESH_N, "$n$", UNIFORM, "$1 + r_t$", "SDS on a flow model"),
    "RFDS-Rev": Row(
        FRESH, r"once $\epsilon_c(\alpha_t x + \sigma_t n, t)$ of a fresh $n$", "$n$", UNIFORM,
        "$1 + r_t$", "a flow model, if half as much again may be paid",
    ),
    "RSD": Row(
        FRESH, FRESH_N, r"$n + \lambda\, \sigma_t R$", UNIFORM, SQUARE,
        "seeds must differ, even at some loss",
    ),
    "CSD": Row(
        FRESH, FRESH_N, r"$\epsilon_u$ at the same point", UNIFORM, SQUARE,
        "a network, and the prompt matters most",
    ),
    "NFSD": Row(
        FRESH, FRESH_N, r"$0$ if $t < 200$, else $\epsilon_\text{negative}$", UNIFORM, SQUARE,
        "a network, at its usual cfg",
    ),
    "ASD": Row(
        FRESH, FRESH_N, r"$\epsilon_c$ at a noisier $t'$, same $n$", ANNEALED, SQUARE,
        "VSD's idea without training anything",
    ),
    "VSD": Row(
        FRESH, FRESH_N, r"$\epsilon_\phi$, the score of the results", ANNEALED, SQUARE,
        "several results of one prompt together",
    ),
    "VSD network": Row(
        FRESH, FRESH_N, r"$\epsilon_\phi$, learned beside the run", ANNEALED, SQUARE,
        "the same without a closed form",
    ),
    "VSD entropy 0.5": Row(
        FRESH, FRESH_N, r"$\tfrac12 \epsilon_\phi + \tfrac12 n$", ANNEALED, SQUARE,
        "ESD: between SDS and VSD",
    ),
    "SDI": Row(
        INVERTED, r"from DDIM inversion of $x$", "$n$", FALLS, RATIO,
        "a good start is there to be refined",
    ),
    "ISM": Row(
        INVERTED, r"from DDIM inversion of $x$ without prompt", r"$\epsilon_u$ at a less noisy $s$",
        ANNEALED, r"$0.1\, r_t$", "scenes of splats, on a large network",
    ),
    "ConsistentODE": Row(
        OWN, r"$\epsilon^*$", r"$\epsilon_g$ one DDIM step away", FALLS, "$1$",
        "to study the published sign",
    ),
    "FSD": Row(OWN, r"$\epsilon^*$", "$n$", FALLS, SQUARE, "diversity at SDS's cost"),
    "CFD": Row(OWN, r"$\epsilon^*$", "$n$", FALLS, RATIO, "diversity at SDS's cost"),
    "DSD": Row(OWN, PATH_N, AT_T_PRIME, FALLS, RATIO, "DDIM's result, seed by seed, of a picture"),
    "DSD reference": Row(
        OWN, PATH_N, r"$\epsilon_c$ at $t'$, same $n$", FALLS, SQUARE, "to compare with the code",
    ),
    "DSD unit gain": Row(
        OWN, PATH_N, r"$\epsilon_g$ at $t'$ with $r_{t'} = 2\, r_t$, same $n$", FALLS,
        r"$2\, r_t$", "scenes (ours)",
    ),
    "DSD x0": Row(OWN, PATH_N, "$n$", FALLS, RATIO, "scenes with held targets (ours)"),
    "DSD*": Row(
        OWN, "the prediction before", "$n$", "DDIM's levels", RATIO,
        "proofs; $x$ must be free to follow",
    ),
}  # fmt: skip
BASES = {"SDI t_first 0.1": "SDI", "SDI cached": "SDI", "DSD snap": "DSD"}
BASES["ConsistentODE abstract"] = "ConsistentODE"
ORIGINS = {label: ROWS[BASES.get(label, label)].origin for label in (*ROWS, *BASES)}
ORIGINS["SDI cached"] = OWN  # it inverts nothing: its first noise is e*, then its last prediction


def source(kind: type[Method]) -> list[str]:
    """The arXiv numbers that a method's module and docstring name, its own first."""
    text = f"{sys.modules[kind.__module__].__doc__} {kind.__doc__}"
    return list(dict.fromkeys(ARXIV.findall(text)))


def overview(prior: Prior, steps: int = 300) -> str:
    """A Markdown table of `ROWS`, with each method's source, and the predictions that one of so
    many steps costs on a prior.
    """
    heads = "method", "source", "noise $n$", "reference", "$t$", "$w$", "cost", "when"
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for label, row in ROWS.items():
        variant = next(v for v in VARIANTS.values() if v.label == label)
        paper = source(variant.kind)[PAPER.get(label, 0)]
        cost = f"{variant.make().total_evaluations(prior, steps) / steps:.1f}"
        cost = f"{cost} {TRAINED[label]}" if label in TRAINED else cost
        name = label.replace("*", r"\*")
        link = f"[{paper}](https://arxiv.org/abs/{paper})"
        cells = f"**{name}**", link, row.n, row.reference, row.t, row.w, cost, row.use
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)

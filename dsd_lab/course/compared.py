"""Tables of objects, read: as text, and which method is clearly better than another."""

from collections.abc import Mapping, Sequence

from ..metrics import aligned

# what a row is about; the rest was measured
ABOUT = (
    "prompt", "method", "settings", "refresh", "scenes", "objects", "nearest", "distances",
    "seconds",
)  # fmt: skip
HEADS = {"distinct": "nearest", "psnr": "PSNR"}
BETTER = {
    "distance": ("closer to true objects", -1),
    "pairwise": ("more diverse", 1),
    "named": ("more often named right", 1),
}


def by_prompt(rows: Sequence[Mapping]) -> dict[str, dict[str, Mapping]]:
    """A table's rows by prompt and method, in their order."""
    table: dict[str, dict[str, Mapping]] = {}
    for row in rows:
        table.setdefault(row["prompt"], {})[row["method"]] = row
    return table


def as_text(rows: Sequence[Mapping]) -> str:
    """A block for each prompt, a line for each method, and a column for whatever was measured.

    rows: as `dsd_lab.course.objects.load` and its like give them; an estimate is [value, low,
    high], or None.
    """
    blocks = []
    for prompt, methods in by_prompt(rows).items():
        measured = dict.fromkeys(key for row in methods.values() for key in row if key not in ABOUT)
        lines = {
            f"{name} ({row['scenes']} seeds)": {
                HEADS.get(key, key): _written(row.get(key)) for key in measured
            }
            for name, row in methods.items()
        }
        blocks.append(f"{prompt}\n{aligned(lines)}")
    return "\n\n".join(blocks)


def _written(value: int | float | str | Sequence[float] | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        middle, low, high = value
        return f"{middle:.3f} [{low:.3f}, {high:.3f}]"
    return str(value)


def clearly(one: Sequence[float] | None, other: Sequence[float] | None) -> int:
    """1 if the interval of `one`, [value, low, high], lies above the other's, -1 if below it, 0 if
    they touch or one of them was not measured.
    """
    if one is None or other is None:
        return 0
    return (one[1] > other[2]) - (one[2] < other[1])


def advantages(one: Mapping, other: Mapping) -> str:
    """In what one row is clearly better than another, in words."""
    found = [
        words
        for key, (words, sign) in BETTER.items()
        if clearly(one.get(key), other.get(key)) == sign
    ]
    return " and ".join(found) or "no clear advantage"


def tally(rows: Sequence[Mapping], base: str) -> str:
    """On how many prompts each method is clearly better than `base`, and worse, by each measure
    that the rows have.
    """
    table, lines = by_prompt(rows), {}
    for name in dict.fromkeys(row["method"] for row in rows if row["method"] != base):
        pairs = [(own[name], own[base]) for own in table.values() if name in own]
        lines[name] = {}
        for key in (key for key in BETTER if any(key in row for row in rows)):
            signs = [BETTER[key][1] * clearly(one.get(key), other.get(key)) for one, other in pairs]
            lines[name][key] = f"better {signs.count(1)}, worse {signs.count(-1)}"
    return aligned(lines)

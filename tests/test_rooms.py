"""The house: a room imports only rooms above it, no circles, and nothing grows too large."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "dsd_lab"
ROOMS = [  # from the ground up, as in the README's table
    {"files", "checks", "checkpoint", "gradients", "notebook", "picture_files", "shapes"}
    | {"threads"},
    {"schedule", "draws", "cameras", "inputs"}, {"worlds"},
    {"scene"}, {"priors"}, {"sampling"}, {"methods"}, {"distill"}, {"metrics"}, {"tasks"},
    {"viz"}, {"command"}, {"studies"}, {"minis"}, {"course"}, {"bench"}, {"cli"},
]  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
FILES = sorted(file for file in LIBRARY.rglob("*.py") if file != LIBRARY / "__init__.py")


def module(file: Path) -> str:
    """ "methods.dsd" for dsd_lab/methods/dsd.py, "methods" for its folder's __init__."""
    parts = file.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


def imports(file: Path) -> set[str]:
    """The library's modules that a file imports, at its top or in a function."""
    package = module(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    found = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {  # never run
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in (node for node in ast.walk(tree) if id(node) not in for_types):
        if not isinstance(node, ast.ImportFrom) or not (
            node.level or (node.module or "").split(".")[0] == "dsd_lab"
        ):
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        path = [part for part in (node.module or "").split(".") if part and part != "dsd_lab"]
        target = ".".join([*base, *path])
        for name in node.names:
            longer = f"{target}.{name.name}" if target else name.name
            found.add(longer if longer in MODULES else target)
    return found - {""}


@pytest.mark.parametrize("file", FILES, ids=module)
def test_a_room_imports_only_rooms_above_it(file):
    floor = FLOOR[module(file).split(".")[0]]
    for other in imports(file):
        room = other.split(".")[0]
        same_room = room == module(file).split(".")[0]
        assert FLOOR[room] < floor or same_room or FLOOR[room] == floor < 2, other


def test_no_circles():
    arrows = {name: imports(file) & set(MODULES) for name, file in MODULES.items()}
    done: set[str] = set()
    while leaves := {n for n, to in arrows.items() if n not in done and to - {n} <= done}:
        done |= leaves
    assert set(MODULES) == done, sorted(set(MODULES) - done)


def test_every_room_is_in_the_readmes_table():
    table = (LIBRARY.parent / "README.md").read_text(encoding="utf-8")
    for room in FLOOR:
        name = f"{room}/" if (LIBRARY / room).is_dir() else f"{room}.py"
        assert f"`{name}`" in table, name


def sizes(kind):
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield node.end_lineno - node.lineno + 1, f"{module(file)}.{node.name}"


@pytest.mark.parametrize(("kind", "most"), [(ast.FunctionDef, 60), (ast.ClassDef, 120)])
def test_nothing_is_too_long_to_read(kind, most):
    assert not {name for size, name in sizes(kind) if size > most}

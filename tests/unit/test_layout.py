"""The rooms of the repository and the corridors between them, read from the import statements, local ones included."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
OURS = ("recipe.critique_grpo", "verl_ext", "data_preprocess")
RECIPE = OURS[0]
LONGEST = 315
"""Lines of a file: about 300."""

Graph = Mapping[str, set[str]]


def sources() -> dict[str, Path]:
    """Every module of ours and its file."""
    files = [path for name in OURS for path in (ROOT / name.replace(".", "/")).rglob("*.py")]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def imported(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Names of modules that a file imports anywhere in it: ours as they are, others by their first part."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module


def graph() -> dict[str, set[str]]:
    modules = sources()
    return {name: set(imported(path, modules)) & set(modules) - {name} for name, path in modules.items()}


def circle(edges: Graph) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room(module: str) -> str:
    """The folder or top-level file that a module of the recipe belongs to."""
    return ".".join(module.split(".")[:3]) if module.startswith(RECIPE) else module.split(".")[0]


def test_no_module_imports_itself_round_a_corner() -> None:
    assert not circle(graph())


def test_no_room_either() -> None:
    rooms: dict[str, set[str]] = {}
    for module, others in graph().items():
        rooms.setdefault(room(module), set()).update(room(other) for other in others if room(other) != room(module))
    rooms.pop(RECIPE)  # the empty package itself
    assert not circle(rooms)


def test_a_circle_would_be_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_verl_ext_knows_nothing_of_the_recipe_and_nothing_imports_scripts_or_tests() -> None:
    modules = sources()
    for name, path in modules.items():
        found = {module.split(".")[0] for module in imported(path, modules)}
        assert not found & {"scripts", "tests", "conftest"}, name
        if name.startswith("verl_ext"):
            assert "recipe" not in found, name


@pytest.mark.parametrize("name", ["group_stage", "refiner", "refinement", "records", "rows", "stage_clock"])
def test_the_stage_knows_no_engine(name: str) -> None:
    """Nor does anything of ours that it imports: verl's trainers are in motion."""
    modules, edges = sources(), graph()
    seen: set[str] = set()
    todo = {f"{RECIPE}.rollout.{name}"}
    while todo:
        seen |= (module := {todo.pop()})
        todo |= set().union(*(edges[one] for one in module)) - seen
    outside = {module.split(".")[0] for one in seen for module in imported(modules[one], modules)}
    assert not outside & {"verl", "vllm", "ray", "torch"}, outside


def test_options_imports_nothing_of_ours() -> None:
    assert graph()[f"{RECIPE}.options"] == set()


def test_files_are_short() -> None:
    long = {name: lines for name, path in sources().items() if (lines := len(path.read_text().splitlines())) > LONGEST}
    assert not long

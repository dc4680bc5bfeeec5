"""What holds for the whole tree: imports go down, nothing is unpickled, documents name the token first."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A room may import what stands above it in this list, and rooms on one line never meet.
LAYERS = [
    {"torchvision_cpu", "device"},
    {"settings", "timeline", "totals"},
    {"storage", "progress", "concordance", "layers"},
    {"weights"},
    {"corpus"},
    {"learning"},
    {"modality"},
    {path.parent.name for path in (ROOT / "affect").glob("*/modality.py")} | {"fusion"},
    {"modalities"},
    {"plan"},
    {"tracks"},
    {"trained"},
    {"evaluation"},
    {"report"},
    {"console"},
    {"pipeline"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
SOURCES = sorted((ROOT / "affect").rglob("*.py")) + sorted((ROOT / "jobs").glob("*.py"))
BENCHMARKS = sorted((ROOT / "jobs" / "benchmarks").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EVERYTHING = SOURCES + BENCHMARKS + TESTS
MAX_LINES, MAX_LINES_OF_TESTS, MAX_LINES_OF_FUNCTION, MAX_PARAMETERS = 350, 500, 60, 8
RIDDLES = ("What ", "The same ", "How it is ")
"""Beginnings of docstrings that do not name their subject."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "affect":
                found |= {f"affect.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    """First part of a file's place in the package."""
    return path.relative_to(ROOT / "affect").with_suffix("").parts[0]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[-2] != "jobs"], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path: Path):
    own = room(path)
    if own == "__init__":
        return
    for name in imports(path):
        if not name.startswith("affect."):
            continue
        other = name.split(".")[1]
        assert own == other or LEVEL[other] < LEVEL[own], f"{own} imports {other}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_pipeline_imports_ray(path: Path):
    uses_ray = any(name.split(".")[0] == "ray" for name in imports(path))
    assert "pipeline" in path.parts or not uses_ray


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_unpickled_and_no_cv2(path: Path):
    names = {name.split(".")[0] for name in imports(path)}
    assert not names & {"pickle", "cloudpickle", "joblib", "dill", "cv2"}
    assert "torch.load(" not in path.read_text() and "allow_pickle=True" not in path.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.name)
def test_jobs_are_thin(path: Path):
    assert len(path.read_text().splitlines()) <= 100 or path.name == "benchmark.py"


def functions(path: Path) -> Iterator[Function]:
    """All functions and methods of a file, nested ones too."""
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))


def place(path: Path, node: ast.AST | None = None) -> str:
    """File and line, as an editor opens them."""
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def test_files_are_short():
    limits = dict.fromkeys(SOURCES, MAX_LINES) | dict.fromkeys(BENCHMARKS + TESTS, MAX_LINES_OF_TESTS)
    lengths = {path: len(path.read_text().splitlines()) for path in EVERYTHING}
    assert not [f"{place(path)}: {lengths[path]} lines" for path, limit in limits.items() if lengths[path] > limit]


def test_functions_are_short():
    lengths = {(path, f): (f.end_lineno or f.lineno) - f.lineno + 1 for path in EVERYTHING for f in functions(path)}
    long = {each: length for each, length in lengths.items() if length > MAX_LINES_OF_FUNCTION}
    assert not [f"{place(*each)}: {each[1].name} has {length} lines" for each, length in long.items()]


def num_parameters(function: Function) -> int:
    """Parameters that a caller may give; ``self`` and ``cls`` are not counted."""
    given = function.args
    named = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


def test_functions_have_few_parameters():
    many = [(path, f) for path in EVERYTHING for f in functions(path) if num_parameters(f) > MAX_PARAMETERS]
    assert not [f"{place(path, f)}: {f.name} has {num_parameters(f)} parameters" for path, f in many]


def public(node: ast.Module | ast.ClassDef) -> Iterator[ast.Module | ast.ClassDef | Function]:
    """A module or a class with its public classes, functions and methods."""
    yield node
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
            yield from public(child) if isinstance(child, ast.ClassDef) else [child]


@pytest.mark.parametrize("path", SOURCES + BENCHMARKS, ids=lambda p: str(p.relative_to(ROOT)))
def test_everything_public_has_a_docstring(path: Path):
    missing = [node for node in public(ast.parse(path.read_text())) if not ast.get_docstring(node)]
    assert not [place(path, node) for node in missing]


def docstrings(path: Path) -> Iterator[ast.Constant]:
    """All docstrings of a file: of modules, classes and functions, and of attributes, which they follow."""
    owners = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Module | ast.ClassDef | Function)]
    values = [child.value for owner in owners for child in owner.body if isinstance(child, ast.Expr)]
    return (value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str))


@pytest.mark.parametrize("path", SOURCES + BENCHMARKS, ids=lambda p: str(p.relative_to(ROOT)))
def test_docstrings_name_their_subject(path: Path):
    found = [node for node in docstrings(path) if str(node.value).strip().startswith(RIDDLES)]
    assert not [f"{place(path, node)}: {str(node.value).splitlines()[0]}" for node in found]


def test_exceptions_are_caught_broadly_only_where_neighbours_go_on_or_a_librarys_errors_have_no_class():
    broad = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) == "Exception"):
                broad.append(str(path.relative_to(ROOT)))
    onnx = ["affect/face/onnx_encoder.py"] * 3
    assert broad == [*onnx, "affect/pipeline/extract_actor.py", "affect/pipeline/guard.py", "affect/plan/probe.py"]


@pytest.mark.parametrize("name", ["README.md", "cluster/README.md"])
def test_whoever_starts_a_ray_is_told_to_set_its_token_first(name: str):
    """A Ray that finds a token asks for it, and its clients show it only when they are told to."""
    text = (ROOT / name).read_text()
    token, submitted = text.index("RAY_AUTH_MODE=token"), text.index("ray job submit --working-dir . --")
    assert "ray start --head --block" in text and (
        name != "README.md" or token < text.index("ray start --head --block")
    )
    assert token < max(submitted, text.rindex("ray job submit"))

"""The house stands on its ground floor: who may import whom, held against the sources; and a light front door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minimrcnn

ROOT = Path(minimrcnn.__file__).parent

# What each part of the package may import besides itself. A file of its own, or a folder.
ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "spelling": set(),
    "structures": {"exports"},  # only when a method of Detections is called
    "fields": set(),
    "config": {"fields"},
    "reference": set(),
    "archive": {"errors"},
    "weights": {"archive", "errors"},
    "environment": {"__init__", "kernels"},
    "kernels": set(),
    "device": {"errors", "kernels"},
    "tensor": {"device"},
    "functional": {"tensor", "device", "kernels", "geometry", "errors"},
    "nn": {"functional", "tensor", "device", "errors"},
    "geometry": {"kernels", "device", "structures", "errors"},
    "models": {
        *("nn", "functional", "tensor", "device", "kernels", "geometry"),
        *("structures", "config", "fields", "archive", "errors", "weights", "data.pictures", "data.rows"),
    },
    "data": {"archive", "geometry", "structures", "errors", "progress", "spelling"},
    "progress": {"spelling"},
    "chart": set(),
    "evaluate": {"geometry", "structures", "errors", "data", "progress"},
    "show": {"geometry", "structures", "errors", "data", "archive", "chart", "spelling"},
    "exports": {"geometry", "structures", "errors", "data", "archive", "evaluate", "show"},
    "explain": {
        *("models", "functional", "tensor", "kernels", "geometry"),
        *("structures", "config", "show", "data.pictures", "errors"),
    },
    "training": {
        *("models", "functional", "tensor", "device", "kernels", "geometry", "data"),
        *("archive", "environment", "show", "structures", "config", "fields", "errors", "weights", "progress"),
        *("chart", "evaluate", "spelling"),
    },
    "loading": {"models", "data", "structures", "config", "weights", "errors"},
    "overview": {"config", "data", "models", "show", "spelling"},
    "data_commands": {"archive", "data", "models", "overview", "recipes", "errors", "progress", "spelling"},
    "recipes": {"models", "training", "weights", "config", "data.rows", "errors"},
    "resuming": {"training", "errors"},
    "predicting": {"data", "archive", "errors", "show", "progress", "training", "spelling"},
    "hold_back": {"archive", "data", "models", "training", "weights"},
    "lessons": {"errors"},
    "grader": {"reference", "errors"},
    "cli": {"__init__", "commands", "data_commands", "resuming", "models", "lessons", "grader", "errors", "spelling"},
    "__main__": {"cli"},
}
ANYTHING = {"commands"}


def sources():
    return sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imported(path: Path) -> set[str]:
    """The modules of this package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:  # `from minimrcnn import archive` imports the module minimrcnn.archive
                name = f"{node.module}.{alias.name}"
                below = ROOT.parent.joinpath(*name.split("."))
                found.add(name if below.with_suffix(".py").exists() or below.is_dir() else node.module)
    return {name for name in found if name.split(".")[0] == "minimrcnn"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if part in ANYTHING:
        return
    assert part in ALLOWED, f"{part} is new: say in ALLOWED what it stands on"
    for module in imported(path):
        allowed = part_of(module) in ALLOWED[part] | {part} or module.removeprefix("minimrcnn.") in ALLOWED[part]
        assert allowed, f"{part} imports {module}"


def test_the_oracle_stands_alone():
    """Only the grader asks the textbook, about a student's functions."""
    assert "reference" not in set().union(*(allowed for part, allowed in ALLOWED.items() if part != "grader"))


def loaded_by(code: str) -> set[str]:
    listing = f"{code}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_by("import minimrcnn, minimrcnn.cli")
    assert not loaded & {"numpy", "numba", "scipy", "matplotlib", "PIL"}


def test_public_names_come_when_they_are_asked_for():
    assert {"numpy"} <= loaded_by("from minimrcnn import Target") and "numba" not in loaded_by(
        "from minimrcnn import Target, Config, Detections"
    )
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = minimrcnn.Nothing


def test_version_is_that_of_the_distribution():
    pyproject = ROOT.parent / "pyproject.toml"
    if pyproject.exists():  # beside the sources; an installed package has no such neighbor
        assert f'version = "{minimrcnn.__version__}"' in pyproject.read_text(encoding="utf-8")

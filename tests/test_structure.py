"""The shape of the code: who may import whom, no cycle, nothing at import, nothing global."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "imagesmith"

# Package -> packages of imagesmith it may import (itself always); the rules of the architecture, one line each.
SEEING = {"core", "image", "models", "nn", "engines", "vision", "editing", "evaluation", "exporting", "training"}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "nn": set(),
    "image": {"core"},
    "models": {"core"},
    "engines": {"core", "models"},
    "vision": {"core", "image"},
    "editing": {"core", "image", "vision"},
    "evaluation": {"core", "image", "vision"},
    "exporting": {"core", "models", "nn", "engines", "image", "vision", "evaluation"},
    "training": {"core", "image", "models", "nn", "vision", "evaluation"},
    "sight": {"core", "image", "models", "vision", "engines", "exporting"},
    "api": SEEING | {"sight"},
    "__main__": {"cli"},
    "cli": {"api", "sight", "core", "image", "models", "engines"},
}
# Libraries that may be imported at module level only in the packages about them.
HEAVY = {
    "torch": {"nn", "training", "exporting", "engines.torch", "engines.general"},
    "transformers": {"engines.general"},
    "lightning": {"training"},
    "onnxruntime": {"engines.onnx"},
    "openvino": {"engines.openvino", "exporting"},
    "onnx": {"exporting"},
    "scipy": {"training"},
    "faster_coco_eval": set(),
    "skimage": set(),
    "huggingface_hub": set(),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield (dotted name below imagesmith, path) of every module."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def type_checking_lines(tree: ast.Module) -> set[int]:
    """Return the lines that stand under `if TYPE_CHECKING:`; they import nothing at run time."""
    guarded = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    ]
    return {line for node in guarded for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (imported module, whether at module level) of one file, function-level imports included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = type_checking_lines(tree)
    inner = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node.lineno not in skipped:
            yield from ((alias.name, id(node) not in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.lineno not in skipped:
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            base = node.module or ""
            yield base, id(node) not in inner
            yield from ((f"{base}.{alias.name}", id(node) not in inner) for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Return module -> modules of imagesmith it imports anywhere."""
    names = {name for name, _ in modules()}
    edges: dict[str, set[str]] = {}
    for name, path in modules():
        found = {
            target.removeprefix("imagesmith").lstrip(".")
            for target, _ in imports(path)
            if target.startswith("imagesmith")
        }
        edges[name] = {target for target in found if target in names and target not in ("", name)}
    return edges


def package_of(module: str) -> str:
    return module.split(".")[0]


def test_every_import_is_allowed() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if module and package_of(target) != package_of(module) and package_of(target) not in ALLOWED[package_of(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_cycle() -> None:
    edges = graph()
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module in done:
            return
        for target in sorted(edges[module]):
            # A package's __init__ that gathers its own parts is no cycle: parts import siblings, never the package.
            visit(target, (*trail, module))
        done.add(module)

    for module in edges:
        visit(module, ())


def test_nobody_imports_cli() -> None:
    assert not [
        module
        for module, targets in graph().items()
        if package_of(module) not in {"cli", "__main__"} and "cli" in map(package_of, targets)
    ]


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_libraries_load_only_where_they_are_used(library: str) -> None:
    wrong = [
        module
        for module, path in modules()
        for target, at_top in imports(path)
        if at_top
        and target.split(".")[0] == library
        and not any(f"{module}.".startswith(f"{home}.") for home in HEAVY[library])
    ]
    assert not wrong, f"{library} is imported at module level by {wrong}"


def test_core_needs_little() -> None:
    known = {"numpy", "pydantic", "pluggy", "imagesmith", *sys.stdlib_module_names}
    wrong = [
        (module, target)
        for module, path in modules()
        if package_of(module) == "core"
        for target, _ in imports(path)
        if target.split(".")[0] not in known
    ]
    assert not wrong


def test_no_global_and_no_state_at_module_level() -> None:
    wrong = []
    for module, path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wrong += [f"{module}:{node.lineno} global" for node in ast.walk(tree) if isinstance(node, ast.Global)]
        for node in tree.body:
            value = getattr(node, "value", None) if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.List | ast.Dict | ast.Set) and not (value_is_filled(value)):
                wrong.append(f"{module}:{node.lineno} an empty container at module level is state")
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                wrong.append(f"{module}:{node.lineno} a call at import")
    assert not wrong, "\n".join(wrong)


def value_is_filled(value: ast.List | ast.Dict | ast.Set) -> bool:
    return bool(value.keys if isinstance(value, ast.Dict) else value.elts)


def test_unsafe_loaders_stand_in_one_place() -> None:
    places = set()
    for module, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in {"torch.load", "pickle.load", "pickle.loads", "joblib.load"}:
                    places.add(module)
                assert not (called == "np.load" and "allow_pickle=True" in ast.unparse(node)), module
    assert places <= {"models.checkpoint"}, places


def test_import_is_light() -> None:
    code = (
        "import sys, imagesmith; import imagesmith.core.requests;"
        "heavy = {'torch', 'onnxruntime', 'openvino', 'transformers', 'lightning', 'scipy', 'PIL', 'huggingface_hub'};"
        "sys.exit(str(sorted(heavy & set(sys.modules)) if heavy & set(sys.modules) else ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("", "None"), done.stderr


def test_sizes_are_reported() -> None:
    """Print what is large, for the reader of the test's output; sizes keep files pleasant, they do not fail."""
    for module, path in modules():
        text = path.read_text(encoding="utf-8")
        lines, limit = text.count("\n"), 500 if package_of(module) == "nn" else 400
        if lines > limit:
            warnings.warn(f"{module} has {lines} lines", stacklevel=1)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 80:
                warnings.warn(f"{module}.{node.name} has {(node.end_lineno or 0) - node.lineno} lines", stacklevel=1)

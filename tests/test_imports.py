"""Import rules that import-linter's contracts (pyproject.toml) do not check: late imports, their
order, what tests import, and that the command line starts at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

HOUSE = ("app", "pipeline", "render")
OPTIONAL = {"pyrender", "trimesh", "OpenGL", "pyglet", "smplx", "anny", "mediapipe"}
OPTIONAL |= {"onnx", "onnxruntime", "safetensors", "yaml", "huggingface_hub"}
OPTIONAL |= {"pandas", "matplotlib", "IPython"}


def modules() -> dict[str, Path]:
    """Our modules by dotted name, outside tests and samples."""
    paths = (path for part in HOUSE for path in (ROOT / part).rglob("*.py"))
    return {dotted(path.relative_to(ROOT)): path for path in paths}


def dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> set[str]:
    """Every module that ``source`` imports anywhere in it, as absolute dotted names; for ``from a
    import b`` both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, *([base] if base else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def test_optional_packages_are_imported_inside_a_function():
    for module, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = imports(ast.unparse(node), module)
                top = {name.split(".")[0] for name in names}
                assert not top & OPTIONAL, f"{module} imports {top & OPTIONAL} when it is imported"


def test_cv2_comes_before_av():
    """The other way round OpenCV's windows can hang."""
    for module, path in modules().items():
        order = [
            name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for name in (alias.name for alias in node.names)
            if name in ("cv2", "av")
        ]
        if set(order) == {"cv2", "av"}:
            assert order.index("cv2") < order.index("av"), module


SLOW = {"torch", "numpy", "cv2", "av", "numba", "scipy"}


def loaded_by(*words: str) -> set[str]:
    """The modules that a command line has loaded when it ends."""
    script = f"import sys, app.cli; app.cli.main({list(words)}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_command_line_imports_nothing_slow():
    for words in ("run --help", "run a.mp4 --peple 3", "run a.mp4", "fly", ""):
        loaded = loaded_by(*words.split())
        assert "app.config" in loaded
        # Not rich: cyclopts prints its help through it.
        assert not loaded & SLOW, words


def test_the_public_names_are_imported_when_they_are_used():
    script = """
import sys, bodystream
assert not {"torch", "numpy", "pipeline.runtime.stream"} & set(sys.modules)
for name in bodystream.__all__:
    assert getattr(bodystream, name) is not None, name
    assert name in dir(bodystream)
assert "torch" in sys.modules
try:
    bodystream.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "module 'bodystream' has no attribute 'nothing'\n"


def test_type_checkers_see_every_public_name_in_its_place():
    import bodystream

    tree = ast.parse((ROOT / "bodystream.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == bodystream._HOMES


def test_helpers_are_imported_from_support_and_not_from_a_test():
    """A test file may then be moved, split or run alone."""
    for folder in ("tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            module = dotted(path.relative_to(ROOT))
            names = imports(path.read_text(), module)
            found = {name for name in names if name.split(".")[-1].startswith("test_")}
            assert not found, f"{module} imports {found}"

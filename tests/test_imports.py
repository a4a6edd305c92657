"""Who may import whom (ARCHITECTURE.md), and that nothing slow is imported by the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("app", "pipeline", "render")
SIBLINGS = ("pipeline.capture", "pipeline.perceive", "pipeline.body")
GROUND_FLOOR = ("pipeline.frame", "pipeline.people")
MEETING_PLACES = ("pipeline.infer", "pipeline.lane", "pipeline.runner", "pipeline.station")
EVERY_PART = ("app.build", "app.show", "app.events.desk")
RECIPES = ("pipeline.lifter_recipe", "pipeline.event_recipe")
OPTIONAL = {"pyrender", "trimesh", "OpenGL", "pyglet", "smplx", "anny", "mediapipe"}


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


def within(name: str, parts: tuple[str, ...]) -> str | None:
    """The part among ``parts`` that a dotted name lies in."""
    return next((part for part in parts if name == part or name.startswith(f"{part}.")), None)


def forbidden(module: str, imported: str) -> str | None:
    """Why ``module`` may not import ``imported``, or None."""
    here, there = within(module, HOUSE), within(imported, HOUSE)
    if there is None:
        return None
    if within(module, GROUND_FLOOR) and not within(imported, (module,)):
        return "the ground floor imports nothing of ours"
    if here in ("pipeline", "render") and there != here:
        return f"{here} knows neither {there} nor anything else of ours"
    if within(imported, RECIPES) and within(imported, RECIPES) != within(module, RECIPES):
        return "a recipe made what is shipped; nothing that runs needs it"
    sibling, other = within(module, SIBLINGS), within(imported, SIBLINGS)
    if sibling and other and sibling != other:
        return f"{sibling} and {other} are siblings that do not import one another"
    if sibling and within(imported, MEETING_PLACES):
        return f"{sibling} does not import what joins it to the others"
    if module == "app" and within(imported, HOUSE) != "app":
        return "app/__init__.py stays empty, so that the command line starts at once"
    return None


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_module_keeps_to_the_rules(module):
    path = modules()[module]
    found = imports(path.read_text(), module, path.name == "__init__.py")
    broken = {name: forbidden(module, name) for name in sorted(found)}
    assert {name: why for name, why in broken.items() if why} == {}


def test_only_build_show_and_desk_join_pipeline_and_drawing():
    """Three files know every part: one makes them, one draws what comes of them, one their
    events."""
    for module, path in modules().items():
        found = imports(path.read_text(), module, path.name == "__init__.py")
        joins = any(within(name, MEETING_PLACES) for name in found)
        draws = any(within(name, ("render",)) for name in found)
        assert not (joins and draws) or module in EVERY_PART, module


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


@pytest.mark.parametrize(
    ("module", "source", "why"),
    [
        ("pipeline.frame", "import pipeline.people", "ground floor"),
        ("pipeline.people", "from . import ring", "ground floor"),
        ("pipeline.ring", "from app.config import Config", "pipeline knows neither app"),
        ("render.overlay", "from pipeline.frame import Frame", "render knows neither pipeline"),
        ("render.overlay", "import app", "render knows neither app"),
        ("pipeline.body.fit", "def f():\n    from ..perceive import base", "siblings"),
        ("pipeline.capture.clip", "from pipeline import body", "siblings"),
        ("pipeline.body.fit", "from pipeline.lifter_recipe import train", "recipe"),
        ("app.build", "from pipeline import lifter_recipe", "recipe"),
        ("app.events.record", "from pipeline.event_recipe.learn import table", "recipe"),
        ("pipeline.perceive.base", "from pipeline.infer import Inference", "joins it"),
    ],
)
def test_the_rules_catch_what_breaks_them(module, source, why):
    reasons = [forbidden(module, name) or "" for name in imports(source, module)]
    assert any(why in reason for reason in reasons)


def test_the_command_line_imports_nothing_slow():
    script = "import sys, app.cli; app.cli.main(['run', '--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "app.config" in loaded
    assert not loaded & {"torch", "numpy", "cv2", "av", "rich", "numba", "scipy"}

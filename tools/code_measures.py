"""Measures how readable the code is: ``python -m tools.code_measures [CHECKOUT...]``.

Prints a table with a column for each checkout: lines a file and a function, docstrings with
sections, comments, typed parameters, words of the README. Files of app, pipeline and render count.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from pathlib import Path

import numpy as np

_PARTS = ("app", "pipeline", "render")
_SECTIONS = re.compile(r"(?m)^\s*(Args|Attributes|Returns|Yields|Raises):")
_DIRECTIVE = re.compile(r"#\s*(noqa|type:|fmt:|isort)")
_SHORTEST = 3
"""Files of fewer lines are package markers."""


def measure(checkout: Path) -> dict[str, str]:
    """Return the measures of a checkout, as they stand in the table."""
    texts = [p.read_text() for part in _PARTS for p in sorted((checkout / part).rglob("*.py"))]
    texts = [text for text in texts if text.count("\n") >= _SHORTEST]
    lines = np.array([text.count("\n") for text in texts])
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = np.array([(n.end_lineno or n.lineno) - n.lineno + 1 for n in functions])
    documented = [*functions, *(n for n in nodes if isinstance(n, ast.ClassDef))]
    public = [
        text for n in documented if not n.name.startswith("_") and (text := ast.get_docstring(n))
    ]
    parameters = [
        a for n in functions for a in (*n.args.args, *n.args.kwonlyargs) if a.arg not in _SELF
    ]
    comments = sum(_comments(text) for text in texts)
    return {
        "files": str(len(texts)),
        "lines a file, median / p90": _quantiles(lines),
        "lines a function, median / p90": _quantiles(lengths),
        "public docstrings with Args, Returns, Raises or Attributes, %": _share(
            sum(bool(_SECTIONS.search(text)) for text in public), len(public)
        ),
        "comment lines in 100": f"{100 * comments / lines.sum():.1f}",
        "typed parameters, %": _share(
            sum(a.annotation is not None for a in parameters), len(parameters)
        ),
        "files over 300 lines": str(int((lines > 300).sum())),
        "words in README": f"{len((checkout / 'README.md').read_text().split()):,}",
    }


_SELF = ("self", "cls")


def _quantiles(values: np.ndarray) -> str:
    return f"{np.median(values):.0f} / {np.quantile(values, 0.9):.0f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.0f}"


def _comments(text: str) -> int:
    """Comments that a person reads: directives to linters do not count."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(t.type == tokenize.COMMENT and not _DIRECTIVE.match(t.string) for t in tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description="measure how readable the code is")
    parser.add_argument("checkout", type=Path, nargs="*", default=[Path()])
    checkouts = parser.parse_args().checkout
    columns = [measure(checkout) for checkout in checkouts]
    print(f"| | {' | '.join(checkout.resolve().name for checkout in checkouts)} |")
    print(f"|---|{'--:|' * len(columns)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


if __name__ == "__main__":
    main()

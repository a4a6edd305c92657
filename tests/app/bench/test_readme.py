"""The tables of the benchmark's files."""

from __future__ import annotations

import pytest

from app.bench import readme, results
from tests.support.bench import MACHINE, merged, record
from tests.support.paths import ROOT


def test_the_readmes_tables_are_the_files(tmp_path):
    page, folder = tmp_path / "README.md", tmp_path / "bench"
    page.write_text(f"# Title\n\n{readme.BEGIN}\nold\n{readme.END}\n\nthe end\n")
    assert readme.update(page, folder)
    assert "Nothing has been measured yet" in page.read_text()
    cpu = record("default-cpu", 100.0, floors_ms={"fit": 5.0}, efficiency={"fit": 0.1})
    gpu = record("default", 8.0, predicted_rtx4090_ms=12.3, kernels={"fit": 7})
    held = record("streams-p4", 120.0, streams=21, people=4)
    results.write(folder / "b.json", merged(cpu, gpu, held))
    results.write(folder / "a.json", merged(cpu, machine={**MACHINE, "cpu": "slide rule"}))
    assert readme.update(page, folder)
    text = page.read_text()
    assert text.startswith("# Title\n\n")
    assert text.endswith(f"{readme.END}\n\nthe end\n")
    assert "old" not in text
    assert text.index("slide rule") < text.index("abacus"), "by file name"
    assert "| `default` | default | 8 | 16 | 4 | 2 | 12.5x |  | 12.3 |" in text
    assert "| `streams-p4` | 4 | 64x64 | 21 | 120 | 240 |" in text
    assert "RTX 4090, *predicted*" in text
    assert "Not measured on this machine: `baseline`, " in text
    assert "`default-nograph`" in text
    assert not readme.update(page, folder), "the same files give the same text"


def test_a_readme_without_the_marks_is_left_alone(tmp_path):
    page = tmp_path / "README.md"
    for text in ("nothing", f"{readme.END} {readme.BEGIN}", f"{readme.BEGIN} {readme.BEGIN}"):
        page.write_text(text)
        with pytest.raises(ValueError, match="has no place for the table"):
            readme.update(page, tmp_path / "bench")
        assert page.read_text() == text


def test_this_readme_is_up_to_date(tmp_path):
    page = tmp_path / "h100.md"
    page.write_text((ROOT / "docs" / "results" / "h100.md").read_text())
    assert not readme.update(page, ROOT / "docs" / "bench"), "run `bodystream bench --readme`"

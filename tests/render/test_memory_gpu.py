"""The working memory of drawing: what turns share, and what each has to itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from render import memory_gpu
from render.memory_gpu import DrawingMemory

CPU = torch.device("cpu")


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6))
def test_a_table_arrives_whole_whatever_came_before(sizes):
    memory = DrawingMemory(CPU)
    for size in sizes:
        with memory.turn(8, 1, 3, 1):
            written, words = memory.table(size)
            written[:] = np.arange(size)
            memory.send_table()
            assert torch.equal(words, torch.arange(size))
            assert len(memory.samples) >= 8
            assert len(memory.points) >= 12
    assert len(memory._pages) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=12))
def test_a_page_is_written_again_only_when_its_drawing_is_done(turns):
    """Each turn says which of the pages that were used so far are done by then."""
    memory = DrawingMemory(CPU)
    busy: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_gpu._Page, "is_free", lambda page: id(page) not in busy)
        for done in turns:
            known = [id(page) for page in memory._pages]
            busy -= {page for page, is_done in zip(known, done) if is_done}
            with memory.turn(0, 0, 0, 0):
                memory.table(4)
                page = id(memory._pages[-1])
                assert page not in busy
            busy.add(page)
        assert len(memory._pages) <= len(turns) + 1


def test_a_drawing_that_fails_ends_its_turn():
    memory = DrawingMemory(CPU)
    with pytest.raises(ValueError, match="wrong"), memory.turn(0, 0, 0, 0):
        raise ValueError("wrong")
    with memory.turn(0, 0, 0, 0):
        assert len(memory.table(3)[0]) == 3

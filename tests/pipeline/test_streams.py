"""Blocks of Ray Data's streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect.pipeline.streams import BLOCKS_PER_ACTOR, MAX_ROWS, SINGLE_FIRST, in_blocks


@given(st.integers(1, 5000), st.integers(1, 64))
def test_every_row_is_in_one_block_in_order_and_blocks_are_single_at_first_and_where_rows_are_few(
    rows: int, actors: int
):
    numbers = [{"number": number} for number in range(rows)]
    blocks = in_blocks(numbers, actors)
    assert [row for block in blocks for row in block] == numbers
    assert all(1 <= len(block) <= MAX_ROWS for block in blocks)
    assert all(len(block) == 1 for block in blocks[:SINGLE_FIRST])
    if rows < 2 * BLOCKS_PER_ACTOR * actors:
        assert len(blocks) == rows
    else:
        assert len(blocks) >= BLOCKS_PER_ACTOR * actors


@pytest.mark.parametrize(("rows", "actors", "largest"), [(10, 1, 1), (100, 1, 2), (100, 4, 1), (10_000, 4, 16)])
def test_blocks_have_several_rows_where_there_are_many_more_rows_than_actors(rows: int, actors: int, largest: int):
    assert max(map(len, in_blocks([{}] * rows, actors))) == largest

"""Blocks of Ray Data's streams, and actors whose work dies or fails."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect.pipeline.guard import Guarded
from affect.pipeline.streams import BLOCKS_PER_ACTOR, MAX_ROWS, SINGLE_FIRST, in_blocks, pool
from affect.settings.extraction import Pool
from affect.storage import files
from affect.storage.attempts import Attempts
from affect.storage.store import Store


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


class Work:
    """Work that may kill its process or hang, as units that are so named."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Does it."""
        unit = batch["unit"][0]
        if unit == "dies":
            os._exit(1)
        if unit == "raises":
            raise FloatingPointError("nothing is finite")
        if unit == "full":
            raise OSError(errno.ENOSPC, "no space left")
        return {"unit": [unit], "status": ["ok"], "reason": [""]}


class Reported(Work):
    """Such work whose failures are rows."""

    def failed(self, batch: dict[str, Any], reason: str) -> dict[str, Any]:
        """The row of a failure."""
        return {"unit": [batch["unit"][0]], "status": ["failed"], "reason": [reason]}


def unit(name: str) -> dict[str, Any]:
    """A row of work."""
    return {"unit": name, "length_s": 1.0}


@pytest.mark.slow
def test_work_that_kills_its_process_is_given_up_and_the_rest_is_done(local_ray: str, tmp_path: Path):
    store, rows = Store(str(tmp_path)), [unit(name) for name in ("a", "dies", "b", "raises", "c")]
    found = {row["unit"]: row for row in pool(rows, Reported, (), Pool(num_cpus=0.5, max_actors=1), "test", store)}
    assert {name for name, row in found.items() if row["status"] == "ok"} == {"a", "b", "c"}
    assert "its process died 3 times" in found["dies"]["reason"]
    assert found["raises"]["reason"] == "FloatingPointError: nothing is finite"
    assert not list(files.walk(store.uri))


def test_work_whose_failures_are_no_rows_ends_the_job(local_ray: str, tmp_path: Path):
    attempts = Attempts(Store(str(tmp_path)), "run")
    for actor, name, error in ((Work, "raises", FloatingPointError), (Reported, "full", OSError)):
        guarded = Guarded(actor, (), "test", attempts)
        with pytest.raises(error):
            guarded({"unit": [name], "length_s": [0.0]})
        assert guarded({"unit": ["a"], "length_s": [0.0]})["status"] == ["ok"]
    for _ in range(3):
        attempts.begin("often")
    with pytest.raises(ValueError, match="often: its process died 3 times, or was stopped after 21600 s"):
        Guarded(Work, (), "test", attempts)({"unit": ["often"], "length_s": [0.0]})
    assert attempts.begin("often") == 0
    (tmp_path / "file").touch()
    unwritable = Attempts(Store(str(tmp_path / "file")), "run")  # as a store that can only be read
    assert Guarded(Work, (), "test", unwritable)({"unit": ["a"], "length_s": [0.0]})["status"] == ["ok"]

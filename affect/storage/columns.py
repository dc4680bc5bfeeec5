"""Conversions between Arrow columns and numpy arrays, without a Python object per value."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from numpy import ndarray


def matrix(column: pa.ChunkedArray, width: int | None = None) -> ndarray:
    """Array (rows, length) of a column of lists of equal length; a view where the column is one chunk.

    Args:
        column: lists of numbers, all of one length, without nulls.
        width: length of the lists; found from the data if not given, 0 for a column without rows.
    """
    values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    if width is None:
        width = len(flat) // len(values) if len(values) else 0
    return flat.reshape(len(values), width)


def list_column(values: ndarray, kind: pa.DataType, valid: Bool[ndarray, " rows"] | None = None) -> pa.ListArray:
    """Column of lists of equal length, the reverse of :func:`matrix`.

    Args:
        values: array (rows, length).
        kind: Arrow type of the values.
        valid: rows that have a list; the others are null.
    """
    width = values.shape[1]
    if valid is None:
        return ragged(values.reshape(-1), np.full(len(values), width), kind)
    return ragged(values[valid].reshape(-1), width * valid, kind, valid)


def ragged(
    values: ndarray, lengths: Int[ndarray, " rows"], kind: pa.DataType, valid: Bool[ndarray, " rows"] | None = None
) -> pa.ListArray:
    """Column of lists of any length.

    Args:
        values: values of all lists, one list after the other.
        lengths: length of each list.
        kind: Arrow type of the values.
        valid: rows that have a list; the others are null and have length 0.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = pa.array(values.astype(kind.to_pandas_dtype(), copy=False), kind)
    return pa.ListArray.from_arrays(offsets, flat, mask=None if valid is None else pa.array(~valid))


def array(column: pa.ChunkedArray) -> ndarray:
    """Array of a column of numbers without nulls."""
    return column.to_numpy()


def nullable(table: pa.Table, *names: str) -> Float[ndarray, "rows columns"]:
    """Array of several columns of numbers, float64, NaN for null."""
    columns: Sequence[ndarray] = [table[name].cast(pa.float64()).to_numpy() for name in names]
    return np.stack(columns, axis=1)

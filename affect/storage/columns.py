"""Arrow columns and numpy arrays, without a Python object per value."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from numpy import ndarray


def matrix(column: pa.ChunkedArray, width: int | None = None) -> ndarray:
    """A column of lists of one length as (rows, length): a view of one chunk, without a Python object per value."""
    values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    if width is None:
        width = len(flat) // len(values) if len(values) else 0
    return flat.reshape(len(values), width)


def rows_of(values: ndarray, kind: pa.DataType, valid: Bool[ndarray, " rows"] | None = None) -> pa.ListArray:
    """The reverse of :func:`matrix`; null where not valid."""
    width = values.shape[1]
    if valid is None:
        return ragged(values.reshape(-1), np.full(len(values), width), kind)
    return ragged(values[valid].reshape(-1), width * valid, kind, valid)


def ragged(
    values: ndarray, lengths: Int[ndarray, " rows"], kind: pa.DataType, valid: Bool[ndarray, " rows"] | None = None
) -> pa.ListArray:
    """A column of lists of any length, whose values lie one after the other; null where not valid."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = pa.array(values.astype(kind.to_pandas_dtype(), copy=False), kind)
    return pa.ListArray.from_arrays(offsets, flat, mask=None if valid is None else pa.array(~valid))


def array(column: pa.ChunkedArray) -> ndarray:
    """A column of numbers without nulls."""
    return column.to_numpy()


def nullable(table: pa.Table, *names: str) -> Float[ndarray, "rows columns"]:
    """Columns side by side in float64, null as NaN."""
    columns: Sequence[ndarray] = [table[name].cast(pa.float64()).to_numpy() for name in names]
    return np.stack(columns, axis=1)

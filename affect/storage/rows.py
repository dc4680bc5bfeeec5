"""Tables read row by row: memory-mapped on a disk, by byte range in a bucket."""

import resource
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from affect.storage import files


class Rows(Sequence[Any]):
    """Rows of one object; each row is read on access and not kept in memory.

    Args:
        uri: an Arrow file with one record batch per row, as :meth:`affect.storage.store.Store.put` writes for keys
            that end in ``.rows.arrow``.
        decode: converts a row's record batch to the returned value.
    """

    def __init__(self, uri: str, decode: Callable[[pa.RecordBatch], Any]) -> None:
        """Stores the place; the file is opened at the first access."""
        self._uri, self._decode = uri, decode
        self._reader: pa.ipc.RecordBatchFileReader | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return self._opened().num_record_batches

    def __getitem__(self, number: Any) -> Any:  # noqa: ANN401 -- Sequence also has slices, which are not supported
        """Reads and decodes one row."""
        return self._decode(self._opened().get_batch(range(len(self))[number]))

    def __getstate__(self) -> dict[str, Any]:
        """Pickles without the open file."""
        return {**self.__dict__, "_reader": None}

    def _opened(self) -> "pa.ipc.RecordBatchFileReader":
        if self._reader is None:
            system, path = files.resolve_parent(self._uri)
            local = isinstance(system, LocalFileSystem)
            file = pa.memory_map(path) if local else pa.PythonFile(system.open(path, "rb", cache_type="none"), "r")
            try:
                self._reader = pa.ipc.open_file(file)
            except pa.ArrowInvalid as error:
                raise ValueError(
                    f"{self._uri} is damaged, delete it and run the same command again: {error}"
                ) from error
        return self._reader


def encode_rows(table: pa.Table) -> bytes:
    """Encodes a table as an uncompressed Arrow file with one record batch per row; equal tables give equal bytes."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        for row in table.to_batches(max_chunksize=1):
            writer.write_batch(row)
    return buffer.getvalue().to_pybytes()


def raise_open_file_limit() -> None:
    """Raises this process' limit of open files to the system's maximum: every mapped table is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

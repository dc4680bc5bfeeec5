"""Objects of the store that are read row by row: mapped from a disk, by range from a bucket."""

import resource
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from affect.storage import files


class Rows(Sequence[Any]):
    """Rows of one object, each read when it is asked for; nothing else of it is ever in memory.

    Args:
        uri: an Arrow file with a record batch per row, as :meth:`affect.storage.store.Store.put` writes those whose
            key ends in ``.rows.arrow``.
        decode: makes of a row's batch what is returned.
    """

    def __init__(self, uri: str, decode: Callable[[pa.RecordBatch], Any]) -> None:
        """Nothing is opened before the first row is asked for."""
        self._uri, self._decode = uri, decode
        self._reader: pa.ipc.RecordBatchFileReader | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return self._opened().num_record_batches

    def __getitem__(self, number: Any) -> Any:  # noqa: ANN401 -- Sequence wants slices, too, which nobody asks for
        """Read a row."""
        return self._decode(self._opened().get_batch(range(len(self))[number]))

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the open file."""
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
    """A table as an uncompressed Arrow file with a record batch per row; the same table gives the same bytes."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        for row in table.to_batches(max_chunksize=1):
            writer.write_batch(row)
    return buffer.getvalue().to_pybytes()


def open_many_files() -> None:
    """Let this process keep as many files open as the system allows: every mapped table is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

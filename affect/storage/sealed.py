"""A table as the bytes of an object, with a note of which a part is length and checksum of what it holds.

The same table and note give the same bytes. Parquet has the note in its footer, Arrow files in their schema.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from affect.storage import schema
from affect.storage.rows import encode_rows

NOTE = b"affect"
"""What the note is called in a file's metadata."""
NOT_AS_WRITTEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading something else than what was written may raise, besides Arrow's own errors."""


def to_parquet(table: pa.Table, note: dict[str, Any]) -> bytes:
    """A table as Parquet, compressed; the checksum is of all that is before the footer."""
    buffer = io.BytesIO()
    repeating = [field.name for field in table.schema if pa.types.is_string(field.type)]
    # numbers of models hardly repeat: a dictionary of them takes twice the time and more room
    with pq.ParquetWriter(
        buffer, table.schema, compression="zstd", use_dictionary=repeating, store_schema=True
    ) as writer:
        writer.write_table(table)
        note = note | _seal([buffer.getbuffer()]) | _name(table, note)
        writer.add_key_value_metadata({NOTE: json.dumps(note).encode()})
    return buffer.getvalue()


def from_parquet(content: pa.Buffer) -> tuple[pa.Table, dict[str, Any]]:
    """Read it and its note.

    Raises:
        ValueError: it is not what was written.
    """
    file = pq.ParquetFile(content)
    note = read_note(file.metadata.metadata)
    footer = 8 + int.from_bytes(content.slice(content.size - 8, 4), "little")
    _compare(note, _seal([content.slice(0, content.size - footer)]))
    table = file.read()
    _compare(note, _name(table, note))
    return table, note


def to_arrow(table: pa.Table, note: dict[str, Any], *, by_row: bool) -> bytes:
    """A table as an uncompressed Arrow file of one batch, or of one per row; the checksum is of the batches."""
    table = table.combine_chunks()
    noted = json.dumps(note | _seal(_parts(table, by_row=by_row)) | _name(table, note)).encode()
    table = table.replace_schema_metadata({NOTE: noted})
    if by_row:
        return encode_rows(table)
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def from_arrow(source: Any) -> tuple[pa.Table, dict[str, Any]]:  # noqa: ANN401 -- pyarrow has no common type
    """Read it, or map it into memory, and its note; the checksum is not looked at."""
    table = pa.ipc.open_file(source).read_all()
    return table, read_note(table.schema.metadata)


def check_arrow(table: pa.Table) -> None:
    """Compare a table that was read from an Arrow file with the note in its schema.

    Raises:
        ValueError: they are not what was written.
    """
    table.validate(full=True)  # what points out of its buffer may not be touched
    note = read_note(table.schema.metadata)
    _compare(note, _seal(_parts(table, by_row=False)) | _name(table, note))


def read_note(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The note in a file's metadata.

    Raises:
        ValueError, or another of :data:`NOT_AS_WRITTEN`: it is none of ours.
    """
    note = json.loads(metadata[NOTE])
    if note.get("status", "ok") not in ("ok", "degraded", "failed") or not isinstance(note.get("reason", ""), str):
        raise ValueError(f"status {note.get('status')!r} is none")
    return note


def _parts(table: pa.Table, *, by_row: bool) -> Iterable[pa.Buffer]:
    return (b.serialize() for b in table.to_batches(max_chunksize=1 if by_row else None) if b.num_rows)


def _seal(parts: Iterable[Any]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        size += len(part)
    return {"schema": schema.VERSION, "bytes": size, "sha256": digest.hexdigest()}


def _name(table: pa.Table, note: dict[str, Any]) -> dict[str, Any]:
    """Checksum of how a unit ended and of what its columns are called."""
    told = json.dumps([note.get("status"), note.get("reason"), table.schema.names])
    return {"told": hashlib.sha256(told.encode()).hexdigest()}


def _compare(note: dict[str, Any], found: dict[str, Any]) -> None:
    """Compare with what was noted; earlier versions noted nothing."""
    for name in {"bytes", "sha256", "told"} & found.keys():
        if note.get(name, found[name]) != found[name]:
            raise ValueError(f"{name} {found[name]}, and {note[name]} were written")

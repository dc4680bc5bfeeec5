"""Encoding of tables as Parquet or Arrow files with a note: JSON metadata that holds the data's length and checksum.

Equal tables and notes give equal bytes. The note is in the footer of a Parquet file and in the schema of an Arrow file.
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
"""Key of the note in a file's metadata."""
DECODE_ERRORS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors of decoding damaged bytes or a foreign file, besides Arrow's own errors."""


def to_parquet(table: pa.Table, note: dict[str, Any]) -> bytes:
    """Encodes a table as compressed Parquet; the checksum covers all bytes before the footer."""
    buffer = io.BytesIO()
    repeating = [field.name for field in table.schema if pa.types.is_string(field.type)]
    # floats rarely repeat: dictionary encoding of them takes twice the time and more space
    with pq.ParquetWriter(
        buffer, table.schema, compression="zstd", use_dictionary=repeating, store_schema=True
    ) as writer:
        writer.write_table(table)
        note = note | _data_checksum([buffer.getbuffer()]) | _header_checksum(table, note)
        writer.add_key_value_metadata({NOTE: json.dumps(note).encode()})
    return buffer.getvalue()


def from_parquet(content: pa.Buffer) -> tuple[pa.Table, dict[str, Any]]:
    """Decodes a Parquet file written by :func:`to_parquet`: table and note.

    Raises:
        ValueError: length or checksum differ from the note; or another of :data:`DECODE_ERRORS`.
    """
    file = pq.ParquetFile(content)
    note = read_note(file.metadata.metadata)
    footer = 8 + int.from_bytes(content.slice(content.size - 8, 4), "little")
    _compare(note, _data_checksum([content.slice(0, content.size - footer)]))
    table = file.read()
    _compare(note, _header_checksum(table, note))
    return table, note


def to_arrow(table: pa.Table, note: dict[str, Any], *, by_row: bool) -> bytes:
    """Encodes a table as an uncompressed Arrow file; the checksum covers its record batches.

    Args:
        table: the table.
        note: further entries of the note; plain JSON.
        by_row: whether each row is a record batch; otherwise there is one batch.
    """
    table = table.combine_chunks()
    noted = json.dumps(note | _data_checksum(_parts(table, by_row=by_row)) | _header_checksum(table, note)).encode()
    table = table.replace_schema_metadata({NOTE: noted})
    if by_row:
        return encode_rows(table)
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def from_arrow(source: Any) -> tuple[pa.Table, dict[str, Any]]:  # noqa: ANN401 -- pyarrow has no common type
    """Decodes an Arrow file written by :func:`to_arrow`: table and note. The checksum is not compared.

    Args:
        source: a buffer, or a memory map, into which the table's columns then point.
    """
    table = pa.ipc.open_file(source).read_all()
    return table, read_note(table.schema.metadata)


def check_arrow(table: pa.Table) -> None:
    """Compares a table read from an Arrow file with the checksum in its schema.

    Raises:
        ValueError: they differ.
    """
    table.validate(full=True)  # offsets outside of the buffers would crash the process
    note = read_note(table.schema.metadata)
    _compare(note, _data_checksum(_parts(table, by_row=False)) | _header_checksum(table, note))


def read_note(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Reads the note in a file's metadata.

    Raises:
        ValueError: the file has no valid note; or another of :data:`DECODE_ERRORS`.
    """
    note = json.loads(metadata[NOTE])
    if note.get("status", "ok") not in ("ok", "degraded", "failed") or not isinstance(note.get("reason", ""), str):
        raise ValueError(f"status {note.get('status')!r} is none")
    return note


def _parts(table: pa.Table, *, by_row: bool) -> Iterable[pa.Buffer]:
    return (b.serialize() for b in table.to_batches(max_chunksize=1 if by_row else None) if b.num_rows)


def _data_checksum(parts: Iterable[Any]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        size += len(part)
    return {"schema": schema.VERSION, "bytes": size, "sha256": digest.hexdigest()}


def _header_checksum(table: pa.Table, note: dict[str, Any]) -> dict[str, Any]:
    """Checksum of status, reason and column names; its key "told" is part of the file format."""
    header = json.dumps([note.get("status"), note.get("reason"), table.schema.names])
    return {"told": hashlib.sha256(header.encode()).hexdigest()}


def _compare(note: dict[str, Any], found: dict[str, Any]) -> None:
    """Compares checksums with those of the note; files of earlier versions have none."""
    for name in {"bytes", "sha256", "told"} & found.keys():
        if note.get(name, found[name]) != found[name]:
            raise ValueError(f"{name} {found[name]}, and {note[name]} were written")

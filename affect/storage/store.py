"""The feature store: one object per clip and modality, named by the address of the settings that produced it.

    STORE/<modality>/<address:16>/<slug>-<fingerprint:12>/<clip:05d>.parquet
    STORE/videos/<slug>-<path, size and version:12>.parquet
    STORE/_attempts/<start>-<job>/      attempts at clips in work, see :class:`affect.storage.attempts.Attempts`
    STORE/_parts/<key:24>.parquet       finished parts of clips, see :class:`affect.storage.attempts.Parts`

Writes are atomic, so a present object is complete. Its metadata holds ``status``, ``reason``, the schema's version, and
length and checksum of its data. Nothing in it changes between runs: extracting a clip twice gives the same bytes.
``.parquet`` objects are compressed. ``.arrow`` objects are read by training: on a disk they are memory-mapped, so that
all processes of a node share one copy. ``.rows.arrow`` objects can be read row by row (:mod:`affect.storage.rows`), in
a bucket too.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from affect.storage import files, schema, sealed
from affect.storage.extracted import Extracted, Status

MAPPED, ROWS = ".arrow", ".rows.arrow"
"""Suffixes of memory-mapped objects, and of those with one record batch per row."""
_TAIL = 16 << 10
"""Bytes at the end of a file that mostly contain its whole footer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a unit of work.

    Args:
        status: ``ok``, ``degraded``, ``failed``, or ``error``: the disk, network or process failed, nothing was stored.
        reason: why the status is not ``ok``, or a remark on an ``ok`` one.
        rows: rows of the unit's table.
    """

    status: Status | Literal["error"]
    reason: str
    rows: int


class Store:
    """A folder or bucket prefix of features.

    Args:
        uri: path of the folder or URI of the prefix.
    """

    def __init__(self, uri: str) -> None:
        """Stores the place; nothing is read or created."""
        self.uri = files.absolute(uri)

    def put(self, key: str, extracted: Extracted, *, replace: bool = True) -> Outcome:
        """Encodes a unit's result in memory, then writes it in one step.

        Args:
            key: key of the object; its suffix decides the format.
            extracted: table, status and reason.
            replace: as in :func:`affect.storage.files.write`.

        Returns:
            Outcome of the result, or of the object that was already present, if that was kept.

        Raises:
            OSError: the store cannot be written to.
        """
        outcome = Outcome(extracted.status, extracted.reason, extracted.table.num_rows)
        note = {"status": outcome.status, "reason": outcome.reason}
        table = extracted.table.replace_schema_metadata()
        if key.endswith(MAPPED):
            content = sealed.to_arrow(table, note, by_row=key.endswith(ROWS))
        else:
            content = sealed.to_parquet(table.combine_chunks(), note)  # bytes do not depend on the number of chunks
        written = files.write(self.uri_of(key), content, replace=replace)
        return outcome if written else self.outcome(key)

    def has(self, key: str) -> bool:
        """Whether an object is present; a present object is complete."""
        return files.exists(self.uri_of(key))

    def uri_of(self, key: str) -> str:
        """Path or URI of an object."""
        return files.join(self.uri, key)

    def get(self, key: str) -> Extracted:
        """Reads an object. The checksum is compared, except for memory-mapped objects.

        Raises:
            FileNotFoundError: the object is missing.
            ValueError: the object is damaged.
        """
        uri = self.uri_of(key)
        source = _mapped(uri) if key.endswith(MAPPED) else pa.py_buffer(files.read(uri))
        with naming_object(uri):
            table, note = (sealed.from_arrow if key.endswith(MAPPED) else sealed.from_parquet)(source)
            if key.startswith("videos/") and table.schema.names != schema.VIDEO.names:
                raise ValueError("these are no columns of a probe")
            return Extracted(table, note["status"], note["reason"])

    def check(self, key: str) -> str:
        """Reads all of an object and compares its checksum; returns the damage in words, empty if there is none."""
        try:
            found = self.get(key)
            if key.endswith(MAPPED):
                with naming_object(self.uri_of(key)):
                    sealed.check_arrow(found.table)
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    def outcome(self, key: str) -> Outcome:
        """Outcome of a stored unit, read from the footer of its file; errors as in :meth:`footer`."""
        return self.footer(key)[0]

    def footer(self, key: str) -> tuple[Outcome, pq.FileMetaData]:
        """Outcome of a stored unit, and its Parquet footer with the statistics of each column.

        Raises:
            FileNotFoundError: the object is missing.
            ValueError: the object is damaged.
        """
        uri = self.uri_of(key)
        tail = files.read_tail(uri, _TAIL)
        if (needed := int.from_bytes(tail[-8:-4], "little") + 8) > len(tail):
            tail = files.read_tail(uri, needed)
        with naming_object(uri):
            metadata = pq.read_metadata(pa.BufferReader(tail))
            note = sealed.read_note(metadata.metadata)
            return Outcome(note["status"], note["reason"], metadata.num_rows), metadata

    def keys(self, prefix: str = "") -> set[str]:
        """Lists the keys of all objects below a prefix; folders that begin with ``_`` are not part of an empty one."""
        before = f"{prefix}/" if prefix else ""
        listed = (name for name, _, _ in files.walk(files.join(self.uri, before).rstrip("/")))
        return {before + name for name in listed if name.endswith((".parquet", MAPPED)) and name[0] != "_"}


@contextmanager
def naming_object(uri: str) -> Iterator[None]:
    """Adds the object's URI to decoding errors.

    Raises:
        ValueError: the object is damaged; the message names it.
    """
    try:
        yield
    except (pa.ArrowException, OSError, *sealed.DECODE_ERRORS) as error:
        message = " ".join(str(error).split())
        raise ValueError(
            f"{uri}: damaged ({message}); delete it (extract.py --verify lists all such) and run again"
        ) from error


def read_table(uri: str) -> pa.Table:
    """Reads a Parquet file.

    Raises:
        FileNotFoundError: the file is missing.
    """
    return pq.read_table(io.BytesIO(files.read(uri)))


def encode(table: pa.Table) -> bytes:
    """Encodes a table as Parquet; equal tables give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=True)
    return buffer.getvalue()


def encode_csv(table: pa.Table) -> bytes:
    """Encodes a table as CSV with a header."""
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _mapped(uri: str) -> Any:  # noqa: ANN401 -- pyarrow has no common type
    system, path = files.resolve_parent(uri)
    local = isinstance(system, LocalFileSystem) and os.path.getsize(path)  # an empty file cannot be mapped
    return pa.memory_map(path) if local else pa.BufferReader(files.read(uri))


def slug(path: str) -> str:
    """Readable part of an object's name: letters, digits and dashes of a video's file name, at most 40."""
    name = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40] or "video"


def unit_key(modality: str, address: str, path: str, fingerprint: str, clip: int) -> str:
    """Key of a clip's object.

    Args:
        modality: name of the modality.
        address: address of the settings that decide the object's content.
        path: the video's path relative to the folder or bucket of videos.
        fingerprint: 12 hex digits, from the video's probe.
        clip: number of the clip, from 0.

    Raises:
        ValueError: the fingerprint is not 12 hex digits; a damaged one could name a path outside of the store.
    """
    if not re.fullmatch("[0-9a-f]{12}", fingerprint):
        raise ValueError(f"the probe of {path} is damaged (fingerprint {fingerprint[:40]!r}): delete STORE/videos")
    return f"{modality}/{address}/{slug(path)}-{fingerprint}/{clip:05d}.parquet"


def probe_key(path: str, size: int, version: str) -> str:
    """Key of a video's probe, from the file's path, size in bytes and version (modification time or ETag)."""
    mark = hashlib.sha256(f"{path}\0{size}\0{version}\0{schema.PROBE_VERSION}".encode()).hexdigest()[:12]
    return f"videos/{slug(path)}-{mark}.parquet"

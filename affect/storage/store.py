"""The feature store: one object per clip and modality, its address, and what is missing.

    STORE/<modality>/<address:16>/<slug>-<fingerprint:12>/<clip:05d>.parquet
    STORE/videos/<slug>-<path, size and version:12>.parquet
    STORE/_attempts/<start>-<job>/      clips under way, see :class:`Attempts`
    STORE/_parts/<key:24>.parquet       as far as they are done, see :class:`Parts`

An object is present when it is complete. It carries ``status``, ``reason``, the schema's version, and length and
checksum of what it holds, and nothing that changes from run to run, so that doing a unit twice gives the same bytes.
Objects named ``.parquet`` are compressed; those named ``.arrow`` are what models are trained on: a store on a disk maps
them into memory, so that all processes of a node share one copy. Of those named ``.rows.arrow`` single rows can be read
(:mod:`affect.storage.rows`), from a bucket too.
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


_TAIL = 16 << 10
"""Bytes in which a file's footer mostly lies."""


@dataclass(frozen=True)
class Outcome:
    """How a unit of work ended.

    Args:
        status: ``ok``, ``degraded``, ``failed``, or ``error``: the surroundings failed and nothing was written.
        reason: why not ``ok``, or what else has to be known of it.
        rows: rows of its table.
    """

    status: Status | Literal["error"]
    reason: str
    rows: int


class Store:
    """A folder or bucket prefix of features.

    Args:
        uri: where it is.
    """

    def __init__(self, uri: str) -> None:
        """Remember the place; nothing is read or created."""
        self.uri = files.absolute(uri)

    def put(self, key: str, extracted: Extracted, *, replace: bool = True) -> Outcome:
        """Serialise in memory, then write in one step; ``replace`` as in :func:`affect.storage.files.write`.

        Returns:
            How it ended, or what is there by now, if that was kept.

        Raises:
            OSError: the store cannot be written to.
        """
        outcome = Outcome(extracted.status, extracted.reason, extracted.table.num_rows)
        note = {"status": outcome.status, "reason": outcome.reason}
        table = extracted.table.replace_schema_metadata()
        if key.endswith(MAPPED):
            content = sealed.to_arrow(table, note, by_row=key.endswith(ROWS))
        else:
            content = sealed.to_parquet(table.combine_chunks(), note)  # however many parts it was made of
        written = files.write(self.uri_of(key), content, replace=replace)
        return outcome if written else self.outcome(key)

    def has(self, key: str) -> bool:
        """Whether an object is there, whole."""
        return files.exists(self.uri_of(key))

    def uri_of(self, key: str) -> str:
        """Where an object is."""
        return files.join(self.uri, key)

    def get(self, key: str) -> Extracted:
        """Read a unit; what is not mapped into memory is checked.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: it is damaged.
        """
        uri = self.uri_of(key)
        source = _mapped(uri) if key.endswith(MAPPED) else pa.py_buffer(files.read(uri))
        with told(uri):
            table, note = (sealed.from_arrow if key.endswith(MAPPED) else sealed.from_parquet)(source)
            if key.startswith("videos/") and table.schema.names != schema.VIDEO.names:
                raise ValueError("these are no columns of a probe")
            return Extracted(table, note["status"], note["reason"])

    def check(self, key: str) -> str:
        """Read an object back, all of it: what is wrong with it, nothing if it is whole."""
        try:
            found = self.get(key)
            if key.endswith(MAPPED):
                with told(self.uri_of(key)):
                    sealed.check_arrow(found.table)
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    def outcome(self, key: str) -> Outcome:
        """How a unit ended, from its file's footer."""
        return self.footer(key)[0]

    def footer(self, key: str) -> tuple[Outcome, pq.FileMetaData]:
        """The same, and the footer with what it says of the columns.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: it is damaged.
        """
        uri = self.uri_of(key)
        tail = files.read_tail(uri, _TAIL)
        if (needed := int.from_bytes(tail[-8:-4], "little") + 8) > len(tail):
            tail = files.read_tail(uri, needed)
        with told(uri):
            metadata = pq.read_metadata(pa.BufferReader(tail))
            note = sealed.read_note(metadata.metadata)
            return Outcome(note["status"], note["reason"], metadata.num_rows), metadata

    def keys(self, prefix: str = "") -> set[str]:
        """Keys of the objects below a prefix, by listing; of all but notes if it is empty."""
        before = f"{prefix}/" if prefix else ""
        listed = (name for name, _, _ in files.walk(files.join(self.uri, before).rstrip("/")))
        return {before + name for name in listed if name.endswith((".parquet", MAPPED)) and name[0] != "_"}


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Say of an object that cannot be read which one it is.

    Raises:
        ValueError: it is damaged.
    """
    try:
        yield
    except (pa.ArrowException, OSError, *sealed.NOT_AS_WRITTEN) as error:  # of what is in memory
        said = " ".join(str(error).split())
        raise ValueError(
            f"{uri}: damaged ({said}); delete it (extract.py --verify lists all such) and run again"
        ) from error


def read_table(uri: str) -> pa.Table:
    """Read a Parquet file.

    Raises:
        FileNotFoundError: it is missing.
    """
    return pq.read_table(io.BytesIO(files.read(uri)))


def encode(table: pa.Table) -> bytes:
    """A table as Parquet; the same table gives the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=True)
    return buffer.getvalue()


def encode_csv(table: pa.Table) -> bytes:
    """A table as CSV with a header."""
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _mapped(uri: str) -> Any:  # noqa: ANN401 -- pyarrow has no common type
    system, path = files.resolve_parent(uri)
    local = isinstance(system, LocalFileSystem) and os.path.getsize(path)  # nothing cannot be mapped
    return pa.memory_map(path) if local else pa.BufferReader(files.read(uri))


def slug(path: str) -> str:
    """A file name's readable part: harmless characters, at most 40."""
    name = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40] or "video"


def unit_key(modality: str, address: str, path: str, fingerprint: str, clip: int) -> str:
    """Key of a clip's object.

    Raises:
        ValueError: that is no fingerprint, which would lead elsewhere.
    """
    if not re.fullmatch("[0-9a-f]{12}", fingerprint):
        raise ValueError(f"the probe of {path} is damaged (fingerprint {fingerprint[:40]!r}): delete STORE/videos")
    return f"{modality}/{address}/{slug(path)}-{fingerprint}/{clip:05d}.parquet"


def probe_key(path: str, size: int, version: str) -> str:
    """Key of a video's probe."""
    mark = hashlib.sha256(f"{path}\0{size}\0{version}\0{schema.PROBE_VERSION}".encode()).hexdigest()[:12]
    return f"videos/{slug(path)}-{mark}.parquet"

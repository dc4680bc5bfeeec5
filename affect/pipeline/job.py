"""What every job does around its own work: read the command line, join Ray, turn errors into one line."""

import difflib
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, NamedTuple

import ray
import tyro
from ray.data import DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError, UserCodeException

from affect import files, spaces
from affect.pipeline.cluster import WAIT_FOR_NODES_S
from affect.recipes import RECIPES

VERBOSE = ("-v", "--verbose")


def entry(
    job: type, work: Callable[[Any], int], fills: Collection[str], others: Mapping[str, Any] | None = None
) -> Callable[[], None]:
    """A job's main function: it runs the job and ends the process with its exit code.

    The first argument names a recipe; every setting of it and of the job is a flag. ``-v`` shows tracebacks.

    Args:
        job: dataclass with a field ``run`` and the job's own settings; those without a default
            are fields of :class:`affect.recipes.Places` and default to the recipe's place. A field ``best`` is the
            ``best.json`` of a search, whose settings the run then has; one ``here`` says that Ray is not needed.
        work: does the job and returns the exit code.
        fills: settings that name a place which the job writes to.
        others: recipes of another kind than :data:`affect.recipes.RECIPES`, with the defaults of their flags.
    """

    def main() -> None:
        given = sys.argv[1:]
        verbose = any(flag in given for flag in VERBOSE)
        code = 1
        try:
            arguments = parse(job, [flag for flag in given if flag not in VERBOSE], others or {})
            if path := getattr(arguments, "best", None):
                arguments = replace(arguments, run=spaces.best(path, arguments.run))
            check_buckets(arguments, fills)
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
    """Find out before any work whether the buckets that a job names are there, and those it fills can be written to.

    Raises:
        OSError: one cannot be used; says why.
        ValueError: a protocol is unknown.
    """
    only_looks = getattr(arguments, "here", False) or getattr(arguments, "plan", False)
    for name in (f.name for f in fields(arguments)):
        value = getattr(arguments, name)
        for uri in value if isinstance(value, tuple) else (value,):
            if isinstance(uri, str) and "://" in uri:
                files.check_readable(uri)
                if name in fills and not only_looks:
                    files.check_writable(uri)


def command() -> str:
    """The command that this process was started with, to be given again."""
    return f"{_program()} {shlex.join(sys.argv[1:])}"


def _program() -> str:
    """A script as people start it, or the name of a console command."""
    script = sys.argv[0]
    return f"python {shlex.quote(script)}" if script.endswith(".py") else os.path.basename(script)


def _cause(error: Exception) -> str:
    """What went wrong in a task or an actor, without its traceback."""
    raised = re.findall(r"^(?!ray\.exceptions\.User)(?:\w+\.)*\w*(?:Error|Exception): (.+)$", str(error), re.MULTILINE)
    if isinstance(error, UserCodeException) and raised:  # of Ray Data, which says no more than that there was one
        return raised[-1]
    if cause := getattr(error, "cause", None):
        return str(cause)
    return raised[-1] if isinstance(error, RayError) and raised else str(error)


def parse(job: type, arguments: list[str], others: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- a job
    """Read a command line; prints usage with a runnable example where there is none."""
    defaults = {name: ((type(other).__doc__ or "").splitlines()[0], other) for name, other in others.items()}
    for name, (recipe, places) in RECIPES.items():
        found = places()
        required = [f.name for f in fields(job) if f.default is MISSING and f.name != "run"]
        known = {name: getattr(found, name) for name in required}
        defaults[name] = ((recipe.__doc__ or "").splitlines()[0], job(run=recipe(), **known))
    program, first = _program(), arguments[0] if arguments else "--help"
    if first not in defaults and first not in ("-h", "--help"):
        near = difflib.get_close_matches(first, defaults, 1)
        said = f"there is no recipe {first!r}" if first[:1] != "-" else f"name a recipe before {first}"
        raise ValueError(f"{said}: {f'did you mean {near[0]}?' if near else 'one of ' + ', '.join(defaults)}")
    example = f"\n\nExample: {program} {next(iter(RECIPES))}"
    description = (job.__doc__ or "") + " -v shows tracebacks of errors; RECIPE --help lists all settings." + example
    return tyro.extras.overridable_config_cli(defaults, args=arguments or ["--help"], description=description)


class Cluster(NamedTuple):
    """The Ray that a job joined.

    Args:
        address: what ``RAY_ADDRESS`` has to be for others to join it.
        num_cpus: CPUs of all its nodes.
    """

    address: str
    num_cpus: float


def start_ray() -> Cluster:
    """Join the cluster that ``RAY_ADDRESS`` or this machine has, else start one here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Models are run with one thread an actor: two on a shared core took a 32 ms step to 1.75 s.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # It warns of a default that protects the cluster which it starts.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    DataContext.get_current().execution_no_progress_timeout_s = WAIT_FOR_NODES_S
    return Cluster(ray.get_runtime_context().gcs_address, ray.cluster_resources().get("CPU", 0.0))

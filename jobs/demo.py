"""Runs the whole system on a generated corpus: extract, train, predict and evaluate, one job each, on one local Ray.

python jobs/demo.py
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from affect.pipeline.job import start_ray
from affect.progress import say
from affect.settings.recipes import demo_places

JOBS = Path(__file__).parent


def main() -> int:
    """Runs the jobs one after the other, up to the first that fails; its exit code."""
    about = f"{(__doc__ or '').partition(chr(10))[0]} All files are in ./demo; existing results are skipped."
    argparse.ArgumentParser(description=about).parse_args()
    cluster = start_ray()  # first: it puts Ray's authentication into the environment that the jobs get
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    template = ["--template", demo_places().template]
    for name, flags in (("extract", []), ("train", []), ("predict", template), ("evaluate", template)):
        say(f"\n$ python jobs/{name}.py demo {' '.join(flags)}")
        done = subprocess.run([sys.executable, str(JOBS / f"{name}.py"), "demo", *flags], env=environment, check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())

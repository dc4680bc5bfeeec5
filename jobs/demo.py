"""The whole system on a generated corpus: extract, train, predict, evaluate, each a job of its own on one local Ray.

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
    """Run the jobs one after the other; stop at the first that fails."""
    about = f"{(__doc__ or '').partition(chr(10))[0]} Everything lies in ./demo; what is there is not done again."
    argparse.ArgumentParser(description=about).parse_args()
    cluster = start_ray()  # also sets how the cluster authenticates in this environment, so it comes first
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

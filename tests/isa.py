"""Runs the numeric tests under each instruction set of this processor: ``make test-isa``.

oneDNN and ATen choose kernels by the processor's instruction set; environment variables limit both to an older one.
"""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ONEDNN = {
    "AVX2": "avx2",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_AMX": "amx_bf16",
}
"""Values of ONEDNN_MAX_CPU_ISA, with the processor flag that each needs."""
ATEN = {"default": "", "avx2": "avx2", "avx512": "avx512bw"}
"""Values of ATEN_CPU_CAPABILITY, with the processor flag that each needs."""


def main() -> int:
    """Prints a line per pair of instruction sets; returns 1 if a test fails under any."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    onednn, aten = ([name for name, flag in names.items() if not flag or flag in flags] for names in (ONEDNN, ATEN))
    pairs = [
        {"ONEDNN_MAX_CPU_ISA": first or (onednn or ["ALL"])[-1], "ATEN_CPU_CAPABILITY": second or aten[-1]}
        for first, second in itertools.zip_longest(onednn, aten)
    ]
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for variables, run in zip(pairs, threads.map(_run, pairs), strict=True):
            failed += run.returncode != 0
            output = run.stdout.strip().splitlines()
            names = " ".join(f"{variable}={name}" for variable, name in variables.items())
            print(f"{names}: {output[-1] if output else run.stderr[-500:]}", flush=True)
            if run.returncode:
                print(run.stdout[-20_000:], flush=True)
    return int(failed > 0)


def _run(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the numeric tests in a process of one thread."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "numeric and not slow", *sys.argv[1:]],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())

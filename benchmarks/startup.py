"""How long the command takes to answer, against a Python that does nothing and one that loads torch."""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import report

COMMAND = str(Path(sys.executable).parent / "workbench")
RUNS = 7


def seconds(*words: str) -> float:
    """The quickest of several runs of a process."""
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(words, capture_output=True, check=True)
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> None:
    """Print the ratios."""
    helped = seconds(COMMAND, "--help")
    bare = seconds(sys.executable, "-c", "pass")
    torch = seconds(sys.executable, "-c", "import torch")
    report("< 0.3", "workbench --help, seconds", f"{helped:.2f}")
    report("-", "against a bare Python", f"{helped / bare:.1f}x")
    report("< 0.3x", "against importing torch", f"{helped / torch:.2f}x")


if __name__ == "__main__":
    main()

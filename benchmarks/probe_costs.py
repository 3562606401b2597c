"""What probes say that they will cost, against what they take: every probe on every model of a list.

Run      python -m benchmarks.probe_costs [MODEL ...] [--probes a,b]      default attn-2l mlp-2l smollm2
Time     seconds of the processor on one thread, as a worker has it: other programs do not count
Memory   the process' peak over what it held with the model loaded, each job in a process of its own
Goal     both within a factor of three, where more than a second or 100 MB are taken
"""

import argparse
import os
import subprocess
import sys
import time

MODELS = ("attn-2l", "mlp-2l", "smollm2")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
FACTOR, LEAST_SECONDS, LEAST_BYTES = 3.0, 1.0, 1e8


def main(models: tuple[str, ...] = MODELS, probes: str = "all") -> None:
    """One line for each job."""
    from probes.registry import named_probes

    print(f"{'probe':26}{'model':12}{'seconds':>9}{'expected':>9}{'MB':>8}{'expected':>9}")
    for probe in named_probes(probes):
        for model in models:
            command = [sys.executable, "-m", "benchmarks.probe_costs", "--one", probe.name, model]
            # A process of its own, so that no peak is another probe's.
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=os.environ | ONE_THREAD
            )
            print(done.stdout, end="", flush=True)


def one(name: str, model_name: str) -> None:
    """Run one job here and print its line."""
    import torch

    from probes.data import read_data
    from probes.facts import facts_of
    from probes.registry import get_probe
    from probes.running import PeakMemory
    from probes.sources import load_source
    from workbench.errors import UnsupportedError

    torch.set_num_threads(1)
    probe, model, data = get_probe(name), load_source(model_name).load(), read_data("stdlib")
    facts, config = facts_of(model), probe.Config()
    if reason := probe.refuses(facts):
        print(f"{name:26}{model_name:12}  refused: {reason[:60]}")
        return
    expected = probe.cost(facts, data.facts, config)
    peak, begun = PeakMemory(), time.process_time()
    try:
        probe.run(model, data, config)
    except UnsupportedError as error:
        print(f"{name:26}{model_name:12}  refused: {str(error)[:60]}")
        return
    seconds, nbytes = time.process_time() - begun, peak.nbytes()
    off = _told(seconds, expected.seconds, LEAST_SECONDS)
    off += _told(nbytes, expected.nbytes, LEAST_BYTES) if nbytes is not None else ""
    held = f"{nbytes / 1e6:8.0f}" if nbytes is not None else f"{'?':>8}"
    line = f"{name:26}{model_name:12}{seconds:9.2f}{expected.seconds:9.2f}{held}"
    print(f"{line}{expected.nbytes / 1e6:9.0f}{off}")


def off_by(measured: float, expected: float, least: float) -> float:
    """How many times the one is the other; what is below `least` counts as `least`."""
    larger, smaller = max(measured, expected, least), max(min(measured, expected), least)
    return larger / smaller


def _told(measured: float, expected: float, least: float) -> str:
    off = off_by(measured, expected, least)
    return f"  off by {off:.1f}" if off > FACTOR else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--probes", default="all")
    parser.add_argument("--one", nargs=2, metavar=("PROBE", "MODEL"))
    asked = parser.parse_args()
    if asked.one:
        one(*asked.one)
    else:
        main(tuple(asked.models), asked.probes)

"""Every benchmark, one after the other: `make bench`."""

from benchmarks import (
    circuits,
    composition,
    head_ablation,
    probe_costs,
    regularizers,
    runs,
    startup,
    top_entries,
    training_step,
    viewer,
    wiring,
)

for benchmark in (
    startup,
    training_step,
    regularizers,
    runs,
    circuits,
    top_entries,
    composition,
    head_ablation,
    probe_costs,
    viewer,
    wiring,
):
    print(f"\n{benchmark.__name__}")
    benchmark.main()

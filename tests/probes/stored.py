"""Stores of results as a test wants them, made without any model."""

from probes.contract import findings_table
from probes.jobs import Job, Record
from probes.store import Store


def job(model="a", probe="residual-norms", **given):
    """A job of a probe on a model whose files are its label."""
    fields = {
        "model": model,
        "spec": model,
        "step": None,
        "model_hash": model.encode("utf-8", "replace").hex()[:16],
        "probe": probe,
        "module": "nowhere",
        "version": 1,
        "kind": "data",
        "config": '{"seed": 0}',
        "data": "stdlib",
        "data_hash": "d",
    }
    return Job(**fields | given)


def rows_of(measure="growth", n=4, p=(0.001, 0.2, 0.5, 0.9), **given):
    """Findings of n heads, each farther from chance than the one before."""
    return [
        {
            "measure": measure,
            "layer": layer,
            "head": layer % 2,
            "site": "attn_out",
            "value": 1.0 + layer,
            "null_mean": 1.0,
            "null_std": 0.5,
            "low": 0.9,
            "high": 1.2,
            "p": p[layer % len(p)],
            "n": 10,
            "seed": 0,
            "unit": "ratio",
            **given,
        }
        for layer in range(n)
    ]


def store_of(folder, results):
    """A store of (job, rows) pairs; rows may be an error instead, or None for a job that never ended."""
    store = Store(folder / "store")
    store.write_plan([one for one, _ in results])
    for one, rows in results:
        if isinstance(rows, tuple):
            store.save(Record.of(one, rows[0], error=rows[1]))
        elif rows is not None:
            store.save(Record.of(one, "ok", taken=(1.5, 10)), findings_table(rows))
    return store

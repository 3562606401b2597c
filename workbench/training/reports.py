"""What an experiment's network is worth: loss, wiring and modularity, never one without the others."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.results import model_hash, provenance, save_table
from workbench.training.experiments import Request
from workbench.training.layouts import line_layout
from workbench.training.loop import read_metrics
from workbench.training.mlp import MLP, load_mlp
from workbench.training.modularity import Modularity, Options, modularity
from workbench.training.tasks import FORMULAS, FixedTask
from workbench.training.wires import groups, wires

REPORT_FILE = "report.json"
N_SHUFFLES = 30


@dataclass(frozen=True, eq=False)
class Report:
    """One trained network, measured.

    Args:
        measured: the task's own numbers on training and test examples.
        modularity: its task loss is that of the test examples.
        seconds: of training, those before a resumption included.
    """

    request: Request
    measured: dict[str, float]
    modularity: Modularity
    seconds: float

    def table(self) -> pd.DataFrame:
        """The task's own numbers, then tidy: measure value null_mean null_std z percentile n_null seed unit."""
        table = self.modularity.table()
        numbers = {name: x for name, x in self.measured.items() if name != "test_loss"}
        own = pd.DataFrame({"measure": list(numbers), "value": list(numbers.values())})
        own = own.assign(n_null=0, seed=self.modularity.options.seed, unit="of the task")
        # What a shuffle has no number of, the task's among it, is empty, not infinite.
        whole = pd.concat([table[:1], own, table[1:]], ignore_index=True)
        return whole.replace([np.inf, -np.inf], np.nan)[list(table.columns)]


def report(request: Request, task: FixedTask, out: Path) -> Report:
    """Measure the network in a folder, and write the table beside it."""
    model = load_mlp(out)
    measured = task.measure(model)
    found = modularity(
        wires(model),
        groups(model),
        loss=measured["test_loss"],
        layout=line_layout(model),
        options=Options(n_shuffles=N_SHUFFLES, sides=_sides(request.experiment.data, model)),
    )
    lines = read_metrics(out)
    done = Report(request, measured, found, float(lines[-1]["seconds"]) if lines else 0.0)
    made_by = provenance(**request.record(), seconds=done.seconds, model_hash=model_hash(model))
    save_table(done.table(), out / REPORT_FILE, made_by)
    return done


def _sides(data: str, model: MLP) -> dict[str, np.ndarray] | None:
    """Which part of the formula each unit of input and output serves, in the order of their places."""
    known = FORMULAS[data].sides if data in FORMULAS else None
    if known is None:
        return None
    inputs, outputs = (np.array(side) for side in known)
    return {"inputs": inputs[model.in_perm.numpy()], "outputs": outputs[model.out_perm.numpy()]}

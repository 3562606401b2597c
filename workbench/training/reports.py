"""What an experiment's network is worth: loss, wiring and modularity, never one without the others.

The network is measured as it is, and pruned: wires are cut from the weakest up while the loss on the training
examples stays within 1 % of what the best constant answer costs. That yardstick is the task's and not the
network's, so all variants are cut to the same worth.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int

from workbench.models.checkpoints import FORMAT as TRANSFORMER
from workbench.models.checkpoints import load_checkpoint
from workbench.models.files import read_json
from workbench.results import model_hash, provenance, save_table
from workbench.training.experiments import Experiment, Request
from workbench.training.layouts import Layout, grid_layout, line_layout
from workbench.training.loop import read_metrics
from workbench.training.mlp import MLP, load_mlp
from workbench.training.modularity import Modularity, Options, masked, modularity
from workbench.training.modularity.pruning import LossOf, Masks
from workbench.training.tasks import FORMULAS, FixedTask, InContextRegression, Labelled, OneHot
from workbench.training.tasks.batches import Examples
from workbench.training.wires import Network, groups, wires

REPORT_FILE = "report.json"
N_SHUFFLES = 30
TOLERATED = 0.01
"""How far pruning may raise the loss, as a share of what the best constant answer costs."""


@dataclass(frozen=True, eq=False)
class Report:
    """One trained network, measured.

    Args:
        measured: the task's own numbers on training and test examples.
        pruned: the same with the weak wires cut.
        modularity: its task loss is that of the test examples, its pruning that of the training examples.
        seconds: of training, those before a resumption included.
    """

    request: Request
    measured: dict[str, float]
    pruned: dict[str, float]
    modularity: Modularity
    seconds: float

    def table(self) -> pd.DataFrame:
        """The task's own numbers, then tidy: measure value null_mean null_std z percentile n_null seed unit."""
        table = self.modularity.table()
        numbers = {name: x for name, x in self.measured.items() if name != "test_loss"}
        numbers |= {f"{name}, pruned": x for name, x in self.pruned.items()}
        own = pd.DataFrame({"measure": list(numbers), "value": list(numbers.values())})
        own = own.assign(n_null=0, seed=self.modularity.options.seed, unit="of the task")
        # What a shuffle has no number of, the task's among it, is empty, not infinite.
        whole = pd.concat([table[:1], own, table[1:]], ignore_index=True)
        return whole.replace([np.inf, -np.inf], np.nan)[list(table.columns)]


def report(request: Request, task: FixedTask | InContextRegression, out: Path) -> Report:
    """Measure the network in a folder, and write the table beside it."""
    model, chosen = load_network(out), request.experiment
    hashed = model_hash(model)
    model = model.double() if chosen.in_double else model
    measured = task.measure(model)
    sides, apart = parts_of(chosen.data, model)
    options = Options(n_shuffles=N_SHUFFLES, sides=sides, apart=apart)
    found = measure(
        model, task.train, layout_of(chosen, model), loss=measured["test_loss"], options=options
    )
    assert found.pruning is not None
    # Units that read nothing any more still send their bias on: it is no wire, and stays.
    with masked(model, found.pruning.kept):
        pruned = task.measure(model)
    lines = read_metrics(out)
    seconds = float(lines[-1]["seconds"]) if lines else 0.0
    done = Report(request, measured, pruned, found, seconds)
    made_by = provenance(**request.record(), seconds=seconds, model_hash=hashed)
    save_table(done.table(), out / REPORT_FILE, made_by)
    return done


def measure(
    model: Network, examples: Examples, layout: Layout, *, loss: float, options: Options
) -> Modularity:
    """The modularity of a network, as it is and pruned on these examples.

    Args:
        loss: of the task, on examples of which none was trained on.
        options: a tolerance of None becomes 1 % of what the best constant answer to the examples costs.
    """
    if options.tolerance is None:
        options = replace(options, tolerance=TOLERATED * constant_loss(examples))
    loss_of = _loss_of(model, examples)
    return modularity(
        wires(model), groups(model), loss=loss, layout=layout, loss_of=loss_of, options=options
    )


def constant_loss(examples: Examples) -> float:
    """What the best answer costs that is the same for every example."""
    if isinstance(examples, Labelled):
        share = torch.bincount(examples.labels).double() / len(examples.labels)
        share = share if isinstance(examples, OneHot) else share.log()
        return float(examples.loss(share.expand(len(examples.labels), -1)))
    targets: Any = examples.targets  # type: ignore[attr-defined]  # numbers, sequences of numbers
    return float(examples.loss(targets.double().mean(0).expand_as(targets)))


def layout_of(chosen: Experiment, model: Network) -> Layout:
    """Where an experiment's units stand."""
    return grid_layout(model, rings=("outputs",)) if chosen.on_grid else line_layout(model)


def load_network(folder: Path) -> Network:
    """The trained network of a folder, of whichever kind."""
    if read_json(folder / "config.json").get("format") == TRANSFORMER:
        return load_checkpoint(folder)
    return load_mlp(folder)


def _loss_of(model: Network, examples: Examples) -> LossOf:
    def loss_of(masks: Masks) -> float:
        with masked(model, masks), torch.no_grad():
            return float(examples.loss(examples.outputs(model)))

    return loss_of


def parts_of(
    data: str, model: Network
) -> tuple[
    dict[str, Int[np.ndarray, " _"]] | None,
    dict[tuple[str, str], Bool[np.ndarray, "input output"]] | None,
]:
    """What a formula keeps apart, in the order of the units' places: its sides, or else single pairs.

    Both are None where the data are no formula, or all outputs depend on all inputs.
    """
    if data not in FORMULAS or not isinstance(model, MLP):
        return None, None
    formula, stands, ends = FORMULAS[data], model.in_perm.numpy(), model.out_perm.numpy()
    if formula.sides is not None:
        inputs, outputs = (np.array(side) for side in formula.sides)
        return {"inputs": inputs[stands], "outputs": outputs[ends]}, None
    apart = formula.apart[np.ix_(stands, ends)]
    return None, {("inputs", "outputs"): apart} if apart.any() else None

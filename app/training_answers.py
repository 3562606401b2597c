"""What the training page asks of a run's network: modularity against its null, and two runs at equal loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from app.analyses import Desk
from app.training_pairs import Pair, equal_loss
from app.trainings import LOSSES, Trained
from workbench.errors import UnsupportedError
from workbench.training import measuring
from workbench.training.measuring import subject_of
from workbench.training.modularity import Modularity, Options, modularity
from workbench.training.modularity.pruning_curve import PruningCurve, pruning_curve, task_loss
from workbench.training.responses import Responses, responses
from workbench.training.wires import groups, wires

FEW_WIRES, N_SHUFFLES, N_SHUFFLES_OF_MANY = 20_000, 20, 8


@dataclass(frozen=True, eq=False)
class Measured:
    """A network's modularity and the task's own numbers."""

    numbers: dict[str, float]
    modularity: Modularity

    def table(self) -> pd.DataFrame:
        """As of `Modularity`."""
        return self.modularity.table()


@dataclass(frozen=True, eq=False)
class Compared:
    """Two runs at equal loss, each measured there."""

    names: tuple[str, str]
    tasks: tuple[str, str]
    pair: Pair
    measured: tuple[Measured, Measured]

    def table(self) -> pd.DataFrame:
        """One row per run and measure."""
        steps = (self.pair.first.step, self.pair.second.step)
        frames = [
            found.table().assign(run=name, step=step)
            for name, step, found in zip(self.names, steps, self.measured, strict=True)
        ]
        return pd.concat(frames, ignore_index=True)


def measured(trained: Trained, arguments: Mapping[str, Any], desk: Desk) -> Measured:
    """Modularity with its null, at one snapshot."""
    desk("Measuring the task")
    network = trained.network
    numbers = trained.task.measure(network)
    loss = next((numbers[name] for name in LOSSES if name in numbers), None)
    if loss is None:
        raise UnsupportedError(f"{trained.plan.task} measures no loss of held-out examples")
    blocks = wires(network)
    if sum(block.weight.numel() for block in blocks) <= FEW_WIRES:
        desk(f"Pruning, and measuring {N_SHUFFLES} shuffles and {N_SHUFFLES} rewirings")
        subject = subject_of(network, trained.plan.task, trained.task, trained.layout)
        return Measured(numbers, measuring.measured(subject, shuffles=N_SHUFFLES))
    desk(f"Measuring modularity, and that of {N_SHUFFLES_OF_MANY} shuffles")
    found = modularity(
        blocks,
        groups(network),
        loss=loss,
        layout=trained.layout,
        options=Options(n_shuffles=N_SHUFFLES_OF_MANY),
    )
    return Measured(numbers, found)


def compared(trained: Trained, arguments: Mapping[str, Any], desk: Desk) -> Compared:
    """This run and another, each at the snapshot nearest to one loss."""
    runs = trained.runs
    names = (trained.name, str(arguments["other"]))
    folders = [runs.find(name) for name in names]
    tables = [(runs.metrics(folder), folder.snapshots()) for folder in folders]
    pair = equal_loss(tables[0], tables[1], arguments["level"])
    steps = (pair.first.step, pair.second.step)
    at = [runs.load(name, step) for name, step in zip(names, steps, strict=True)]
    return Compared(
        names=names,
        tasks=(at[0].plan.task, at[1].plan.task),
        pair=pair,
        measured=(measured(at[0], {}, desk), measured(at[1], {}, desk)),
    )


def pruned(trained: Trained, arguments: Mapping[str, Any], desk: Desk) -> PruningCurve:
    """The loss as weak wires are cut."""
    told = desk.counting("Cutting weak wires and measuring the loss")
    return pruning_curve(trained.network, task_loss(trained.network, trained.task), progress=told)


def unit(trained: Trained, arguments: Mapping[str, Any], desk: Desk) -> Responses:
    """What the chosen unit responds to."""
    group, _, index = str(arguments["dot"]).rpartition("/")
    return responses(trained.network, trained.task, group, int(index))

"""The modularity of whatever holds a network: a run's folder, an experiment's, a model's, a model by name.

The loss is the task's where something says what the task was; of a language model without such a record it is
that on the bundled held-out text. A network of which neither can be told is measured without a loss, and not
pruned. Searching for modules takes microseconds a wire, so large networks get fewer shuffles.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workbench.errors import CheckpointError, ConfigError, UnsupportedError
from workbench.models.files import read_json
from workbench.models.transformer import Transformer
from workbench.training import mlp
from workbench.training.experiments import PREFIX, Request
from workbench.training.folders import RUN_FILE
from workbench.training.layouts import Layout, line_layout
from workbench.training.mlp import MLP, load_mlp
from workbench.training.modularity import Modularity, Options, modularity
from workbench.training.plan import make_run
from workbench.training.reports import measure, parts_of
from workbench.training.run_folder import PLAN_FILE, RunFolder
from workbench.training.tasks import UNSCORED, Batch, Examples, Task
from workbench.training.wires import Network, groups, wires

LARGE, SHUFFLES, SHUFFLES_OF_LARGE = 100_000, 30, 5
N_ROWS = 16
TOLERATED = 0.01


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to be measured.

    Args:
        data: what its task is called.
        task: that measures it; None = nothing says which.
        examples: on which it is pruned; None = its loss cannot be told.
    """

    model: Network
    layout: Layout
    data: str = ""
    task: Task | None = None
    examples: Examples | None = None

    @property
    def n_wires(self) -> int:
        """How many connections it has."""
        return sum(block.weight.numel() for block in wires(self.model))

    @torch.no_grad()
    def loss(self) -> float:
        """Of the task on examples that it was not trained on; NaN if it cannot be told."""
        if self.task is not None:
            found = self.task.measure(self.model)
            return found["test_loss"] if "test_loss" in found else found["loss"]
        if self.examples is None:
            return float("nan")
        return float(self.examples.loss(self.examples.outputs(self.model)))


def subject(place: str, step: int | None = None) -> Subject:
    """Whatever a path or a name stands for.

    Args:
        step: a snapshot of a run, or a checkpoint of a model.

    Raises:
        CheckpointError: broken files, or no weights of that step.
        ConfigError: a record of a task that is broken.
        UnsupportedError: a model of another kind than ours.
    """
    path = Path(place)
    if (path / PLAN_FILE).is_file():
        return _of_run(RunFolder(path), step)
    if (path / RUN_FILE).is_file():
        recipe = str(read_json(path / RUN_FILE).get("recipe"))
        if recipe.startswith(PREFIX):
            return _of_experiment(path, step)
    if (path / "config.json").is_file() and _is_mlp(path):
        if step is not None:
            return _bare(RunFolder(path).load(step))
        return _bare(load_mlp(path))
    return _of_model(place, step)


def subject_of(model: Network, data: str, task: Task, layout: Layout) -> Subject:
    """A network with the task that it is trained on.

    Args:
        data: what the task is called.
    """
    return Subject(model, layout, data, task, _examples(task))


def measured(
    chosen: Subject, *, shuffles: int | None = None, tolerance: float | None = None
) -> Modularity:
    """Q, cut, wiring, cross-talk and what pruning leaves, with their nulls.

    Args:
        shuffles: networks in each null; None = 30, and 5 of a large network.
        tolerance: how far pruning may raise the loss; None = 1 % of what the best constant answer costs.

    Raises:
        ConfigError: numbers that cannot be meant, or a tolerance without a loss.
        BudgetError: more wires than modules are sought in.
    """
    is_large = chosen.n_wires > LARGE
    sides, apart = parts_of(chosen.data, chosen.model)
    options = Options(
        n_shuffles=shuffles or (SHUFFLES_OF_LARGE if is_large else SHUFFLES),
        trials=1 if is_large else 3,
        sides=sides,
        apart=apart,
        tolerance=tolerance,
    )
    loss, model = chosen.loss(), chosen.model
    if chosen.examples is None:
        if tolerance is not None:
            raise ConfigError(f"nothing says what {model.name} was trained on: it cannot be pruned")
        return modularity(
            wires(model), groups(model), loss=loss, layout=chosen.layout, options=options
        )
    if tolerance is None and isinstance(chosen.examples, Batch):
        options = Options(
            n_shuffles=options.n_shuffles,
            trials=options.trials,
            tolerance=TOLERATED * frequency_loss(chosen.examples),
        )
    return measure(model, chosen.examples, chosen.layout, loss=loss, options=options)


def frequency_loss(batch: Batch) -> float:
    """What it costs in nats to answer every position with how often each token is the answer."""
    scored = batch.targets[batch.targets != UNSCORED]
    share = torch.bincount(scored).double() / len(scored)
    return float(torch.special.entr(share).sum())


def _of_run(folder: RunFolder, step: int | None) -> Subject:
    parts = make_run(folder.plan, folder.path)
    model = folder.load(step)
    precision = next(parts.model.parameters()).dtype
    return subject_of(model.to(precision), folder.plan.task, parts.task, parts.layout)


def _of_experiment(path: Path, step: int | None) -> Subject:
    from workbench.training.experiment_runs import make_task
    from workbench.training.reports import layout_of

    record = read_json(path / RUN_FILE)
    given = {"name": record.get("recipe"), "variant": record.get("variant")}
    if not all(isinstance(word, str) for word in given.values()):
        raise CheckpointError(f"{path / RUN_FILE} is broken: it says of no recipe and variant")
    chosen = Request(name=str(given["name"]), variant=str(given["variant"])).experiment
    model = RunFolder(path).load(step)
    model = model.double() if chosen.in_double else model
    layout = layout_of(chosen, model)
    if chosen.from_files:
        return Subject(model, layout, chosen.data)
    task = make_task(chosen)
    return Subject(model, layout, chosen.data, task, _examples(task))


def _of_model(place: str, step: int | None) -> Subject:
    from workbench.models import load

    model = load(place, step=step)
    if not isinstance(model, Transformer):
        raise UnsupportedError(
            f"{place} is a {type(model).__name__}: wires are known of models trained here only"
        )
    task = _task_of_recipe(model.name)
    if task is not None:
        return Subject(model, line_layout(model), model.name, task, _examples(task))
    return _bare(model)


def _task_of_recipe(name: str) -> Task | None:
    from workbench.training.recipes import make, recipe, recipe_names

    return make(recipe(name))[1] if name in recipe_names() else None


def _bare(model: Network) -> Subject:
    """A network without a record; a language model is measured on the bundled text."""
    layout = line_layout(model)
    if isinstance(model, MLP) or model.tokenizer is None or not model.cfg.causal:
        return Subject(model, layout)
    return Subject(model, layout, "held-out text", None, _held_out(model))


def _held_out(model: Transformer) -> Batch | None:
    from workbench.training.corpora import encoded
    from workbench.training.held_out import held_out_text
    from workbench.training.tasks import text_rows

    assert model.tokenizer is not None
    before, _ = model.tokenizer.special_around()
    text = held_out_text()[:200_000]
    ids = encoded(model.tokenizer, text)
    n_ctx = model.cfg.n_ctx
    if len(ids) <= n_ctx or len(before) != 1 or model.cfg.d_out < model.cfg.d_vocab:
        return None
    starts = np.linspace(0, len(ids) - n_ctx - 1, N_ROWS).astype(int)
    return text_rows(ids, starts, n_ctx, before[0])


def _examples(task: Task) -> Examples:
    """All training examples, or as many of a task that draws them as one batch holds."""
    whole = getattr(task, "train", None)
    return whole if isinstance(whole, Examples) else task.batch(0, 1 << 40)


def _is_mlp(path: Path) -> bool:
    return read_json(path / "config.json").get("format") == mlp.FORMAT

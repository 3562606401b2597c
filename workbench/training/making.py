"""From a plan to what is trained: model, data, schedule, and all that shapes the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.errors import ConfigError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.experiments import Experiment, experiment, experiment_names
from workbench.training.layouts import Layout, grid_layout, line_layout
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.plan import MLPShape, Plan, PlanError, TransformerShape
from workbench.training.plan_checks import MAX_STRENGTH
from workbench.training.plan_decay import parameter_decay
from workbench.training.plan_texts import points
from workbench.training.regularizers.clusterability import Clusterability
from workbench.training.regularizers.decorrelation import HeadDecorrelation
from workbench.training.regularizers.group_lasso import HeadLasso, UnitLasso
from workbench.training.regularizers.l1 import L1
from workbench.training.regularizers.ordering import ChannelCost, NestedDropout
from workbench.training.regularizers.strength import Piecewise, Strength
from workbench.training.regularizers.swaps import Swaps
from workbench.training.regularizers.wiring import WiringLength
from workbench.training.shaping import Penalty, Shaping
from workbench.training.starts import language_model_start
from workbench.training.task_kinds import TASK_KINDS, Source
from workbench.training.tasks import FixedTask, Labelled, Task
from workbench.training.wires import Network, groups

N_VALIDATIONS, SAVE_SECONDS = 40, 20.0


@dataclass(frozen=True, eq=False)
class Made:
    """What `fit` takes, and where the units stand."""

    model: Network
    task: Task
    config: TrainingConfig
    shaping: Shaping
    layout: Layout


def made(plan: Plan, folder: Path | None = None) -> Made:
    """All parts of a run.

    Args:
        folder: of the run, where text of the user's is kept as it was at the start.

    Raises:
        PlanError: the folder of files is missing, empty or broken, or the parts do not fit together.
    """
    model, task = _model_and_task(plan, folder)
    if plan.precision == "float64":
        model = model.double()
    layout = layout_of(plan, model)
    return Made(model, task, config_of(plan), shaping_of(plan, model, task, layout), layout)


def _model_and_task(plan: Plan, folder: Path | None) -> tuple[Network, Task]:
    source = Source(
        seed=plan.data_seed,
        modulus=plan.modulus,
        rows=plan.batch_rows,
        repeat_rows=plan.repeat_rows,
        n_ctx=getattr(plan.network, "n_ctx", 1),
        d_vocab=getattr(plan.network, "d_vocab", 1),
        folder=None if plan.folder is None else Path(plan.folder).expanduser(),
        store=folder,
    )
    kind = TASK_KINDS[plan.task]
    if isinstance(plan.network, MLPShape):
        assert kind.mlp is not None
        with _blamed("folder" if kind.reads_files else "task"):
            fixed = kind.mlp(source)
        if plan.batch_rows is not None:
            with _blamed("batch_rows"):
                fixed = replace(fixed, n_rows=plan.batch_rows)
        with _blamed("network"):
            return MLP(mlp_config(plan.network, fixed, plan.seed), name=plan.name), fixed
    assert kind.transformer is not None
    with _blamed("folder" if kind.reads_files else "network"):
        tokens = kind.transformer(source)
    with _blamed("network"):
        config = transformer_config(plan.network, tokens.shape)
        model = Transformer(config, tokens.tokenizer, name=plan.name, seed=plan.seed)
    if plan.network.start == "language model":
        language_model_start(model, plan.seed)
    return model, tokens.task


@contextmanager
def _blamed(field: str) -> Iterator[None]:
    """An error of a part as one of the field that asked for it."""
    try:
        yield
    except PlanError:
        raise
    except ConfigError as error:
        raise PlanError(field, f"does not work out: {error}") from error


def mlp_config(shape: MLPShape, task: FixedTask, seed: int) -> MLPConfig:
    """Inputs and outputs as many as the examples have."""
    both = (task.train, task.test)
    n_inputs = task.train.inputs.shape[1]
    if isinstance(task.train, Labelled):
        n_outputs = 1 + max(int(part.labels.max()) for part in both if isinstance(part, Labelled))
    else:
        n_outputs = task.train.targets.shape[1]
    own: dict[str, Any] = {"activation": shape.activation, "bias": shape.bias, "seed": seed}
    if task.train.inputs.is_floating_point():
        return MLPConfig(widths=(n_inputs, *shape.hidden, n_outputs), **own)
    n_tokens = 1 + max(int(part.inputs.max()) for part in both)
    widths = (n_inputs * shape.embedding, *shape.hidden, n_outputs)
    return MLPConfig(widths=widths, embedding=n_tokens, in_fold=n_inputs, **own)


def transformer_config(shape: TransformerShape, of_task: dict[str, Any]) -> TransformerConfig:
    """The config of a shape, with the vocabulary and the length of the task."""
    return TransformerConfig(
        order=shape.order,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        d_head=shape.d_head,
        d_mlp=shape.d_mlp,
        mlp=shape.mlp,
        norm=shape.norm,
        positions=shape.positions,
        attn_bias=shape.biases,
        mlp_bias=shape.biases,
        unembed_bias=shape.unembed_bias,
        **of_task,
    )


def config_of(plan: Plan) -> TrainingConfig:
    """Optimiser and schedule; a validation every fortieth of the way, and more at the start."""
    often = max(1, plan.steps // N_VALIDATIONS)
    with _blamed("plan"):
        return TrainingConfig(
            steps=plan.steps,
            seed=batch_seed(plan),
            optimizer=plan.optimizer,
            momentum=plan.momentum,
            lr=plan.lr,
            muon_lr=plan.muon_lr if plan.network_kind == "transformer" else None,
            betas=(0.9, plan.beta2),
            weight_decay=plan.weight_decay,
            warmup=plan.warmup,
            decay=plan.decay,
            clip=plan.clip,
            validate_every=often,
            validate_early=True,
            save_every=often,
            save_seconds=SAVE_SECONDS,
            keep=plan.kept_steps,
            bf16=False,
        )


def batch_seed(plan: Plan) -> int:
    """What batches are drawn by."""
    return plan.seed if plan.batch_seed is None else plan.batch_seed


def layout_of(plan: Plan, model: Network) -> Layout:
    """Lines; or squares, with those groups on a ring whose number of units is none."""
    if plan.places == "lines":
        return line_layout(model)
    fold = model.cfg.in_fold if isinstance(model, MLP) else 1
    sizes = {name: n // (fold if name == "inputs" else 1) for name, n in groups(model).items()}
    rings = [name for name, n in sizes.items() if isqrt(n) ** 2 != n]
    rings = [name for name in rings if name not in ("tokens", "positions")]
    return grid_layout(model, rings=rings, metric=plan.metric)


def shaping_of(plan: Plan, model: Network, task: Task, layout: Layout) -> Shaping:
    """Every regularizer whose strength is not 0, decay by parameter, and swaps."""
    penalties: dict[str, Penalty] = {}
    if plan.wiring:
        penalties["wiring"] = _wiring(plan, layout)
    if plan.l1:
        penalties["l1"] = L1(strength=plan.l1, reduction=plan.reduction)
    if plan.head_lasso:
        penalties["head lasso"] = HeadLasso(strength=plan.head_lasso)
    if plan.unit_lasso:
        penalties["unit lasso"] = UnitLasso(strength=plan.unit_lasso)
    if plan.clusterability:
        penalties["clusterability"] = Clusterability(
            strength=plan.clusterability, clusters=plan.clusters
        )
    if plan.decorrelation:
        tokens = BatchTokens(task, batch_seed(plan))
        penalties["decorrelation"] = HeadDecorrelation(strength=plan.decorrelation, tokens=tokens)
    if plan.channel_cost:
        penalties["channel cost"] = ChannelCost(strength=plan.channel_cost)
    if plan.nested_dropout:
        loss = BatchLoss(task, batch_seed(plan))
        penalties["nested dropout"] = NestedDropout(
            strength=plan.nested_dropout, loss=loss, seed=plan.seed
        )
    decay = parameter_decay(plan.parameter_decay, model, layout)
    return Shaping(penalties=penalties, decay=decay, swaps=_swaps(plan, layout))


@dataclass(frozen=True, eq=False)
class BatchTokens:
    """The tokens of the step's own batch."""

    task: Task
    seed: int

    def __call__(self, step: int) -> Tensor:
        """`[batch pos]`."""
        return self.task.batch(self.seed, step).inputs


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """The loss of the step's own batch."""

    task: Task
    seed: int

    def __call__(self, model: Any, step: int) -> Tensor:
        """A scalar."""
        batch = self.task.batch(self.seed, step)
        return batch.loss(batch.outputs(model))


def _wiring(plan: Plan, layout: Layout) -> WiringLength:
    strength: Strength = plan.wiring
    bias: Strength = 1.0
    if plan.schedule == "published":
        known = published(plan.task)
        strength, bias = scaled(known, plan.wiring), Piecewise(known.bias)
    elif plan.schedule == "piecewise":
        strength = Piecewise(points(plan.strengths or "", "strengths", MAX_STRENGTH))
    return WiringLength(
        layout=layout,
        strength=strength,
        steps=plan.steps,
        per_distance=plan.per_distance,
        gap=plan.gap,
        reduction=plan.reduction,
        bias=bias,
        last_distance=plan.last_distance,
    )


def published(task: str) -> Experiment:
    """The experiment with this task."""
    every = (experiment(name) for name in experiment_names(from_files=True))
    return next(known for known in every if known.data == task)


def scaled(known: Experiment, peak: float) -> Piecewise:
    """The published jumps of the strength, the largest of them this."""
    factor = peak / max(value for _, value in known.strength)
    return Piecewise(tuple((share, value * factor) for share, value in known.strength))


def _swaps(plan: Plan, layout: Layout) -> Swaps | None:
    if plan.swaps == "none":
        return None
    fixed = () if plan.swap_inputs or plan.network_kind == "transformer" else ("inputs",)
    return Swaps(
        layout=layout,
        every=plan.swap_every,
        method=plan.swaps,
        top_k=plan.top_k,
        reduction=plan.reduction,
        fixed=fixed,
    )

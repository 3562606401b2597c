"""Training in turn: train, grow, train what is new, and so on; the old part is frozen, or trained on.

    <out>/0-start/     the model as given, trained plainly
          1-head-0.1/  grown by one head; that head is trained, the rest is frozen …

Every stage is one run of the training loop with its own schedule; the whole costs (stages × steps). A killed
run goes on where it was, and ends with the bits of one that was not: finished stages are read, the last is
resumed.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from workbench.errors import CheckpointError, ConfigError
from workbench.models.checkpoints import read_config, read_weights
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.growth.additions import Grown, Start, add_heads, add_layers
from workbench.training.growth.channels import Entry, add_channels
from workbench.training.growth.frozen import Frozen
from workbench.training.loop import ProgressFn, fit
from workbench.training.shaping import Penalty, Shaping, as_shaping, described
from workbench.training.state import STATE_FILE
from workbench.training.tasks.batches import Task
from workbench.writing import write_atomically

SHARED = ("embed.*", "pos_embed.*", "unembed.*")
"""Patterns of what all heads share, in a model with trained positions and no norms."""

_REQUEST_FILE = "stage.json"
# Stages draw different batches: their seeds are this far apart.
_SEED_STRIDE = 1009


@dataclass(frozen=True, eq=False)
class Addition:
    """One growth, and the length of the training after it.

    Args:
        name: of the stage's folder.
        grow: model → larger model with the same logits.
        steps: optimiser steps; default those of the run's config.
    """

    name: str
    grow: Callable[[Transformer], Grown]
    steps: int | None = None


def heads_in_turn(
    heads: tuple[int, ...], *, start: Start | None = None, seed: int = 0
) -> tuple[Addition, ...]:
    """The additions from one layer of one head to `heads[layer]` heads in each layer, one head at a time.

    Raises:
        ConfigError: a layer without heads.
    """
    if not heads or not all(isinstance(n, int) and n >= 1 for n in heads):
        raise ConfigError(f"give the number of heads of every layer, 1 or more, not {heads!r:.60}")
    found: list[Addition] = []
    for layer, n in enumerate(heads):
        for head in range(n):
            own = seed + 1 + len(found)
            grow: Callable[[Transformer], Grown] = partial(
                add_heads, layer=layer, start=start, seed=own
            )
            if head == 0:
                grow = partial(_layer_of_one_head, start=start, seed=own)
            if (layer, head) != (0, 0):
                found.append(Addition(f"head-{layer}.{head}", grow))
    return tuple(found)


def layers_in_turn(
    orders: Sequence[str], *, start: Start | None = None, seed: int = 0
) -> tuple[Addition, ...]:
    """One addition for each group of sublayers, `("s", "s")` for example, with heads like the last layer's."""
    return tuple(
        Addition(
            f"layer-{number}-{order}",
            partial(add_layers, order=order, start=start, seed=seed + number),
        )
        for number, order in enumerate(orders, 1)
    )


def channels_then(
    k: int, steps: int, *, entry: Entry = "empty", start: Start | None = None, seed: int = 0
) -> Addition:
    """k channels, and so many steps after them."""
    grow = partial(add_channels, k=k, entry=entry, start=start, seed=seed + 1)
    return Addition(f"channels-{k}", grow, steps)


def _layer_of_one_head(model: Transformer, start: Start | None, seed: int) -> Grown:
    sizes = model.cfg.blocks[-1].head_sizes[:1]
    return add_layers(model, "s", head_sizes=sizes, start=start, seed=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Turns:
    """What grows when, and what of the rest is trained with it.

    Args:
        freeze: hold the old numbers; otherwise all is trained on.
        free: patterns of parameters that are trained in every stage all the same.
        penalties: stage's model → what is added to its loss.

    Raises:
        ConfigError: additions of one name.
    """

    additions: tuple[Addition, ...]
    freeze: bool = True
    free: tuple[str, ...] = ()
    penalties: Callable[[Transformer], Sequence[Penalty] | Shaping] | None = None

    def __post_init__(self) -> None:
        names = [addition.name for addition in self.additions]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"every addition needs a name of its own: they are {', '.join(names)}"
            )

    def shaping(self, grown: Grown) -> Shaping:
        """All that shapes a stage's weights beside its loss."""
        given = as_shaping(self.penalties(grown.model) if self.penalties else ())
        if not self.freeze or not grown.old:
            return given
        return Frozen.of(grown.model, grown.old, free=self.free).added_to(given)


def train_in_turn(
    model: Transformer,
    task: Task,
    config: TrainingConfig,
    out: Path,
    turns: Turns,
    *,
    progress: ProgressFn | None = None,
) -> Transformer | None:
    """Train a model, then after every addition what is new; None if stopped, to be resumed by the same call.

    Args:
        model: untrained, or at any rate the same in every call.
        config: of every stage, but for the seeds of their batches and the steps that an addition asks for.

    Raises:
        CheckpointError: a stage's folder belongs to another run.
        ConfigError: a stage that would leave nothing to train.
    """
    grown, stage, name = Grown(model, {}), config, "start"
    for number in range(len(turns.additions) + 1):
        if number:
            addition = turns.additions[number - 1]
            name, grown = addition.name, addition.grow(grown.model)
            stage = replace(config, seed=config.seed + number * _SEED_STRIDE)
            if addition.steps is not None:
                stage = replace(stage, steps=addition.steps, keep=())
        shaping, folder = turns.shaping(grown), out / f"{number}-{name}"
        if not train_stage(grown.model, task, stage, folder, penalties=shaping, progress=progress):
            return None
    return grown.model


def train_stage(
    model: Transformer,
    task: Task,
    config: TrainingConfig,
    out: Path,
    *,
    penalties: Sequence[Penalty] | Shaping = (),
    progress: ProgressFn | None = None,
) -> bool:
    """Train a model into a folder; where that very run is finished already, its weights are read.

    Args:
        penalties: as of `fit`; what a `Frozen` was added to is trained with that part frozen.

    Returns:
        False if it was stopped early and can be resumed by the same call with the same model.

    Raises:
        CheckpointError: the folder belongs to another run: other settings, start or frozen part.
    """
    shaping = as_shaping(penalties)
    _check_request(out, _request(model, config, shaping))
    if (out / "config.json").is_file() and not (out / STATE_FILE).is_file():
        read_config(out / "config.json")
        model.load_state_dict(read_weights(out / "model.safetensors", model.state_dict()))
        model.eval()
        return True
    with ExitStack() as stack:
        for hook in shaping.after_step:
            if isinstance(hook, Frozen):
                stack.enter_context(hook.held(model))
        return fit(model, task, config, out, penalties=shaping, progress=progress)


def _request(model: Transformer, config: TrainingConfig, shaping: Shaping) -> str:
    wanted = {
        "config": config.fingerprint(),
        "model": model.cfg.to_json(),
        "shaping": hashlib.sha256(shaping.fingerprint().encode()).hexdigest(),
        "start": described(dict(model.named_parameters())),
    }
    return json.dumps(wanted, indent=1)


def _check_request(out: Path, request: str) -> None:
    path = out / _REQUEST_FILE
    out.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        if path.read_text(encoding="utf-8", errors="replace") != request:
            raise CheckpointError(
                f"{out} belongs to another run (other settings, start or frozen part): give another folder"
            )
        return
    if (out / "config.json").exists() or (out / STATE_FILE).exists():
        raise CheckpointError(f"{out} already holds a run that is no stage: give another folder")
    write_atomically(path, request)

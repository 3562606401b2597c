"""Running an experiment: its data, network, penalty and swaps, and the folder that it is trained into.

<out>/run.json       what was asked for, written before the first step
      config.json model.safetensors metrics.jsonl      as the loop leaves them
      report.json    loss, wiring and modularity; measured anew by every call on a finished folder
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from workbench.errors import ConfigError
from workbench.models.config import TransformerConfig
from workbench.models.files import read_json
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.experiments import Experiment, Request
from workbench.training.folders import RUN_FILE, is_trained
from workbench.training.layouts import Layout
from workbench.training.loop import ProgressFn, fit
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.regularizers.strength import Piecewise
from workbench.training.regularizers.swaps import Swaps
from workbench.training.regularizers.wiring import WiringLength
from workbench.training.reports import Report, layout_of, report
from workbench.training.shaping import Shaping
from workbench.training.tasks import (
    FixedTask,
    InContextRegression,
    digits,
    formula_task,
    mnist,
    modular_addition,
    permutations,
    two_moons,
)
from workbench.training.wires import Network
from workbench.writing import write_atomically


def make_task(chosen: Experiment, folder: str | None = None) -> FixedTask | InContextRegression:
    """The data of an experiment.

    Args:
        folder: of the files, for an experiment `from_files`.

    Raises:
        ConfigError: such files, missing or broken.
    """
    if chosen.from_files:
        if folder is None:
            raise ConfigError(
                f"{chosen.name} reads files of yours: give the folder of the four files"
            )
        return mnist(folder)
    if chosen.data == "digits":
        return digits(seed=chosen.data_seed)
    if chosen.data == "in-context regression":
        return InContextRegression(data_seed=chosen.data_seed)
    if chosen.data == "two moons":
        return two_moons(seed=chosen.data_seed)
    if chosen.data == "modular addition":
        return modular_addition(seed=chosen.data_seed)
    if chosen.data == "permutations":
        return permutations(seed=chosen.data_seed)
    return formula_task(chosen.data, seed=chosen.data_seed)


def make_model(request: Request) -> Network:
    """The untrained network."""
    chosen = request.experiment
    if chosen.kind == "transformer":
        model: Network = _transformer(request)
    else:
        shape = chosen.shape | {"seed": request.model_seed}
        model = MLP(MLPConfig(**shape), name=request.name)
    return model.double() if chosen.in_double else model


def _transformer(request: Request) -> Transformer:
    task = make_task(request.experiment)
    assert not isinstance(task, FixedTask)
    shape: dict[str, Any] = request.experiment.shape | task.shape
    config = TransformerConfig(**{name: shape[name] for name in shape if name != "seed"})
    return Transformer(config, name=request.name, seed=request.model_seed)


def make_config(request: Request) -> TrainingConfig:
    """Optimiser and schedule; a validation every fortieth of the way, and more at the start."""
    steps = request.n_steps
    often = max(1, steps // 40)
    return TrainingConfig(
        steps=steps,
        lr=request.experiment.lr,
        muon_lr=None,
        betas=(0.9, 0.999),
        warmup=0.0,
        decay=0.0,
        clip=None,
        validate_every=often,
        validate_early=True,
        save_every=often,
        bf16=False,
    )


def make_shaping(request: Request, layout: Layout) -> Shaping:
    """Penalty and swaps of a variant."""
    chosen, variant = request.experiment, request.variant
    if variant == "none":
        return Shaping()
    wiring = WiringLength(
        layout=layout,
        strength=Piecewise(chosen.strength),
        steps=request.n_steps,
        per_distance=chosen.per_distance if variant in ("local", "bimt") else 0,
        gap=chosen.gap,
        reduction=chosen.reduction,
        bias=Piecewise(chosen.bias),
        last_distance=chosen.last_distance,
    )
    swaps = Swaps(
        layout=layout,
        every=chosen.every,
        method="greedy",
        top_k=chosen.top_k,
        reduction=chosen.reduction,
        fixed=chosen.fixed,
    )
    return Shaping(
        penalties={"wiring": wiring}, swaps=swaps if variant in ("swap", "bimt") else None
    )


def train(request: Request, out: Path, *, progress: ProgressFn | None = None) -> Report | None:
    """Train into a folder and measure what came out; None if it was stopped, to go on by the same call.

    Raises:
        ConfigError: the folder holds another run, or a model that nothing tells the origin of.
    """
    out = Path(out)
    _check_folder(out, request)
    task = make_task(request.experiment, request.folder)
    if not is_trained(out):
        write_atomically(out / RUN_FILE, json.dumps(request.record()))
        model = make_model(request)
        layout = layout_of(request.experiment, model)
        config, shaping = make_config(request), make_shaping(request, layout)
        with _one_thread():
            if not fit(model, task, config, out, penalties=shaping, progress=progress):
                return None
    return report(request, task, out)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another cost such small matrices far more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_folder(out: Path, request: Request) -> None:
    if (out / RUN_FILE).is_file():
        found, wanted = read_json(out / RUN_FILE), request.record()
        if found != wanted:
            raise ConfigError(
                f"{out} holds a run of {json.dumps(found)[:200]}, not of {json.dumps(wanted)}: "
                "choose another folder (--out)"
            )
    elif (out / "model.safetensors").exists():
        raise ConfigError(
            f"{out} holds a model without a record of what made it: choose another folder (--out)"
        )

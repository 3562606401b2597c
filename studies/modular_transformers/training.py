"""The models of this study: two tasks, four conditions, several strengths, trained from the same starts.

    none     the task's loss alone                       l1      + λ · y0 · mean |w|, summed over matrices
    local    + λ · mean |w| (A·d + y0)                   swaps   the same, and units trade places

A, y0 and the mean over each matrix as published for transformers (Liu, Gan, Tegmark 2023); λ is a tenth in the
first quarter of the steps, as in the paper's schedules. AdamW for all parameters: an optimiser that mixes the
entries of a matrix, as Muon does, would spread a penalty on single weights.

    python -m studies.modular_transformers.training      trains what is missing; a stopped run goes on
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from workbench.cache import cache_root
from workbench.errors import ConfigError
from workbench.models.config import TransformerConfig
from workbench.models.files import read_json
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.folders import RUN_FILE, is_trained
from workbench.training.layouts import line_layout
from workbench.training.loop import fit
from workbench.training.recipes import D_SYMBOLS, D_VOCAB
from workbench.training.regularizers.strength import Piecewise
from workbench.training.regularizers.swaps import Swaps
from workbench.training.regularizers.wiring import WiringLength
from workbench.training.shaping import Shaping
from workbench.training.starts import language_model_start
from workbench.training.tasks import Repeats, Task, TextTask
from workbench.writing import write_atomically

Data = Literal["repeats", "text"]
Condition = Literal["none", "l1", "local", "swaps"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
PER_DISTANCE, GAP = 2.0, 0.5
SWAP_EVERY = 50
STEPS: dict[Data, int] = {"repeats": 800, "text": 1200}
LR: dict[Data, float] = {"repeats": 1e-2, "text": 6e-3}
# Snapshots of models without a penalty, for comparisons at the loss of those with one.
KEPT = (0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SHAPES: dict[Data, dict[str, int]] = {
    "repeats": {"d_model": 64, "d_head": 16, "d_vocab": D_SYMBOLS, "n_ctx": 64},
    "text": {"d_model": 128, "d_head": 32, "d_vocab": D_VOCAB, "n_ctx": 32},
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model to train.

    Args:
        strength: λ at its full height; 0 without a penalty.
        seed: of the weights at the start and of the batches.

    Raises:
        ConfigError: a condition that is none, or a strength that does not go with it.
    """

    data: Data
    condition: Condition
    strength: float = 0.0
    seed: int = 0
    steps: int

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise ConfigError(f"no condition {self.condition!r}: there are {', '.join(CONDITIONS)}")
        if (self.condition == "none") != (self.strength == 0):
            raise ConfigError(f"{self.condition!r} does not go with a strength of {self.strength}")

    @property
    def name(self) -> str:
        """Tells one trial from another, as a folder."""
        return f"{self.data}-{self.condition}-{self.strength:g}-seed{self.seed}-{self.steps}"

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Steps at which the weights are kept on the way."""
        if self.condition != "none":
            return ()
        return tuple(sorted({round(share * self.steps) for share in KEPT} - {0}))


def runs_root() -> Path:
    """Where trained models are kept between calls; it may be deleted."""
    return cache_root() / "studies" / "modular-transformers"


def make_task(data: Data) -> Task:
    """The data: repeats in batches a quarter the size of those of `induction-2l`, or Python source."""
    shape = _SHAPES[data]
    if data == "repeats":
        return Repeats(shape["d_vocab"], shape["n_ctx"], n_rows=16, periods=(6, 24), first=2)
    from workbench.training.corpora import encoded_corpus, standard_library

    text = encoded_corpus(standard_library(), D_VOCAB)
    return TextTask(text.train, text.held_out, D_VOCAB, shape["n_ctx"], n_rows=16, n_repeats=8)


def make_model(trial: Trial) -> Transformer:
    """The untrained model; it depends on data and seed alone."""
    from workbench.training.corpora import encoded_corpus, standard_library
    from workbench.training.vocabularies import symbol_tokenizer

    config = TransformerConfig(
        order="ss",
        n_heads=4,
        positions="shortformer",
        unembed_bias=True,
        **_SHAPES[trial.data],  # type: ignore[arg-type]  # the numbers of the shape
    )
    is_text = trial.data == "text"
    tokenizer = (
        encoded_corpus(standard_library(), D_VOCAB).tokenizer if is_text else symbol_tokenizer()
    )
    model = Transformer(config, tokenizer, name=trial.name, seed=trial.seed)
    language_model_start(model, trial.seed)
    return model


def make_config(trial: Trial) -> TrainingConfig:
    """Optimiser and schedule."""
    return TrainingConfig(
        steps=trial.steps,
        seed=trial.seed,
        lr=LR[trial.data],
        muon_lr=None,
        validate_every=max(1, trial.steps // 20),
        save_every=max(1, trial.steps // 4),
        keep=trial.snapshots,
        bf16=False,
    )


def make_shaping(trial: Trial, model: Transformer) -> Shaping:
    """What acts on the weights beside the loss."""
    if trial.condition == "none":
        return Shaping()
    layout = line_layout(model)
    wiring = WiringLength(
        layout=layout,
        strength=Piecewise(((0, trial.strength / 10), (0.25, trial.strength))),
        steps=trial.steps,
        per_distance=0 if trial.condition == "l1" else PER_DISTANCE,
        gap=GAP,
        reduction="mean",
    )
    swaps = Swaps(layout=layout, every=SWAP_EVERY, reduction="mean")
    return Shaping(
        penalties={"wiring": wiring}, swaps=swaps if trial.condition == "swaps" else None
    )


def train(trial: Trial, root: Path) -> Path:
    """The folder of the trained model, made or taken up where it was left.

    Raises:
        ConfigError: the folder holds another run.
    """
    folder = root / trial.name
    record = asdict(trial) | {"lr": LR[trial.data], "gap": GAP, "per_distance": PER_DISTANCE}
    record |= {"swap_every": SWAP_EVERY}
    if (folder / RUN_FILE).is_file() and read_json(folder / RUN_FILE) != record:
        raise ConfigError(f"{folder} holds a run with other settings: delete it to train anew")
    if is_trained(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RUN_FILE, json.dumps(record))
    torch.set_num_threads(1)
    model = make_model(trial)
    config, shaping = make_config(trial), make_shaping(trial, model)
    fit(model, make_task(trial.data), config, folder, penalties=shaping)
    return folder


def train_all(
    trials: tuple[Trial, ...], root: Path, told: Callable[[Trial], None] | None = None
) -> None:
    """Train what is missing, one after the other."""
    for trial in trials:
        train(trial, root)
        if told is not None:
            told(trial)

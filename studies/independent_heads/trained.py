"""The models of the study: the same heads trained jointly, in turn, and layer by layer.

task      repeats   random symbols that repeat (two layers of four heads, as `induction-2l`)
          text      source of the Python standard library (one layer of eight heads)
way       joint     all heads from the start, as many steps as heads × steps per head
          greedy    one head after another, earlier ones frozen; what they share is trained throughout
          apart     the same, and what a new head writes must not vary with what the earlier ones write
          closed    the same as greedy, but what is shared is frozen too once the first head is trained
          patient   as greedy, with four times the steps for every head (one seed)
          layers    four heads jointly, frozen; then four more in a second layer, jointly
          given     the first layer, embedding and positions of the joint model, frozen; a new second layer

Every training is kept under the folder of runs: one that was stopped goes on, and a finished one is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.corpora import encoded_corpus, standard_library
from workbench.training.growth import (
    SHARED,
    Frozen,
    Turns,
    heads_in_turn,
    layers_in_turn,
    train_in_turn,
    train_stage,
)
from workbench.training.loop import ProgressFn
from workbench.training.recipes import D_SYMBOLS, D_VOCAB
from workbench.training.regularizers.decorrelation import HeadDecorrelation
from workbench.training.starts import language_model_start
from workbench.training.tasks import Repeats, Task, TextTask

REPEATS, TEXT = "repeats", "text"
N_CTX, N_ROWS, D_MODEL, D_HEAD = 64, 16, 64, 16
LAYERS = {REPEATS: (4, 4), TEXT: (8,)}
CURVE = {REPEATS: ((1,), (4,), (4, 1), (4, 4)), TEXT: ((1,), (2,), (4,), (8,))}
WAYS = {
    REPEATS: ("joint", "greedy", "apart", "patient", "layers", "given"),
    TEXT: ("joint", "greedy", "apart", "closed"),
}


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        seeds: of weights and batches, for repeats.
        text_seeds: for text.
        patient_seeds: those of the way "patient", which is long.
        steps: for each head, in every way but "patient".
        patience: times as many for each head there.
        apart: strength of the penalty on likeness.
        n_rows: held-out rows on which models are measured.
        n_prompts: random repeats on which heads are scored.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    text_seeds: tuple[int, ...] = (0,)
    patient_seeds: tuple[int, ...] = (0, 1)
    steps: int = 100
    patience: int = 4
    apart: float = 1.0
    n_rows: int = 128
    n_prompts: int = 64
    seed: int = 0


def seeds_of(task: str, way: str, config: Config) -> tuple[int, ...]:
    """For which seeds a way is gone."""
    if task == TEXT:
        return config.text_seeds
    return config.patient_seeds if way == "patient" else config.seeds


class Stage(NamedTuple):
    """A trained model: its heads in each layer, and the steps that it has seen in all."""

    heads: tuple[int, ...]
    steps: int
    model: Transformer


@cache
def task_of(task: str) -> Task:
    """The data of a task."""
    if task == REPEATS:
        return Repeats(D_SYMBOLS, N_CTX, N_ROWS, periods=(6, 24), first=2)
    text = encoded_corpus(standard_library(), D_VOCAB)
    return TextTask(text.train, text.held_out, D_VOCAB, N_CTX, N_ROWS)


def untrained(
    task: str, heads: tuple[int, ...], seed: int, *, d_model: int = D_MODEL
) -> Transformer:
    """A model of so many heads in each layer, at its start."""
    shape = TransformerConfig(
        order="s" * len(heads),
        d_model=d_model,
        head_sizes=tuple((D_HEAD,) * n for n in heads),
        d_vocab=D_SYMBOLS if task == REPEATS else D_VOCAB,
        n_ctx=N_CTX,
        positions="shortformer",
        unembed_bias=True,
    )
    model = Transformer(shape, name=task, seed=seed)
    language_model_start(model, seed)
    return model


class BatchTokens:
    """The tokens of the step's own batch, on which heads are compared."""

    def __init__(self, task: str, seed: int) -> None:
        self._task, self._seed = task_of(task), seed

    def __call__(self, step: int) -> Tensor:
        """`[row pos]`"""
        return self._task.batch(self._seed, step).inputs


def trained(
    task: str,
    way: str,
    seed: int,
    config: Config,
    runs: Path,
    progress: ProgressFn | None = None,
) -> list[Stage]:
    """All stages of one way, the last one last; trained where they are not kept yet."""
    training = Training(task, seed, config, runs / task / f"{way}-{seed}", progress)
    ways: dict[str, Callable[[], Iterator[Stage]]] = {
        "joint": training.joint,
        "greedy": partial(training.in_turn, free=SHARED),
        "apart": partial(training.in_turn, free=SHARED, strength=config.apart),
        "closed": training.in_turn,
        "patient": partial(training.in_turn, free=SHARED, times=config.patience),
        "layers": training.by_layers,
        "given": training.behind_a_given_layer,
    }
    return list(ways[way]())


@dataclass(frozen=True)
class Training:
    """One way for one seed."""

    task: str
    seed: int
    config: Config
    out: Path
    progress: ProgressFn | None = None

    def settings(self, steps: int) -> TrainingConfig:
        """Of one run; in float32 everywhere, so that machines agree."""
        # Half of a stage is where it may stop: little is lost.
        saved = max(1, steps // 2)
        return TrainingConfig(
            steps=steps, seed=self.seed, bf16=False, validate_every=steps, save_every=saved
        )

    def joint(self) -> Iterator[Stage]:
        """Models of growing size, each from its start."""
        for heads in CURVE[self.task]:
            steps = self.config.steps * sum(heads)
            model, out = untrained(self.task, heads, self.seed), self.out / _named(heads)
            self._train(model, steps, out)
            yield Stage(heads, steps, model)

    def in_turn(
        self, free: tuple[str, ...] = (), strength: float = 0.0, times: int = 1
    ) -> Iterator[Stage]:
        """One head after another: a stage for each."""
        heads = LAYERS[self.task]
        additions = heads_in_turn(heads, start=language_model_start, seed=1000 * self.seed)
        steps = self.config.steps * times
        for n in range(len(additions) + 1):
            # Grown again from the kept stages each time, of which all but the last are only read.
            turns = Turns(
                additions=additions[:n],
                free=free,
                penalties=partial(self._apart, strength=strength) if strength else None,
            )
            model = untrained(self.task, (1,), self.seed)
            grown = train_in_turn(
                model,
                task_of(self.task),
                self.settings(steps),
                self.out,
                turns,
                progress=self.progress,
            )
            assert grown is not None
            sizes = tuple(len(block.head_sizes) for block in grown.cfg.blocks)
            yield Stage(sizes, steps * (n + 1), grown)

    def by_layers(self) -> Iterator[Stage]:
        """The first layer's heads together, then the second's."""
        heads = LAYERS[self.task]
        additions = layers_in_turn(
            ("s",) * (len(heads) - 1), start=language_model_start, seed=1000 * self.seed
        )
        steps = self.config.steps * heads[0]
        turns = Turns(additions=additions, free=SHARED)
        model = untrained(self.task, heads[:1], self.seed)
        grown = train_in_turn(
            model, task_of(self.task), self.settings(steps), self.out, turns, progress=self.progress
        )
        assert grown is not None
        yield Stage(heads, steps * len(heads), grown)

    def behind_a_given_layer(self) -> Iterator[Stage]:
        """A second layer behind a first that was made jointly with another second."""
        heads = LAYERS[self.task]
        maker = replace(self, out=self.out.parent / f"joint-{self.seed}")
        *_, source = maker.joint()
        model = untrained(self.task, heads, self.seed + 500)
        taken = ("embed.", "pos_embed.", "blocks.0.")
        kept = {
            name: value
            for name, value in source.model.state_dict().items()
            if name.startswith(taken)
        }
        model.load_state_dict(kept, strict=False)
        masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in kept.items()}
        frozen = Frozen.of(model, masks)
        steps = self.config.steps * heads[1]
        train_stage(
            model,
            task_of(self.task),
            self.settings(steps),
            self.out,
            penalties=frozen.added_to(()),
            progress=self.progress,
        )
        yield Stage(heads, source.steps + steps, model)

    def _train(self, model: Transformer, steps: int, out: Path) -> None:
        task = task_of(self.task)
        train_stage(model, task, self.settings(steps), out, progress=self.progress)

    def _apart(self, model: Transformer, strength: float) -> list[HeadDecorrelation]:
        if all(len(block.head_sizes) < 2 for block in model.cfg.blocks):
            return []
        return [HeadDecorrelation(strength=strength, tokens=BatchTokens(self.task, self.seed))]


def _named(heads: tuple[int, ...]) -> str:
    return "+".join(map(str, heads))

"""The models of the study: C + k channels from the start, or C first and k more half-way.

task     repeats   random symbols that repeat (two layers of four heads, as `induction-2l`)
         text      source of the Python standard library (one layer of four heads)
way      wide      C + k channels for all steps
         narrow    C channels for all steps
         grown     C channels for half the steps; k more, which come in empty; all is trained on
         frozen    the same, but every number of the first C channels stays as it is from then on
         unread    as grown, but the new channels come in filled at random, and nobody reads them yet
         unread, frozen

Sizes of heads are those of the wide model everywhere. The second half starts its schedule anew (rate of
learning up, constant, down); to tell what that does from what the channels do, there is one way more:

         restarted  C + k channels for all steps, with the schedule of the grown ones

Every training is kept under the folder of runs: one that was stopped goes on, and a finished one is read.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from studies.independent_heads import trained as by_heads
from studies.independent_heads.trained import REPEATS, TEXT, task_of
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.growth import Addition, Grown, Turns, channels_then, train_in_turn
from workbench.training.growth.channels import Entry
from workbench.training.loop import ProgressFn
from workbench.training.starts import language_model_start

TASKS = (REPEATS, TEXT)
HEADS = {REPEATS: (4, 4), TEXT: (4,)}
WIDE, NARROW, RESTARTED = "wide", "narrow", "restarted"
GROWN: dict[str, tuple[Entry, bool]] = {
    "grown": ("empty", False),
    "frozen": ("empty", True),
    "unread": ("unread", False),
    "unread, frozen": ("unread", True),
}
WAYS = (WIDE, RESTARTED, NARROW, *GROWN)


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        seeds: of weights and batches, for repeats.
        text_seeds: for text.
        width: channels at first (C).
        added: and how many more (k).
        steps: in all, of every way.
        n_rows: held-out rows on which models are measured.
        n_halves: random choices of as many channels as are old, whose loss is compared.
    """

    seeds: tuple[int, ...] = (0, 1)
    text_seeds: tuple[int, ...] = (0,)
    width: int = 16
    added: int = 16
    steps: int = 800
    n_rows: int = 128
    n_halves: int = 5
    seed: int = 0


def seeds_of(task: str, config: Config) -> tuple[int, ...]:
    """For which seeds a task is trained."""
    return config.seeds if task == REPEATS else config.text_seeds


def untrained(task: str, width: int, seed: int) -> Transformer:
    """A model of so many channels, at its start."""
    return by_heads.untrained(task, HEADS[task], seed, d_model=width)


def settings(steps: int, seed: int) -> TrainingConfig:
    """Of one run; in float32 everywhere, so that machines agree."""
    return TrainingConfig(
        steps=steps, seed=seed, bf16=False, validate_every=100, save_every=max(1, steps // 2)
    )


def trained(
    task: str,
    way: str,
    seed: int,
    config: Config,
    runs: Path,
    progress: ProgressFn | None = None,
) -> Transformer:
    """The model that one way leads to; trained where it is not kept yet."""
    wide = config.width + config.added
    model = untrained(task, config.width if way in (NARROW, *GROWN) else wide, seed)
    turns, steps = Turns(additions=()), config.steps
    if way in GROWN or way == RESTARTED:
        steps = config.steps // 2
        turns = _turns(way, config.added, config.steps - steps, seed)
    out = folder_of(task, way, seed, runs)
    done = train_in_turn(model, task_of(task), settings(steps, seed), out, turns, progress=progress)
    assert done is not None
    return done


def folder_of(task: str, way: str, seed: int, runs: Path) -> Path:
    """Where a way keeps its stages; all that grow share their first half."""
    return runs / task / f"{'growing' if way in GROWN else way}-{seed}"


def _turns(way: str, added: int, steps: int, seed: int) -> Turns:
    if way == RESTARTED:
        return Turns(additions=(Addition("same", _same, steps),), freeze=False)
    entry, freeze = GROWN[way]
    channels = channels_then(
        added, steps, entry=entry, start=language_model_start, seed=1000 * seed
    )
    channels = replace(channels, name=way.replace(", ", "-"))
    return Turns(additions=(channels,), freeze=freeze)


def _same(model: Transformer) -> Grown:
    return Grown(model, {})

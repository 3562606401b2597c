"""The tasks that a plan can name: for which networks each is, and how its data are made.

    TASK_KINDS["two moons"] = TaskKind(summary="…", mlp=lambda source: two_moons(seed=source.seed))

One entry is all that a new task needs. Nothing here loads torch: the makers import when they are called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.models.tokenizer import Tokenizer
    from workbench.training.tasks import FixedTask, Task


@dataclass(frozen=True, kw_only=True)
class Source:
    """What data are made from.

    Args:
        seed: draws the examples.
        rows: of a batch; None = the task's own.
        folder: of the user's files.
        store: where what was made of them may be kept.
    """

    seed: int = 0
    modulus: int = 59
    rows: int | None = None
    repeat_rows: int = 0
    n_ctx: int = 64
    d_vocab: int = 1024
    folder: Path | None = None
    store: Path | None = None


@dataclass(frozen=True)
class Tokens:
    """A task for a transformer: its data, their tokenizer, and what the model's config needs to fit."""

    task: "Task"
    tokenizer: "Tokenizer | None"
    shape: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """One task by name.

    Args:
        mlp: makes it for a multilayer perceptron; None = not for one.
        transformer: makes it for a transformer; None = not for one.
        reads_tokens: whether a perceptron reads tokens, which it embeds.
        reads_files: whether it needs a folder of the user's.
        is_text: whether a tokenizer is trained.
        is_published: whether a schedule of the wiring length was published for it.
        has_tokenizer: whether prompts can be read by what has learnt it.
        unused: fields of the plan that it has no use for, beyond those that follow from the above.
    """

    summary: str
    mlp: "Callable[[Source], FixedTask] | None" = None
    transformer: Callable[[Source], Tokens] | None = None
    reads_tokens: bool = False
    reads_files: bool = False
    is_text: bool = False
    has_modulus: bool = False
    is_published: bool = False
    fixed_context: bool = False
    has_seed: bool = True
    has_tokenizer: bool = True

    @property
    def networks(self) -> tuple[str, ...]:
        """The kinds of network that it is for."""
        found = {"mlp": self.mlp, "transformer": self.transformer}
        return tuple(name for name, maker in found.items() if maker is not None)


def _formula(name: str) -> "Callable[[Source], FixedTask]":
    def make(source: Source) -> Any:
        from workbench.training.tasks import formula_task

        return formula_task(name, seed=source.seed)

    return make


def _two_moons(source: Source) -> Any:
    from workbench.training.tasks import two_moons

    return two_moons(seed=source.seed)


def _addition(source: Source) -> Any:
    from workbench.training.tasks import modular_addition

    return modular_addition(p=source.modulus, seed=source.seed)


def _addition_tokens(source: Source) -> Tokens:
    from workbench.training.tasks import ModularAddition
    from workbench.training.vocabularies import number_tokenizer

    p = source.modulus
    task = ModularAddition(p, n_rows=source.rows or 512, split_seed=source.seed)
    return Tokens(task, number_tokenizer(p), {"d_vocab": p + 2, "d_vocab_out": p, "n_ctx": 3})


def _permutations(source: Source) -> Any:
    from workbench.training.tasks import permutations

    return permutations(seed=source.seed)


def _digits(source: Source) -> Any:
    from workbench.training.tasks.digits import digits

    return digits(seed=source.seed)


def _mnist(source: Source) -> Any:
    from workbench.training.tasks.digits import mnist

    assert source.folder is not None
    return mnist(source.folder)


def _repeats(source: Source) -> Tokens:
    from workbench.training.tasks import Repeats
    from workbench.training.vocabularies import SYMBOLS, symbol_tokenizer

    d_vocab, n_ctx = len(SYMBOLS) + 2, source.n_ctx
    if n_ctx < 8:
        raise ConfigError(f"n_ctx must be at least 8 for repeats, not {n_ctx}")
    periods = (max(2, 6 * n_ctx // 64), max(3, 24 * n_ctx // 64))
    task = Repeats(d_vocab, n_ctx, source.rows or 64, periods, first=2)
    return Tokens(task, symbol_tokenizer(), {"d_vocab": d_vocab, "n_ctx": n_ctx})


def _python_text(source: Source) -> Tokens:
    from workbench.training.corpora import encoded_corpus, standard_library

    return _text(source, encoded_corpus(standard_library(), source.d_vocab))


def _own_text(source: Source) -> Tokens:
    from workbench.training.own_text import encoded_folder

    assert source.folder is not None
    return _text(source, encoded_folder(source.folder, source.d_vocab, source.store))


def _text(source: Source, text: Any) -> Tokens:
    from workbench.training.tasks import TextTask

    task = TextTask(
        text.train,
        text.held_out,
        source.d_vocab,
        source.n_ctx,
        source.rows or 8,
        source.repeat_rows,
    )
    return Tokens(task, text.tokenizer, {"d_vocab": source.d_vocab, "n_ctx": source.n_ctx})


def _in_context(source: Source) -> Tokens:
    from workbench.training.tasks import InContextRegression

    task = InContextRegression(data_seed=source.seed, n_rows=source.rows or 64)
    return Tokens(task, None, task.shape)


TASK_KINDS: dict[str, TaskKind] = {
    "independence": TaskKind(
        summary="Two outputs that share no input: ((x1 + x3)³, x2² + sin πx4).",
        mlp=_formula("independence"),
        is_published=True,
    ),
    "feature-sharing": TaskKind(
        summary="Three outputs that share squares: (x1², x1² + x2², x1² + x2² + x3²).",
        mlp=_formula("feature-sharing"),
        is_published=True,
    ),
    "compositionality": TaskKind(
        summary="Squares that a root needs: √((x1 − x2)² + (x3 − x4)²).",
        mlp=_formula("compositionality"),
        is_published=True,
    ),
    "two moons": TaskKind(
        summary="Points on two half circles, told apart.", mlp=_two_moons, is_published=True
    ),
    "modular addition": TaskKind(
        summary="a + b mod p.",
        mlp=_addition,
        transformer=_addition_tokens,
        reads_tokens=True,
        has_modulus=True,
        fixed_context=True,
        is_published=True,
    ),
    "permutations": TaskKind(
        summary="Products of permutations of four things.",
        mlp=_permutations,
        reads_tokens=True,
        is_published=True,
    ),
    "digits": TaskKind(
        summary="Handwritten digits of 8 × 8 pixels.", mlp=_digits, is_published=True
    ),
    "MNIST": TaskKind(
        summary="Handwritten digits of 28 × 28 pixels, from the four MNIST files in your folder.",
        mlp=_mnist,
        reads_files=True,
        has_seed=False,
        is_published=True,
    ),
    "repeats": TaskKind(
        summary="Random letters and digits that repeat: what induction heads are for.",
        transformer=_repeats,
        has_seed=False,
    ),
    "python text": TaskKind(
        summary="Source of the Python standard library.",
        transformer=_python_text,
        is_text=True,
        has_seed=False,
    ),
    "text folder": TaskKind(
        summary="The text files of a folder of yours.",
        transformer=_own_text,
        is_text=True,
        reads_files=True,
        has_seed=False,
    ),
    "in-context regression": TaskKind(
        summary="Infer w from (x1, w·x1), answer w·x2.",
        transformer=_in_context,
        has_tokenizer=False,
        fixed_context=True,
        is_published=True,
    ),
}


def task_names() -> tuple[str, ...]:
    """The tasks that a plan can name."""
    return tuple(TASK_KINDS)

"""The bundled models, as recipes: shape, data, schedule and seed of each.

    train("attn-2l", Path("runs/attn-2l"))        the same as `workbench train attn-2l`

The language models share one tokenizer and one corpus, so that their losses compare. Positions are added to
queries and keys alone ("shortformer"): the residual stream of `attn-*` carries tokens and what heads write.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, UnknownModelError
from workbench.training.config import TrainingConfig

if TYPE_CHECKING:
    from workbench.models.tokenizer import Tokenizer
    from workbench.models.transformer import Transformer
    from workbench.training.loop import ProgressFn
    from workbench.training.tasks import Repeats, Task

D_VOCAB = 1024
N_CTX = 256
N_ROWS = 8
MODULUS = 113
D_SYMBOLS = 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model to train.

    Args:
        shape: the fields of its `TransformerConfig`.
        data: "python", "repeats" or "modular-addition".
        n_repeats: rows of each batch of text that hold repeated random tokens.
        example_prompts: what to show it first.
    """

    name: str
    summary: str
    shape: dict[str, Any]
    data: str
    training: TrainingConfig
    n_repeats: int = 0
    example_prompts: tuple[str, ...]

    @property
    def data_note(self) -> str:
        """The data in one sentence, for the card."""
        return _DATA_NOTES[self.data].format(n_repeats=self.n_repeats, n_rows=N_ROWS)

    @property
    def licence(self) -> str:
        """The licence of the data."""
        return "PSF-2.0" if self.data == "python" else "none needed: synthetic"


_DATA_NOTES = {
    "python": "source files of the Python standard library; {n_repeats} of {n_rows} rows of each batch are "
    "random tokens that repeat with random period and phase",
    "repeats": "random letters and digits that repeat with random period (6 to 24) and phase",
    "modular-addition": "40 % of the pairs a, b below 113; the rest measures generalisation",
}
_TEXT_SHAPE = {
    "d_model": 256,
    "d_vocab": D_VOCAB,
    "n_ctx": N_CTX,
    "positions": "shortformer",
    "unembed_bias": True,
}
_CODE_PROMPTS = (
    "parser.add_argument('--verbose', help='say more')\n"
    "parser.add_argument('--quiet', help='say less')\nparser.add_",
    "class Frobnicator:\n    pass\n\nclass Other(Frobn",
    "import zylograph\n\nimage = zylograph.open(path)\nimage2 = zylog",
    "x = {'north': 1, 'south': 2}\ny = {'north': 3, 'sou",
)
_RECIPES = (
    Recipe(
        name="attn-0l",
        summary="No layers: embedding and unembedding alone, which can learn bigrams and nothing else.",
        shape=_TEXT_SHAPE | {"order": "", "positions": "none"},
        data="python",
        training=TrainingConfig(steps=2000, muon_lr=None),
        example_prompts=_CODE_PROMPTS,
    ),
    Recipe(
        name="attn-1l",
        summary="One layer of attention, no MLP: bigrams and skip-trigrams.",
        shape=_TEXT_SHAPE | {"order": "s", "n_heads": 8, "d_head": 32},
        data="python",
        training=TrainingConfig(steps=2000),
        example_prompts=_CODE_PROMPTS,
    ),
    Recipe(
        name="attn-2l",
        summary="Two layers of attention, no MLP: induction heads, with the training in which they form.",
        shape=_TEXT_SHAPE | {"order": "ss", "n_heads": 4, "d_head": 64},
        data="python",
        training=TrainingConfig(
            steps=3000,
            keep=(0, 250, 500, 625, 750, 800, 850, 900, 1000, 1250, 2000, 3000),
        ),
        n_repeats=1,
        example_prompts=_CODE_PROMPTS,
    ),
    Recipe(
        name="mlp-2l",
        summary="Two layers with LayerNorm and GELU MLPs: a small transformer as they are usually built.",
        shape=_TEXT_SHAPE
        | {
            "order": "sfsf",
            "n_heads": 4,
            "d_head": 64,
            "d_mlp": 1024,
            "norm": "LN",
            "attn_bias": True,
            "mlp_bias": True,
        },
        data="python",
        training=TrainingConfig(steps=1500),
        n_repeats=1,
        example_prompts=_CODE_PROMPTS,
    ),
    Recipe(
        name="induction-2l",
        summary="Two small layers of attention that know one thing: random symbols repeat.",
        shape={
            "order": "ss",
            "d_model": 64,
            "n_heads": 4,
            "d_head": 16,
            "d_vocab": D_SYMBOLS,
            "n_ctx": 64,
            "positions": "shortformer",
            "unembed_bias": True,
        },
        data="repeats",
        training=TrainingConfig(steps=1500),
        example_prompts=("k r a x m k r a x", "Zebra9Zebra9Z", "a b c d e f g a b c d e f g a b"),
    ),
    Recipe(
        name="modular-addition",
        summary="a + b mod 113, grokked: one layer that adds by trigonometry.",
        shape={
            "order": "sf",
            "d_model": 128,
            "n_heads": 4,
            "d_head": 32,
            "d_mlp": 512,
            "mlp": "relu",
            "d_vocab": MODULUS + 2,
            "d_vocab_out": MODULUS,
            "n_ctx": 3,
            "positions": "learned",
        },
        data="modular-addition",
        training=TrainingConfig(
            steps=3500,
            seed=1,
            lr=2e-3,
            muon_lr=None,
            betas=(0.9, 0.98),
            weight_decay=1.0,
            warmup=0.003,
            decay=0.7,
            double_loss=True,
            validate_every=50,
        ),
        example_prompts=("12 34 =", "100 100 =", "0 57 =", "56 57 ="),
    ),
)


def recipe_names() -> tuple[str, ...]:
    """The names `train` knows."""
    return tuple(recipe.name for recipe in _RECIPES)


def recipe(name: str) -> Recipe:
    """One recipe.

    Raises:
        UnknownModelError: no recipe of that name.
    """
    for known in _RECIPES:
        if known.name == name:
            return known
    raise UnknownModelError(f"no recipe {name[:40]!r}: there are {', '.join(recipe_names())}")


def train(
    name: str,
    out: Path,
    *,
    seed: int | None = None,
    progress: "ProgressFn | None" = None,
    resume: bool = True,
    max_steps: int | None = None,
) -> Path:
    """Train a recipe into a folder, with its card; a folder that holds that very model is left as it is.

    Args:
        seed: another seed than the recipe's.
        progress: called after every validation; returning False stops, to be resumed by the same call.
        resume: go on where an earlier call stopped; False starts anew in an empty or absent folder.
        max_steps: a shorter run, its schedule shortened with it.

    Raises:
        UnknownModelError: no recipe of that name.
        ConfigError: the folder holds another model or run, or any at all with `resume=False`.
    """
    from workbench.training import folders
    from workbench.training.loop import fit
    from workbench.training.state import STATE_FILE

    chosen = shortened(recipe(name), seed, max_steps)
    out = Path(out)
    if not resume and ((out / STATE_FILE).exists() or (out / "model.safetensors").exists()):
        raise ConfigError(f"{out} already holds a run: give another folder, or resume it")
    if folders.is_finished(chosen, out):
        return out
    if folders.is_trained(out):
        folders.finish(chosen, out)  # an earlier call was killed before the card
        return out
    folders.write_request(chosen, out)
    model, task = make(chosen)
    if fit(model, task, chosen.training, out, progress=progress):
        folders.finish(chosen, out)
    return out


def shortened(chosen: Recipe, seed: int | None, max_steps: int | None) -> Recipe:
    """A recipe with another seed or fewer steps."""
    training = chosen.training
    if seed is not None:
        training = replace(training, seed=seed)
    if max_steps is not None and max_steps < training.steps:
        keep = tuple(step for step in training.keep if step <= max_steps)
        training = replace(training, steps=max_steps, keep=keep)
    return replace(chosen, training=training)


def make(chosen: Recipe) -> "tuple[Transformer, Task]":
    """The untrained model of a recipe, and its data."""
    from workbench.models.config import TransformerConfig
    from workbench.models.transformer import Transformer
    from workbench.training.starts import language_model_start

    makers: dict[str, Callable[[Recipe], tuple[Task, Tokenizer]]] = {
        "python": _python,
        "repeats": _repeats,
        "modular-addition": _modular_addition,
    }
    task, tokenizer = makers[chosen.data](chosen)
    config, seed = TransformerConfig(**chosen.shape), chosen.training.seed
    model = Transformer(config, tokenizer, name=chosen.name, seed=seed)
    if chosen.data != "modular-addition":
        language_model_start(model, seed)
    return model, task


def _python(chosen: Recipe) -> "tuple[Task, Tokenizer]":
    from workbench.training.corpora import encoded_corpus, standard_library
    from workbench.training.tasks import TextTask

    text = encoded_corpus(standard_library(), D_VOCAB)
    task = TextTask(text.train, text.held_out, D_VOCAB, N_CTX, N_ROWS, chosen.n_repeats)
    return task, text.tokenizer


def _repeats(chosen: Recipe) -> "tuple[Task, Tokenizer]":
    from workbench.training.vocabularies import symbol_tokenizer

    return make_repeats(chosen.shape["d_vocab"], chosen.shape["n_ctx"]), symbol_tokenizer()


def make_repeats(d_vocab: int, n_ctx: int) -> "Repeats":
    """Repeats for a vocabulary: of symbols in a short context, or of a language model's tokens."""
    from workbench.training.tasks import Repeats

    if d_vocab == D_SYMBOLS:
        return Repeats(d_vocab, n_ctx, n_rows=64, periods=(6, 24), first=2)
    return Repeats(d_vocab, n_ctx, n_rows=N_ROWS, periods=(n_ctx // 8, n_ctx // 2))


def _modular_addition(chosen: Recipe) -> "tuple[Task, Tokenizer]":
    from workbench.training.tasks import ModularAddition
    from workbench.training.vocabularies import number_tokenizer

    return ModularAddition(MODULUS), number_tokenizer(MODULUS)

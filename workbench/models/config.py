"""The configuration of our own transformer: one frozen value, validated, that survives a JSON round trip.

`order` spells the sublayers from the embedding up, `s` for self-attention and `f` for feed-forward:
`"sfsf"` is the usual two layers, `"ssff"` a sandwich (Press et al. 2020), `"ss"` attention only, `"fsffsf"`
with `half_step_mlp` a Macaron net (Lu et al. 2019). A *block* (the `layer` of every hook name) holds at
most one attention followed by at most one MLP, so each sublayer has TransformerLens' own name.
"""

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args, no_type_check

from workbench.errors import ConfigError

Norm = Literal["none", "LN", "LNPre", "RMS", "RMSPre", "Ada"]
NormPosition = Literal["pre", "post"]
Positions = Literal["none", "learned", "shortformer", "sinusoidal", "rotary"]
Mlp = Literal["relu", "gelu", "gelu_new", "silu", "glu", "bilinear", "reglu", "geglu", "swiglu"]

GATE_ACTIVATIONS = {
    "glu": "sigmoid",
    "bilinear": "identity",
    "reglu": "relu",
    "geglu": "gelu",
    "swiglu": "silu",
}
MAX_PARAMS = 2_000_000_000
MAX_SUBLAYERS = 512


class BlockShape(NamedTuple):
    """What one block holds; `head_sizes` is empty where it has no attention."""

    head_sizes: tuple[int, ...]
    has_mlp: bool


# Values are checked by the class itself, which says what each may be; a type checker would come before it.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape and kind of one transformer.

    Args:
        order: the sublayers, as above.
        n_heads: heads of every attention sublayer, unless `head_sizes` says otherwise.
        d_head: size of every head; default `d_model / n_heads`.
        head_sizes: one tuple of head sizes for each attention sublayer, where they are unequal.
        n_kv_heads: key/value heads, each serving `n_heads / n_kv_heads` query heads.
        norm: "LNPre" and "RMSPre" have no gain or bias; "Ada" is AdaNorm (Xu et al. 2019).
        norm_position: "pre" normalises what a sublayer reads, "post" the sum that it leaves.
        positions: "shortformer" adds learned positions to query and key inputs only (Press et al. 2021).
        parallel: attention and MLP of one block read the same stream (as in GPT-NeoX).
        half_step_mlp: MLP outputs count half (Macaron).
        d_vocab_out: tokens that can be predicted; default all of them.

    Raises:
        ConfigError: a value that cannot be meant; the message names it and its range.
    """

    order: str
    d_model: int
    n_heads: int = 1
    d_vocab: int
    n_ctx: int
    d_head: int | None = None
    head_sizes: tuple[tuple[int, ...], ...] | None = None
    n_kv_heads: int | None = None
    d_mlp: int | None = None
    mlp: Mlp = "gelu"
    half_step_mlp: bool = False
    parallel: bool = False
    norm: Norm = "none"
    norm_position: NormPosition = "pre"
    eps: float = 1e-5
    positions: Positions = "learned"
    rotary_base: float = 10_000.0
    causal: bool = True
    attn_bias: bool = False
    mlp_bias: bool = False
    unembed_bias: bool = False
    tied_unembedding: bool = False
    d_vocab_out: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_types(self)
        _check_ranges(self)
        _check_heads(self)
        _check_combinations(self)
        if self.n_params > MAX_PARAMS:
            raise ConfigError(
                f"this config describes {self.n_params:,} parameters; the limit is {MAX_PARAMS:,}. "
                "Check order, d_model, d_mlp and d_vocab"
            )

    @cached_property
    def blocks(self) -> tuple[BlockShape, ...]:
        """What each block holds, from the embedding up."""
        held: list[list[str]] = []
        for sublayer in self.order:
            if sublayer == "f" and held and held[-1][-1] == "s":
                held[-1].append("f")
            else:
                held.append([sublayer])
        sizes = iter(self.head_sizes or ())
        uniform = (self.d_head or self.d_model // self.n_heads,) * self.n_heads
        return tuple(
            BlockShape(next(sizes, uniform) if "s" in block else (), "f" in block) for block in held
        )

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def d_mlp_or_default(self) -> int:
        """Neurons of an MLP: `d_mlp`, or four times `d_model`."""
        return self.d_mlp or 4 * self.d_model

    @property
    def d_out(self) -> int:
        """Number of tokens that can be predicted."""
        return self.d_vocab_out or self.d_vocab

    @property
    def is_gated(self) -> bool:
        """Whether MLPs multiply a gate into a linear part."""
        return self.mlp in GATE_ACTIVATIONS

    @property
    def n_params(self) -> int:
        """Number of trained parameters, from the shapes alone (the padding of unequal heads counts)."""
        total = self.d_vocab * self.d_model
        total += 0 if self.tied_unembedding else self.d_model * self.d_out
        total += self.n_ctx * self.d_model if self.positions in ("learned", "shortformer") else 0
        gated = 3 if self.is_gated else 2
        for block in self.blocks:
            heads, widest = len(block.head_sizes), max(block.head_sizes, default=0)
            kv_heads = self.n_kv_heads or heads
            total += 2 * self.d_model * widest * (heads + (kv_heads if heads else 0))
            total += gated * self.d_model * self.d_mlp_or_default if block.has_mlp else 0
        return total

    # The names under which TransformerLens' own tools look for the same facts.

    @property
    def normalization_type(self) -> str | None:
        """The norm, or None."""
        return None if self.norm == "none" else self.norm

    @property
    def final_rms(self) -> bool:
        """Whether the final norm is an RMSNorm."""
        return self.norm.startswith("RMS")

    @property
    def attn_only(self) -> bool:
        """Whether there is no MLP at all."""
        return "f" not in self.order

    @property
    def n_key_value_heads(self) -> int | None:
        """Key/value heads, or None where every head has its own."""
        return self.n_kv_heads

    def to_json(self) -> str:
        """This config as a JSON object, every field written out."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "TransformerConfig":
        """Read a config.

        Raises:
            ConfigError: not JSON, unknown or missing fields, or values out of range.
        """
        try:
            given = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(f"the config is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise ConfigError(f"the config must be a JSON object, not {type(given).__name__}")
        return cls.from_dict(given)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> "TransformerConfig":
        """Read a config from plain values; lists become tuples.

        Raises:
            ConfigError: unknown or missing fields, or values out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(map(str, given)) - known):
            shown = ", ".join(name[:40] for name in unknown[:5])
            raise ConfigError(f"unknown config fields: {shown}. Known: {', '.join(sorted(known))}")
        if missing := {"order", "d_model", "d_vocab", "n_ctx"} - set(given):
            raise ConfigError(f"the config lacks {', '.join(sorted(missing))}")
        values = dict(given)
        if isinstance(values.get("head_sizes"), list):
            values["head_sizes"] = tuple(
                tuple(row) if isinstance(row, list) else row for row in values["head_sizes"]
            )
        return cls(**values)


_POSITIVE = ("d_model", "n_heads", "d_vocab", "n_ctx")
_POSITIVE_OR_NONE = ("d_head", "n_kv_heads", "d_mlp", "d_vocab_out")
_CHOICES = {"norm": Norm, "norm_position": NormPosition, "positions": Positions, "mlp": Mlp}
_FLAGS = (
    "half_step_mlp",
    "parallel",
    "causal",
    "attn_bias",
    "mlp_bias",
    "unembed_bias",
    "tied_unembedding",
)
_LARGEST = 10_000_000


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_types(config: TransformerConfig) -> None:
    for name in _POSITIVE + _POSITIVE_OR_NONE:
        value = getattr(config, name)
        if value is None and name in _POSITIVE_OR_NONE:
            continue
        if not _is_int(value) or not 1 <= value <= _LARGEST:
            raise ConfigError(
                f"{name} must be a whole number from 1 to {_LARGEST:,}, not {value!r:.60}"
            )
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in get_args(choices):
            given = getattr(config, name)
            raise ConfigError(
                f"{name} must be one of {', '.join(get_args(choices))}, not {given!r:.60}"
            )
    for name in _FLAGS:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"{name} must be true or false, not {getattr(config, name)!r:.60}")


def _check_ranges(config: TransformerConfig) -> None:
    order = config.order
    if not isinstance(order, str) or set(order) - {"s", "f"} or len(order) > MAX_SUBLAYERS:
        raise ConfigError(
            f"order must be at most {MAX_SUBLAYERS} letters, 's' (self-attention) or 'f' (feed-forward), "
            f"for example 'sfsf'; not {order!r:.60}"
        )
    for name, low, high in (("dropout", 0.0, 0.99), ("eps", 0.0, 1.0), ("rotary_base", 1.0, 1e12)):
        value = getattr(config, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise ConfigError(f"{name} must be a number from {low} to {high}, not {value!r:.60}")


def _check_heads(config: TransformerConfig) -> None:
    sizes = config.head_sizes
    if sizes is None:
        if config.d_head is None and config.d_model % config.n_heads:
            raise ConfigError(
                f"d_model {config.d_model} is not a multiple of n_heads {config.n_heads}: give d_head"
            )
    else:
        rows_fit = isinstance(sizes, tuple) and len(sizes) == config.order.count("s")
        if not rows_fit or not all(
            isinstance(row, tuple) and row and all(_is_int(d) and 1 <= d <= _LARGEST for d in row)
            for row in sizes
        ):
            raise ConfigError(
                f"head_sizes must hold one tuple of positive sizes for each of the "
                f"{config.order.count('s')} attention sublayers, not {sizes!r:.60}"
            )
    if config.n_kv_heads is not None:
        counts = {len(block.head_sizes) for block in config.blocks if block.head_sizes}
        if any(count % config.n_kv_heads for count in counts):
            raise ConfigError(
                f"n_kv_heads {config.n_kv_heads} must divide the number of heads ({sorted(counts)})"
            )


def _check_combinations(config: TransformerConfig) -> None:
    unequal = any(len(set(block.head_sizes)) > 1 for block in config.blocks)
    if unequal and (config.positions == "rotary" or config.n_kv_heads is not None):
        raise ConfigError(
            "heads of unequal size inside one layer are stored padded, which rotary positions and "
            "n_kv_heads do not admit: use other positions, or one size in each layer"
        )
    odd = any(size % 2 for block in config.blocks for size in block.head_sizes)
    if config.positions == "rotary" and odd:
        raise ConfigError("rotary positions turn pairs of dimensions: every head size must be even")
    if config.parallel and not all(block.head_sizes and block.has_mlp for block in config.blocks):
        raise ConfigError(
            f"parallel blocks hold attention and MLP each: {config.order!r} does not fit"
        )
    if config.parallel and config.norm_position == "post":
        raise ConfigError("parallel blocks with norm_position 'post' are not defined: use 'pre'")
    if config.norm_position == "post" and config.norm == "none":
        raise ConfigError("norm_position 'post' needs a norm")
    if config.tied_unembedding and config.d_out != config.d_vocab:
        raise ConfigError("a tied unembedding predicts every token: leave d_vocab_out out")

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
from workbench.models.config_checks import check_config

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
_CHOICES = {"norm": Norm, "norm_position": NormPosition, "positions": Positions, "mlp": Mlp}


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
        check_config(self, {name: get_args(words) for name, words in _CHOICES.items()})

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
        d_model, d_mlp = self.d_model, self.d_mlp_or_default
        a_norm = {"LN": 2 * d_model, "RMS": d_model}.get(self.norm, 0)
        total = self.d_vocab * d_model
        total += 0 if self.tied_unembedding else d_model * self.d_out
        total += self.d_out if self.unembed_bias else 0
        total += self.n_ctx * d_model if self.positions in ("learned", "shortformer") else 0
        total += a_norm if self.norm_position == "pre" else 0
        for block in self.blocks:
            if block.head_sizes:
                heads, widest = len(block.head_sizes), max(block.head_sizes)
                columns = widest * (heads + 2 * (self.n_kv_heads or heads))
                total += d_model * (columns + heads * widest) + a_norm
                total += columns + d_model if self.attn_bias else 0
            if block.has_mlp:
                total += (3 if self.is_gated else 2) * d_model * d_mlp + a_norm
                total += d_mlp + d_model if self.mlp_bias else 0
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
    def window(self) -> int | None:
        """How far back a layer sees; None: as far as the context."""
        return None

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

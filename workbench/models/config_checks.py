"""What a transformer's config must satisfy before anything is built from it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.models.config import TransformerConfig

MAX_SUBLAYERS = 512
_POSITIVE = ("d_model", "n_heads", "d_vocab", "n_ctx")
_POSITIVE_OR_NONE = ("d_head", "n_kv_heads", "d_mlp", "d_vocab_out")
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
MAX_PARAMS = 2_000_000_000
# Sines and cosines are in no weights' file: a config alone must not make a machine hold gigabytes of them.
MAX_TABLE_NUMBERS = 1 << 28


def check_config(config: "TransformerConfig", choices: Mapping[str, Any]) -> None:
    """Refuse values that cannot be meant, each by its name.

    Args:
        choices: the words that each field with a fixed vocabulary takes.

    Raises:
        ConfigError: the first value that cannot be meant, and its range.
    """
    _check_types(config, choices)
    _check_ranges(config)
    _check_heads(config)
    _check_combinations(config)
    _check_size(config)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_types(config: "TransformerConfig", choices: Mapping[str, Any]) -> None:
    for name in _POSITIVE + _POSITIVE_OR_NONE:
        value = getattr(config, name)
        if value is None and name in _POSITIVE_OR_NONE:
            continue
        if not _is_int(value) or not 1 <= value <= _LARGEST:
            raise ConfigError(
                f"{name} must be a whole number from 1 to {_LARGEST:,}, not {value!r:.60}"
            )
    for name, known in choices.items():
        if getattr(config, name) not in known:
            given = getattr(config, name)
            raise ConfigError(f"{name} must be one of {', '.join(known)}, not {given!r:.60}")
    for name in _FLAGS:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"{name} must be true or false, not {getattr(config, name)!r:.60}")


def _check_ranges(config: "TransformerConfig") -> None:
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


def _check_heads(config: "TransformerConfig") -> None:
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


def _check_combinations(config: "TransformerConfig") -> None:
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


def _check_size(config: "TransformerConfig") -> None:
    if config.n_params > MAX_PARAMS:
        raise ConfigError(
            f"this config describes {config.n_params:,} parameters; the limit is {MAX_PARAMS:,}. "
            "Check order, d_model, d_mlp, d_vocab and n_ctx"
        )
    numbers = _table_numbers(config)
    if numbers > MAX_TABLE_NUMBERS:
        raise ConfigError(
            f"n_ctx {config.n_ctx:,} asks for {numbers:,} sines and cosines of {config.positions} "
            f"positions; the limit is {MAX_TABLE_NUMBERS:,}: give a smaller n_ctx"
        )


def _table_numbers(config: "TransformerConfig") -> int:
    """Sines and cosines that are held beside the weights; rotary ones anew in every attention."""
    if config.positions == "sinusoidal":
        return config.n_ctx * config.d_model
    if config.positions == "rotary":
        return 2 * config.n_ctx * sum(max(block.head_sizes, default=0) for block in config.blocks)
    return 0

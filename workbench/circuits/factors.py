"""The sides of a head's circuits: what tokens and positions become as queries and keys, and who has none.

    queries   E W_Q + σ̄ b_Q     keys   E W_K + σ̄ b_K        tokens
              P W_Q                    P W_K                positions (no bias: it stands with the tokens)

σ̄ is the root mean square of the tokens' own scale σ, which a norm divides by; 1 without a norm, and where E has
been divided by σ already (`effective_weights(normalise_tokens=True)`).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError, UnsupportedError
from workbench.folding import own_scales
from workbench.sites import Head
from workbench.weights import EffectiveWeights, HeadWeights

Axis = Literal["token", "position"]
TABLES = ("learned", "shortformer", "sinusoidal")
KNOWN_POSITIONS = ("none", *TABLES, "rotary")
_POWERS = ("", " × σ", " × σ²", " × σ³")


def of_head(weights: EffectiveWeights, head: Head | HeadWeights) -> HeadWeights:
    """One head's weights.

    Raises:
        SiteError: no such head.
    """
    return weights.head(head) if isinstance(head, Head) else head


def queries(
    weights: EffectiveWeights, head: HeadWeights, axis: Axis
) -> Float[Tensor, "row d_head"]:
    """What every token or position becomes as a query, unturned.

    Raises:
        UnsupportedError: no table of positions, or a head that they do not reach.
    """
    return _side(weights, axis, head.label, (head.W_Q, head.b_Q, head.pos_Q))


def keys(weights: EffectiveWeights, head: HeadWeights, axis: Axis) -> Float[Tensor, "row d_head"]:
    """What every token or position becomes as a key.

    Raises:
        UnsupportedError: no table of positions, or a head that they do not reach.
    """
    return _side(weights, axis, head.label, (head.W_K, head.b_K, head.pos_K))


def _side(
    weights: EffectiveWeights, axis: Axis, label: str, read: tuple[Tensor, Tensor, Tensor | None]
) -> Tensor:
    weight, bias, of_positions = read
    if axis == "token":
        rows: Tensor = weights.W_E @ weight
        return rows + own_scale(weights) * bias if bias.any() else rows
    table = position_table(weights)
    if of_positions is None:
        raise UnsupportedError(f"{label} has no weights for positions: ask for tokens")
    return table @ of_positions


def position_table(weights: EffectiveWeights) -> Float[Tensor, "n_ctx d_model"]:
    """The position embedding.

    Raises:
        UnsupportedError: there is none.
    """
    if weights.W_pos is not None:
        return weights.W_pos
    kind = weights.cfg.positions
    instead = "they turn queries against keys: give an offset" if kind == "rotary" else ""
    raise UnsupportedError(
        f"{weights.model_name} has positions of kind {kind!r} and no table of them, so no rows or columns of "
        f"positions{f'; {instead}' if instead else ''}"
    )


def own_scale(weights: EffectiveWeights) -> float:
    """Root mean square over the vocabulary of what a norm would divide each token by; 1 where none does."""
    if weights.cfg.norm == "none" or weights.has_normalised_tokens:
        return 1.0
    return float(own_scales(weights.model, weights.W_E).square().mean().sqrt())


def check_token_circuits(weights: EffectiveWeights) -> None:
    """Refuse models whose weights link no token to a score or a logit.

    Raises:
        UnsupportedError: a post-norm model.
    """
    if weights.cfg.norm_position == "post":
        raise UnsupportedError(
            f"{weights.model_name} normalises after each sum (post-norm): no product of weights leads from its "
            "tokens to scores or logits. Look at the geometry of its heads or at its attention instead"
        )


def check_unembedding(weights: EffectiveWeights) -> None:
    """Refuse models that predict no tokens.

    Raises:
        UnsupportedError: no unembedding.
    """
    if weights.cfg.d_out == 0:
        raise UnsupportedError(
            f"{weights.model_name} has no unembedding, so no OV circuit; qk_circuit needs none"
        )


def check_positions(weights: EffectiveWeights) -> None:
    """Refuse kinds of positions that a score cannot be taken apart by.

    Raises:
        UnsupportedError: an unknown kind, such as ALiBi.
    """
    kind = weights.cfg.positions
    if kind not in KNOWN_POSITIONS:
        raise UnsupportedError(
            f"{weights.model_name} has positions of kind {str(kind)[:40]!r}, which no QK circuit here holds: "
            f"understood are {', '.join(KNOWN_POSITIONS)}"
        )


def check_distance(weights: EffectiveWeights, offset: int) -> None:
    """Refuse distances between query and key that no prompt has.

    Raises:
        ConfigError: out of range.
    """
    cfg = weights.cfg
    least = 0 if cfg.causal else 1 - cfg.n_ctx
    if not least <= offset < cfg.n_ctx:
        raise ConfigError(
            f"no offset {offset}: query minus key runs from {least} to {cfg.n_ctx - 1} in {weights.model_name}"
        )


def check_offset(weights: EffectiveWeights, offset: int) -> None:
    """Refuse an offset that a QK circuit cannot have.

    Raises:
        UnsupportedError: positions of an unknown kind.
        ConfigError: an offset that cannot occur, or one without rotary positions.
    """
    check_positions(weights)
    if weights.cfg.positions != "rotary" and offset != 0:
        raise ConfigError(
            f"offset {offset} only matters with rotary positions; those of {weights.model_name} are "
            f"{weights.cfg.positions!r}: leave it out"
        )
    check_distance(weights, offset)


def ov_unit(weights: EffectiveWeights, rows: Axis) -> str:
    """What an OV entry measures: a norm at the source and one at the end each leave their σ outside."""
    has_norm_after = bool(getattr(weights.cfg, "has_post_norms", False))
    has_norm = weights.cfg.norm != "none"
    return "logits" + _POWERS[_is_normed(weights, rows) + has_norm + has_norm_after]


def qk_unit(weights: EffectiveWeights, query: Axis, key: Axis) -> str:
    """What a QK entry measures: each side that went through a norm leaves its σ outside."""
    return "score" + _POWERS[sum(_is_normed(weights, axis) for axis in (query, key))]


def _is_normed(weights: EffectiveWeights, axis: Axis) -> bool:
    # Shortformer positions join behind the norm.
    joins_behind = axis == "position" and weights.cfg.positions == "shortformer"
    is_scaled = axis == "token" and weights.has_normalised_tokens
    return weights.cfg.norm != "none" and not joins_behind and not is_scaled


def centred(side: Float[Tensor, "row rank"]) -> Float[Tensor, "row rank"]:
    """Rows minus their mean."""
    return side - side.mean(0)


def sorted_eigenvalues(small: Tensor) -> Tensor:
    """Eigenvalues `[*batch n]` of square matrices, largest first."""
    values = torch.linalg.eigvals(small.double())
    return values.gather(-1, values.abs().argsort(dim=-1, descending=True))

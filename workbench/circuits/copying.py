"""Copying: do a circuit's eigenvalues say that tokens raise themselves?

    score = Σ Re λ / Σ |λ|      over the eigenvalues λ of the OV circuit (QK: do queries match their own token?)

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Summarizing OV/QK matrices".) Beside
it the diagonal test, which needs no algebra: how often a token is among the largest k of its own row.

Null: heads of random Gaussian factors of the same shape between the real embedding and unembedding. Their score
scatters around zero. Where embeddings are random too the spread is about 1.5 / d_head (a trace of deviation √d
over d eigenvalues of mean size ⅔ √d), growing as d_head comes near d_model; where few directions of the
embeddings dominate it is wider. So it is measured.

All heads share the vocabulary product C = (W_U − mean)ᵀ E, formed once: λ are those of `W_O C W_V`, which is
d_head wide.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Complex, Float, Int
from scipy.stats import binomtest
from torch import Tensor

from workbench.circuits.factors import (
    check_offset,
    check_token_circuits,
    check_unembedding,
    sorted_eigenvalues,
)
from workbench.circuits.full import Circuit, ov_circuit, qk_circuit
from workbench.errors import ConfigError, SiteError, UnsupportedError
from workbench.scoring import CONFIDENCE, Progress
from workbench.sites import Head
from workbench.weights import EffectiveWeights, HeadWeights

Kind = Literal["OV", "QK"]
TOP = 5
_TOKENS_AT_ONCE, _ROWS_AT_ONCE = 4096, 128


@dataclass(frozen=True, eq=False)
class CopyingScores:
    """Every head: 1 = all eigenvalues positive, it copies (QK: matches); -1 = all negative; 0 ≈ chance."""

    model_name: str
    kind: Kind
    frame: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Tidy: layer, head, kind, score, then its null, then the diagonal test.

        null_mean, null_std, z, percentile (of random heads that score less, 0 to 100), n_null; diagonal_top
        (share of tokens among the `top` largest of their own row), low and high (95 % interval over the
        tokens drawn), chance, top, n_tokens; seed.
        """
        return self.frame.copy()

    def value(self, head: Head) -> float:
        """One head's score.

        Raises:
            SiteError: no such head.
        """
        rows = self.frame[(self.frame["layer"] == head.layer) & (self.frame["head"] == head.head)]
        if rows.empty:
            raise SiteError(f"{self.model_name} has no head {head}")
        return float(rows["score"].iloc[0])


@dataclass(frozen=True, eq=False)
class EigenCloud:
    """A circuit's eigenvalues, and those of random heads of the same shape.

    Args:
        values: largest first.
        null: each draw scaled to the circuit's own Σ|λ|, since only directions are compared.
    """

    label: str
    kind: Kind
    values: Complex[Tensor, " rank"]
    null: Complex[Tensor, "draw width"]
    seed: int

    @property
    def score(self) -> float:
        """The copying score."""
        return copying_score(self.values)

    @property
    def null_scores(self) -> Float[np.ndarray, " draw"]:
        """The copying score of each random head."""
        return np.array([copying_score(draw) for draw in self.null])

    def table(self) -> pd.DataFrame:
        """Tidy: of ("head" or "null"), draw, rank, re, im, size; one row per eigenvalue."""
        frames = [_eigen_rows(self.values, "head", 0)]
        frames += [_eigen_rows(values, "null", draw) for draw, values in enumerate(self.null)]
        return pd.concat(frames, ignore_index=True)


def _eigen_rows(values: Tensor, of: str, draw: int) -> pd.DataFrame:
    plain = values.cpu().numpy()
    columns = {"re": plain.real, "im": plain.imag, "size": np.abs(plain)}
    return pd.DataFrame({"of": of, "draw": draw, "rank": range(1, len(plain) + 1), **columns})


def copying_score(eigenvalues: Complex[Tensor, " rank"]) -> float:
    """Σ Re λ / Σ |λ|, from -1 to 1; 0 for a circuit that is zero."""
    size = float(eigenvalues.abs().sum())
    return float(eigenvalues.real.sum()) / size if size else 0.0


def copying_scores(
    weights: EffectiveWeights,
    *,
    kind: Kind = "OV",
    n_null: int = 100,
    n_tokens: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> CopyingScores:
    """Score every head, against random heads of its shape.

    Args:
        kind: "OV" for copying, "QK" for matching (with rotary positions: at offset 0).
        n_null: random heads of each shape.
        n_tokens: tokens drawn for the diagonal test, which takes most of the time; 0 leaves it out.
        progress: told after every head how many of how many are done.

    Raises:
        ConfigError: counts that cannot be meant.
        UnsupportedError: a post-norm model, one that predicts nothing or only some tokens, or without heads.
    """
    _check(weights, kind, n_null, n_tokens)
    core = vocabulary_core(weights, kind)
    null_of: dict[int, np.ndarray] = {}
    tokens = _drawn(len(weights.W_E), n_tokens, seed)
    rows: list[dict[str, Any]] = []
    for done, (head, factors) in enumerate(weights.each_head(), start=1):
        reads, writes = _factors(factors, kind)
        score = copying_score(sorted_eigenvalues(writes @ core @ reads))
        width = _width(reads, writes.T)
        if width not in null_of:
            draws = null_eigenvalues(core, width, n_null, seed)
            null_of[width] = np.array([copying_score(draw) for draw in draws])
        row = _against(score, null_of[width])
        if n_tokens:
            row |= diagonal_test(_circuit(weights, factors, kind), tokens)
        rows.append({"layer": head.layer, "head": head.head, "kind": kind} | row)
        if progress is not None:
            progress(done, len(weights.heads))
    return CopyingScores(weights.model_name, kind, pd.DataFrame(rows).assign(seed=seed))


def in_own_top(
    circuit: Circuit, tokens: Int[Tensor, " token"], top: int = TOP
) -> Bool[Tensor, " token"]:
    """Whether each token is among the `top` largest entries of its own row; ties count against it."""
    found = []
    for block in tokens.to(circuit.left.device).split(_ROWS_AT_ONCE):
        rows = circuit.left[block] @ circuit.right.T
        own = rows.gather(1, block[:, None])
        found.append((rows >= own).sum(1) <= top)
    return torch.cat(found)


def diagonal_test(
    circuit: Circuit, tokens: Int[Tensor, " token"], top: int = TOP
) -> dict[str, float | int]:
    """Share of tokens in the top of their own row: diagonal_top, low, high, chance, top, n_tokens.

    The 95 % interval (Wilson) is over the draw of tokens; with all of them there is nothing to guess.

    Raises:
        UnsupportedError: rows and columns are not the same tokens.
    """
    if circuit.shape[0] != circuit.shape[1] or circuit.row_kind != circuit.column_kind:
        raise UnsupportedError(f"{circuit.label} is not square, so it has no diagonal")
    n_tokens, hits = len(tokens), int(in_own_top(circuit, tokens, top).sum())
    share = hits / n_tokens
    low, high = share, share
    if n_tokens < circuit.shape[0]:
        interval = binomtest(hits, n_tokens).proportion_ci(CONFIDENCE, method="wilson")
        low, high = float(interval.low), float(interval.high)
    chance = min(1.0, top / circuit.shape[0])
    names = ("diagonal_top", "low", "high", "chance", "top", "n_tokens")
    return dict(zip(names, (share, low, high, chance, top, n_tokens), strict=True))


def eigen_cloud(
    circuit: Circuit, weights: EffectiveWeights, n_null: int = 20, seed: int = 0
) -> EigenCloud:
    """Eigenvalues of a circuit between tokens, with those of random heads of its rank.

    Raises:
        ConfigError: a circuit of another model, or no draws.
        UnsupportedError: not a square matrix over tokens.
    """
    if circuit.model_name != weights.model_name:
        raise ConfigError(
            f"the circuit is of {circuit.model_name}, the weights are of {weights.model_name}"
        )
    if n_null < 1:
        raise ConfigError(f"n_null must be at least 1, not {n_null}")
    values = circuit.eigenvalues()
    core = vocabulary_core(weights, circuit.kind, centre=circuit.is_centred)
    draws = null_eigenvalues(core, _width(circuit.left, circuit.right), n_null, seed)
    size = draws.abs().sum(-1, keepdim=True)
    null = draws * (values.abs().sum() / torch.where(size > 0, size, 1.0))
    return EigenCloud(circuit.label, circuit.kind, values, null, seed)


def vocabulary_core(
    weights: EffectiveWeights, kind: Kind, *, centre: bool = True
) -> Float[Tensor, "d_model d_model"]:
    """What the vocabulary does between a head's output and input: `columnsᵀ @ rows`, in float64.

    The columns (OV: `W_U`, QK: `W_E`) are relative to their mean, so biases of queries drop out.
    """
    columns = weights.W_U.T if kind == "OV" else weights.W_E
    mean = columns.mean(0) if centre else torch.zeros_like(columns[0])
    blocks = zip(columns.split(_TOKENS_AT_ONCE), weights.W_E.split(_TOKENS_AT_ONCE), strict=True)
    core = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for column_block, row_block in blocks:
        core += (column_block - mean).T @ row_block
    return core


def null_eigenvalues(
    core: Float[Tensor, "d_model d_model"], width: int, n_null: int, seed: int
) -> Complex[Tensor, "draw width"]:
    """Eigenvalues of random heads of one width: Gaussian factors around the vocabulary product."""
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(n_null):
        reads, writes = torch.randn(2, len(core), width, generator=generator, dtype=torch.float64)
        draws.append(writes.T.to(core) @ core @ reads.to(core))
    return sorted_eigenvalues(torch.stack(draws))


def _check(weights: EffectiveWeights, kind: Kind, n_null: int, n_tokens: int) -> None:
    check_token_circuits(weights)
    check_offset(weights, 0)
    cfg, name = weights.cfg, weights.model_name
    if n_null < 2 or n_tokens < 0:
        raise ConfigError(
            f"n_null must be at least 2 and n_tokens at least 0: given {n_null}, {n_tokens}"
        )
    if not weights.heads:
        raise UnsupportedError(f"{name} has no attention, so no heads to score")
    if kind == "OV":
        check_unembedding(weights)
        if cfg.d_out != cfg.d_vocab:
            raise UnsupportedError(
                f"{name} reads {cfg.d_vocab} tokens and predicts {cfg.d_out}, so its OV circuits are "
                "not square and copying is not defined. Rows and top entries of ov_circuit work"
            )


def _drawn(d_vocab: int, n_tokens: int, seed: int) -> Int[Tensor, " token"]:
    order = torch.randperm(d_vocab, generator=torch.Generator().manual_seed(seed))
    return order[:n_tokens].sort().values


def _factors(head: HeadWeights, kind: Kind) -> tuple[Tensor, Tensor]:
    """What reads the rows `[d_model d_head]` and what writes to the columns `[d_head d_model]`."""
    if kind == "OV":
        return head.W_V.double(), head.W_O.double()
    return head.W_Q.double(), head.W_K.double().T


def _circuit(weights: EffectiveWeights, head: HeadWeights, kind: Kind) -> Circuit:
    return ov_circuit(weights, head) if kind == "OV" else qk_circuit(weights, head)


def _width(left: Tensor, right: Tensor) -> int:
    """Dimensions in use: heads that are narrower than others of their layer are padded with zeros."""
    return max(1, int((left.any(0) & right.any(0)).sum()))


def _against(score: float, null: Float[np.ndarray, " draw"]) -> dict[str, float | int]:
    mean, std = float(null.mean()), float(null.std(ddof=1))
    return {
        "score": score,
        "null_mean": mean,
        "null_std": std,
        "z": (score - mean) / std if std else float("nan"),
        "percentile": 100 * float((null < score).mean()),
        "n_null": len(null),
    }

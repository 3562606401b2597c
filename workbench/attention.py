"""Attention maps to look at: patterns, value-weighted patterns, scores, means and differences.

pattern           A[q, k], after softmax
value-weighted    A[q, k] · ‖v[k]‖: heads rest on tokens whose value is small (Elhage et al. 2021). The
                  length is taken in the head's own basis: compare tokens within a head, not heads
scores            before softmax, each row minus its mean: softmax does not see a row's constant
mean              A averaged over prompts, position by position
difference        maps of one run minus the same maps of another, tokens aligned
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from rapidfuzz.distance import LCSseq

from workbench.errors import PromptError, SiteError
from workbench.runs import Run
from workbench.sites import Head, Site

MapKind = Literal["pattern", "value-weighted", "scores", "mean", "difference"]
UNITS = {
    "pattern": "attention",
    "value-weighted": "attention × ‖v‖",
    "scores": "score − row mean",
    "mean": "mean attention",
}


@dataclass(frozen=True)
class AttentionMaps:
    """One matrix `[query key]` for every head; a layer without attention is None.

    Cells that do not exist (the future of a causal model) hold 0 and are named by `causal`; a difference
    says in `of` which kind of map was subtracted.
    """

    layers: tuple[Float[np.ndarray, "_head query key"] | None, ...]
    query_tokens: tuple[str, ...]
    key_tokens: tuple[str, ...]
    kind: MapKind
    title: str
    causal: bool
    of: MapKind = "pattern"

    @property
    def unit(self) -> str:
        """What one cell measures."""
        return f"Δ {UNITS[self.of]}" if self.kind == "difference" else UNITS[self.kind]

    @property
    def is_signed(self) -> bool:
        """Whether cells can be negative, so that zero belongs in the middle of the colours."""
        return self.kind in ("scores", "difference")

    @property
    def limit(self) -> float:
        """The size at which colours end: 1 for attention, else the largest cell's."""
        if self.kind in ("pattern", "mean"):
            return 1.0
        largest = max(
            (float(np.abs(layer).max()) for layer in self.layers if layer is not None), default=0
        )
        return largest or 1.0

    def head(self, head: Head) -> Float[np.ndarray, "query key"]:
        """One head's matrix.

        Raises:
            SiteError: there is no such head.
        """
        layer = self.layers[head.layer] if head.layer < len(self.layers) else None
        if layer is None or head.head >= len(layer):
            counts = [0 if heads is None else len(heads) for heads in self.layers]
            raise SiteError(f"no head {head}: the layers have {counts} heads, counted from 0")
        return layer[head.head]

    def table(self) -> pd.DataFrame:
        """One row per existing cell: layer, head, query, key, their tokens, value."""
        parts = []
        for index, layer in enumerate(self.layers):
            if layer is None:
                continue
            head, query, key = np.unravel_index(np.arange(layer.size), layer.shape)
            exists = (query >= key) | (not self.causal)
            columns = {"head": head, "query": query, "key": key, "value": layer.ravel()}
            part = pd.DataFrame({name: column[exists] for name, column in columns.items()})
            parts.append(part.assign(layer=index))
        if not parts:
            raise SiteError(f"{self.title}: no layer has attention")
        table = pd.concat(parts, ignore_index=True)
        table["query_token"] = np.asarray(self.query_tokens)[table["query"]]
        table["key_token"] = np.asarray(self.key_tokens)[table["key"]]
        order = ["layer", "head", "query", "key", "query_token", "key_token", "value"]
        return table[order].assign(unit=self.unit)


def pattern_maps(run: Run, row: int = 0) -> AttentionMaps:
    """Where every head looks: each row a distribution over keys."""
    return _maps(run, row, "pattern", _site_layers(run, row, "pattern"))


def value_weighted_maps(run: Run, row: int = 0) -> AttentionMaps:
    """Attention times the length of the value it moves; needs the sites `pattern` and `v`."""
    patterns, values = _site_layers(run, row, "pattern"), _site_layers(run, row, "v")
    weighted: list[np.ndarray | None] = []
    for pattern, v in zip(patterns, values, strict=True):
        if pattern is None or v is None:
            weighted.append(None)
            continue
        norms = np.linalg.norm(v, axis=-1).T
        norms = np.repeat(
            norms, len(pattern) // len(norms), axis=0
        )  # grouped heads share their values
        weighted.append(pattern * norms[:, None, :])
    return _maps(run, row, "value-weighted", weighted)


def score_maps(run: Run, row: int = 0) -> AttentionMaps:
    """Scores before softmax, each row centred over the keys that it may see."""
    centred: list[np.ndarray | None] = []
    for scores in _site_layers(run, row, "scores"):
        if scores is None:
            centred.append(None)
            continue
        exists = np.isfinite(scores) & (scores > -1e30)
        scores = np.where(exists, scores, 0)
        mean = scores.sum(-1, keepdims=True) / exists.sum(-1, keepdims=True)
        centred.append(np.where(exists, scores - mean, 0).astype(np.float32))
    return _maps(run, row, "scores", centred)


def mean_maps(run: Run) -> AttentionMaps:
    """Patterns averaged over the prompts of a batch, as far as the shortest one reaches.

    Raises:
        PromptError: unequal prompts of a model that looks both ways: cutting them would lose attention.
    """
    shortest = min(run.lengths)
    if not run.is_causal and shortest < max(run.lengths):
        raise PromptError(
            f"{run.model_name} looks both ways, so prompts to be averaged need one length; these have "
            f"{', '.join(map(str, run.lengths))} tokens"
        )
    rows = [_site_layers(run, row, "pattern") for row in range(len(run.lengths))]
    layers: list[np.ndarray | None] = []
    for of_prompts in zip(*rows, strict=True):
        kept = [pattern[:, :shortest, :shortest] for pattern in of_prompts if pattern is not None]
        layers.append(np.mean(kept, axis=0) if kept else None)
    tokens = tuple(
        column[0] if len(set(column)) == 1 else f"position {index}"
        for index, column in enumerate(zip(*run.str_tokens, strict=False))
    )
    return AttentionMaps(
        layers=tuple(layers),
        query_tokens=tokens,
        key_tokens=tokens,
        kind="mean",
        title=f"{run.model_name}, mean of {len(rows)} prompts",
        causal=run.is_causal,
    )


def difference_maps(after: AttentionMaps, before: AttentionMaps) -> AttentionMaps:
    """`after - before` on the tokens that both share, in order; a replaced token reads `before→after`.

    Two prompts that differ in one name are aligned token by token; two training checkpoints on one
    prompt are the same tokens throughout.

    Raises:
        PromptError: nothing can be aligned, or the maps are not of the same kind and heads.
    """
    if (after.kind, after.causal) != (before.kind, before.causal):
        raise PromptError(
            f"a difference needs two maps of one kind, not {after.kind!r} and {before.kind!r}"
        )
    shapes = [tuple(None if x is None else len(x) for x in maps.layers) for maps in (after, before)]
    if shapes[0] != shapes[1]:
        raise PromptError(
            f"a difference needs the same heads on both sides, not {shapes[0]} and {shapes[1]}"
        )
    pairs = aligned(before.key_tokens, after.key_tokens)
    if not pairs:
        raise PromptError("the two prompts share no token: there is nothing to compare")
    old, new = (np.array(side) for side in zip(*pairs, strict=True))
    layers = tuple(
        None if x is None or y is None else x[:, new][:, :, new] - y[:, old][:, :, old]
        for x, y in zip(after.layers, before.layers, strict=True)
    )
    tokens = tuple(
        after.key_tokens[j]
        if before.key_tokens[i] == after.key_tokens[j]
        else f"{before.key_tokens[i]}→{after.key_tokens[j]}"
        for i, j in pairs
    )
    left_out = len(before.key_tokens) + len(after.key_tokens) - 2 * len(pairs)
    note = f" ({left_out} unaligned tokens left out)" if left_out else ""
    return AttentionMaps(
        layers=layers,
        query_tokens=tokens,
        key_tokens=tokens,
        kind="difference",
        title=f"{after.title} − {before.title}{note}",
        causal=after.causal,
        of=after.kind,
    )


def aligned(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of positions that stand for each other: equal tokens, and stretches replaced one for one.

    Equal tokens are those of a longest common subsequence; time grows with the product of the lengths.
    """
    pairs: list[tuple[int, int]] = []
    i = j = 0
    for block in LCSseq.opcodes(list(before), list(after)):
        if block.tag != "equal":
            continue
        pairs += _replaced(i, block.src_start, j, block.dest_start)
        pairs += zip(
            range(block.src_start, block.src_end),
            range(block.dest_start, block.dest_end),
            strict=True,
        )
        i, j = block.src_end, block.dest_end
    return pairs + _replaced(i, len(before), j, len(after))


def _replaced(i: int, i_end: int, j: int, j_end: int) -> list[tuple[int, int]]:
    if i_end - i != j_end - j:
        return []
    return list(zip(range(i, i_end), range(j, j_end), strict=True))


def _site_layers(run: Run, row: int, kind: str) -> list[np.ndarray | None]:
    """One kind of site in every layer, `[head query key]` or `[pos head d_head]`; None where there is none.

    Raises:
        SiteError: the run kept none at all.
    """
    alone = run.row(row)
    kept = {site.layer for site in alone.stored if site.kind == kind}
    if not kept:
        alone[Site(kind, 0)]  # raises, and says what was kept
    return [
        alone[Site(kind, layer)][0].float().cpu().numpy() if layer in kept else None
        for layer in range(run.n_layers)
    ]


def _maps(run: Run, row: int, kind: MapKind, layers: Sequence[np.ndarray | None]) -> AttentionMaps:
    tokens = run.str_tokens[row]
    return AttentionMaps(tuple(layers), tokens, tokens, kind, run.model_name, run.is_causal)

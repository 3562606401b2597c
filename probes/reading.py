"""Reading labels from streams: rows of text with both, controls, and one ridge solution for many label sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from probes.data import ProbeData
from probes.token_features import OF_TOKEN, labels

# Tokens whose labels may be exchanged: neighbours by frequency.
N_ALIKE = 8


@dataclass(frozen=True, eq=False)
class Rows:
    """Positions of some documents: their streams by depth, labels by feature, tokens, documents and rows."""

    streams: Mapping[int, Float[np.ndarray, "place d_model"]]
    labels: Mapping[str, Int[np.ndarray, " place"]]
    token: Int[np.ndarray, " place"]
    document: Int[np.ndarray, " place"]
    n_rows: int

    @classmethod
    def read(
        cls, model: Any, data: ProbeData, size: tuple[int, int], depths: Sequence[int], seed: int
    ) -> "Rows":
        """Run the model over rows of `size`; the first position of each is left out."""
        from workbench.runs import run
        from workbench.sites import Site

        n_prompts, n_tokens = size[0], min(size[1], model.cfg.n_ctx)
        tokens = data.tokens(model, n_prompts, n_tokens, seed)
        of_row = data.documents_of_tokens(model, n_prompts, n_tokens, seed)
        sites = {d: Site("resid_post", d - 1) if d else Site("resid_pre", 0) for d in depths}
        streams: dict[int, list[np.ndarray]] = {depth: [] for depth in depths}
        named: list[dict[str, np.ndarray]] = []
        for row in tokens:
            one = run(model, row[None], sites=list(sites.values()))
            for depth, site in sites.items():
                streams[depth].append(one[site][0, 1:-1].float().cpu().numpy())
            found = labels(model.tokenizer.str_tokens(row.tolist()))
            named.append({name: values[1:] for name, values in found.items()})
        n_places = n_tokens - 2
        return cls(
            streams={depth: np.concatenate(parts) for depth, parts in streams.items()},
            labels={name: np.concatenate([one[name] for one in named]) for name in named[0]},
            token=tokens[:, 1:-1].flatten().cpu().numpy(),
            document=np.repeat(of_row, n_places),
            n_rows=len(tokens),
        )


@dataclass(frozen=True, eq=False)
class Dealt:
    """Labels of both halves: the true ones first, then the controls."""

    train: Int[np.ndarray, "deal place"]
    test: Int[np.ndarray, "deal other_place"]


def controls(feature: str, train: Rows, test: Rows, n_controls: int, seed: int) -> Dealt:
    """The labels of a feature, and `n_controls` that mean nothing."""
    rng = np.random.default_rng(seed)
    true = (train.labels[feature], test.labels[feature])
    deal = _by_token if feature in OF_TOKEN else _by_row
    deal = _within_row if feature == "position" else deal  # every row has the same
    pairs = [true, *(deal(true, train, test, rng) for _ in range(n_controls))]
    return Dealt(np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs]))


def _by_token(
    true: tuple[Int[np.ndarray, " place"], Int[np.ndarray, " other"]],
    train: Rows,
    test: Rows,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " place"], Int[np.ndarray, " other"]]:
    """Each token gets the label of another that is about as frequent."""
    tokens = np.concatenate([train.token, test.token])
    kinds, first, inverse, counts = np.unique(
        tokens, return_index=True, return_inverse=True, return_counts=True
    )
    of_kind = np.concatenate(true)[first]
    order = np.argsort(-counts, kind="stable")
    # Strata begin at a random rank, so that no two neighbours are always apart.
    for alike in np.split(order, np.arange(rng.integers(1, N_ALIKE + 1), len(kinds), N_ALIKE)):
        of_kind[alike] = of_kind[rng.permutation(alike)]
    dealt = of_kind[inverse]
    return dealt[: len(true[0])], dealt[len(true[0]) :]


def _by_row(
    true: tuple[Int[np.ndarray, " place"], Int[np.ndarray, " other"]],
    train: Rows,
    test: Rows,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " place"], Int[np.ndarray, " other"]]:
    """Each row gets the labels of another."""
    dealt = [
        values.reshape(rows.n_rows, -1)[rng.permutation(rows.n_rows)].ravel()
        for values, rows in zip(true, (train, test), strict=True)
    ]
    return dealt[0], dealt[1]


def _within_row(
    true: tuple[Int[np.ndarray, " place"], Int[np.ndarray, " other"]],
    train: Rows,
    test: Rows,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " place"], Int[np.ndarray, " other"]]:
    """Each row's labels in random order."""
    dealt = [
        rng.permuted(values.reshape(rows.n_rows, -1), axis=1).ravel()
        for values, rows in zip(true, (train, test), strict=True)
    ]
    return dealt[0], dealt[1]


def recalls(
    train: Float[np.ndarray, "place d_model"],
    test: Float[np.ndarray, "other_place d_model"],
    dealt: Dealt,
    ridge: float,
    document: Int[np.ndarray, " other_place"],
) -> dict[str, np.ndarray]:
    """Balanced accuracy `[deal]`; of the true labels, `right` and `seen` `[document class]`."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(dealt.train)
    wanted = (dealt.train[..., None] == classes).transpose(1, 0, 2).reshape(len(train), -1)
    scaler = StandardScaler().fit(train.astype(np.float64))
    solved = Ridge(alpha=ridge * len(train)).fit(scaler.transform(train), wanted.astype(np.float64))
    read = solved.predict(scaler.transform(test.astype(np.float64)))
    guess = classes[read.reshape(len(test), -1, len(classes)).argmax(-1)].T
    seen = np.stack([(dealt.test == one).sum(1) for one in classes], axis=1)
    hits = [((dealt.test == one) & (guess == one)).sum(1) for one in classes]
    shares = np.where(seen > 0, np.stack(hits, axis=1) / np.maximum(seen, 1), np.nan)
    of = np.unique(document)
    true, told = dealt.test[0], guess[0]
    return {
        "accuracy": np.nanmean(shares, axis=1),
        "right": np.array(
            [
                [(told[d == document] == c)[true[d == document] == c].sum() for c in classes]
                for d in of
            ]
        ),
        "seen": np.array([[(true[d == document] == c).sum() for c in classes] for d in of]),
    }


def resampled(
    right: Int[np.ndarray, "document label"],
    seen: Int[np.ndarray, "document label"],
    seed: int,
    n_draws: int = 1000,
) -> dict[str, float]:
    """`low` and `high` of the balanced accuracy, documents drawn again (Efron 1979)."""
    if len(right) < 2:
        return {"low": float("nan"), "high": float("nan")}
    drawn = np.random.default_rng(seed).integers(len(right), size=(n_draws, len(right)))
    hits, all_of = right[drawn].sum(1), seen[drawn].sum(1)
    shares = np.where(all_of > 0, hits / np.maximum(all_of, 1), np.nan)
    low, high = np.nanquantile(np.nanmean(shares, axis=1), [0.025, 0.975])
    return {"low": float(low), "high": float(high)}

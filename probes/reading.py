"""Reading labels from streams: rows of text with both, controls, and one ridge solution for many label sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.data import ProbeData
from probes.row_places import ends_in
from probes.token_features import OF_DOCUMENT, OF_TOKEN, depths, labels

# Where a stream is read: its depth, which is 0 for the embedding and l + 1 in layer l, and the kind of site.
Place = tuple[int, str]

# Tokens whose labels may be exchanged: neighbours by frequency.
N_ALIKE = 8
# Of a row: positions are read in eighths.
SHORTEST = 8


def places(model: Any, most_depths: int) -> list[Place]:
    """Evenly spaced depths, the first and the last among them; before each the middle of its layer, if any."""
    n_layers = model.cfg.n_layers
    ends = np.linspace(0, n_layers, min(most_depths, n_layers + 1))
    found: list[Place] = []
    for depth in map(int, np.unique(ends.round())):
        if not depth:
            found.append((0, "resid_pre"))
            continue
        block = model.blocks[depth - 1]
        if block.has_attn and block.has_mlp and not model.cfg.parallel:
            found.append((depth, "resid_mid"))
        found.append((depth, "resid_post"))
    return found


@dataclass(frozen=True, eq=False)
class Rows:
    """Positions of some documents: streams by place, labels by feature, tokens, documents and rows.

    Args:
        is_placed: whether a row's place in its document is known, and with it its labels of OF_DOCUMENT.
    """

    streams: Mapping[Place, Float[np.ndarray, "place d_model"]]
    labels: Mapping[str, Int[np.ndarray, " place"]]
    token: Int[np.ndarray, " place"]
    document: Int[np.ndarray, " place"]
    is_placed: Bool[np.ndarray, " row"]

    @property
    def n_rows(self) -> int:
        """Rows, which all have as many positions."""
        return len(self.is_placed)

    @classmethod
    def read(
        cls, model: Any, data: ProbeData, size: tuple[int, int], chosen: Sequence[Place], seed: int
    ) -> "Rows":
        """Run the model over rows of `size`; the first position of each is left out."""
        from workbench.runs import run
        from workbench.sites import Site

        asked = (size[0], min(size[1], model.cfg.n_ctx), seed, SHORTEST)
        tokens = data.tokens(model, *asked)
        of_row = data.documents_of_tokens(model, *asked)
        sites = {place: Site(place[1], max(0, place[0] - 1)) for place in chosen}
        streams: dict[Place, list[np.ndarray]] = {place: [] for place in chosen}
        named: list[dict[str, np.ndarray]] = []
        for row in tokens:
            one = run(model, row[None], sites=list(sites.values()))
            for place, site in sites.items():
                streams[place].append(one[site][0, 1:-1].float().cpu().numpy())
            found = labels(model.tokenizer.str_tokens(row.tolist()))
            named.append({name: values[1:] for name, values in found.items()})
        n_places = tokens.shape[1] - 2
        deep = document_labels(model.tokenizer, data, tokens.tolist(), of_row.tolist())
        return cls(
            streams={place: np.concatenate(parts) for place, parts in streams.items()},
            labels={name: np.concatenate([one[name] for one in named]) for name in named[0]}
            | {name: values[:, 1:-1].flatten() for name, values in deep.items()},
            token=tokens[:, 1:-1].flatten().cpu().numpy(),
            document=np.repeat(of_row, n_places),
            is_placed=np.any(deep[OF_DOCUMENT[0]] >= 0, axis=1),
        )

    def placed(self) -> "Rows":
        """Those whose place in their document is known."""
        if self.is_placed.all():
            return self
        kept = np.repeat(self.is_placed, len(self.token) // max(1, self.n_rows))
        return replace(
            self,
            streams={place: stream[kept] for place, stream in self.streams.items()},
            labels={name: values[kept] for name, values in self.labels.items()},
            token=self.token[kept],
            document=self.document[kept],
            is_placed=self.is_placed[self.is_placed],
        )


def document_labels(
    tokenizer: Any, data: ProbeData, rows: Sequence[Sequence[int]], documents: Sequence[int]
) -> dict[str, Int[np.ndarray, "row pos"]]:
    """Labels of OF_DOCUMENT after each token of rows from these documents; -1 where they cannot be known."""
    before, after = map(len, tokenizer.special_around())
    known: dict[int, dict[str, np.ndarray]] = {}
    found = {name: np.full((len(rows), len(rows[0])), -1) for name in OF_DOCUMENT}
    for at, (row, document) in enumerate(zip(rows, documents, strict=True)):
        text, free = data.documents[document], slice(before, len(row) - after)
        ends = ends_in(text, tokenizer, row[free])
        if ends is None:
            continue
        if document not in known:
            known[document] = depths(text)
        for name, values in known[document].items():
            found[name][at, free] = values[ends]
    return found


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
    dealt: Mapping[str, Dealt],
    ridge: float,
    document: Int[np.ndarray, " other_place"],
) -> dict[str, dict[str, np.ndarray]]:
    """By feature: balanced accuracy `[deal]`; of the true labels, `right` and `seen` `[document class]`.

    One solution for all features and deals: what costs most is the same for all labels.
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    classes = {feature: np.unique(of.train) for feature, of in dealt.items()}
    wanted = [
        (of.train[..., None] == classes[feature]).transpose(1, 0, 2).reshape(len(train), -1)
        for feature, of in dealt.items()
    ]
    scaler = StandardScaler().fit(train.astype(np.float64))
    solved = Ridge(alpha=ridge * len(train)).fit(
        scaler.transform(train), np.concatenate(wanted, axis=1).astype(np.float64)
    )
    read = solved.predict(scaler.transform(test.astype(np.float64)))
    parts = np.split(read, np.cumsum([part.shape[1] for part in wanted])[:-1], axis=1)
    return {
        feature: _recall(part, classes[feature], of.test, document)
        for part, (feature, of) in zip(parts, dealt.items(), strict=True)
    }


def _recall(
    read: Float[np.ndarray, "place target"],
    classes: Int[np.ndarray, " label"],
    test: Int[np.ndarray, "deal place"],
    document: Int[np.ndarray, " place"],
) -> dict[str, np.ndarray]:
    guess = classes[read.reshape(len(read), -1, len(classes)).argmax(-1)].T
    seen = np.stack([(test == one).sum(1) for one in classes], axis=1)
    hits = [((test == one) & (guess == one)).sum(1) for one in classes]
    shares = np.where(seen > 0, np.stack(hits, axis=1) / np.maximum(seen, 1), np.nan)
    of = np.unique(document)
    true, told = test[0], guess[0]
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

"""Skip-trigrams: what one head makes likelier by itself, `[source] … [destination] → [out]`.

    attention = N[destination, source]      the head's QK circuit: score above the mean key, in nats
    output    = M[source, out]              its OV circuit: logits above the mean token
    score     = max(attention, 0) · max(output, 0)

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Interpretation as skip-trigrams".)
The score is a first-order effect: one of n keys whose score grows by N gains N/n of the attention, which brings
`out` N M / n logits. Softmax saturates, so beyond a few nats it ranks and does not predict; what happens in
text is counted and measured by `workbench.trigrams.counts`. A norm's 1/σ multiplies all outs of one source and
destination alike, so their order is certain; σ differs between sources, and the order assumes that it does not.
`workbench.trigrams.ranking` says how the ranking is exact without a table of vocabulary by vocabulary.

Bugs: the score is f(a, b) g(a, c), so a head that raises a … b → c and a … d → e also raises a … b → e and
a … d → c, though nobody may ever have written them.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypedDict, Unpack, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from workbench.circuits.full import Circuit, ov_circuit, qk_circuit
from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.models.protocol import Model
from workbench.scoring import Progress
from workbench.sites import Head
from workbench.trigrams.named_tokens import named_token, spelled_tokens
from workbench.trigrams.ranking import Found, Side, best_triples
from workbench.weights import EffectiveWeights, HeadWeights

MOST = 10_000


class Places(TypedDict, total=False):
    """Tokens that are given, each as an id or as exact text; None or absent where any may stand."""

    source: int | str | None
    destination: int | str | None
    out: int | str | None


@dataclass(frozen=True, eq=False)
class SkipTrigrams:
    """Ranked `[source] … [destination] → [out]` of one head, as token ids, highest score first.

    Args:
        label: the head, `0.3`, or a virtual one, `1.4∘0.3`.
        offset: destination position minus source position, with rotary positions; else None.
        attention: score of the source as a key of the destination, above the mean key.
        output: what attending to the source adds to the logit of out, above the mean token.
        texts: every token that occurs, spelled.
    """

    label: str
    model_name: str
    offset: int | None
    source: Int[np.ndarray, " trigram"]
    destination: Int[np.ndarray, " trigram"]
    out: Int[np.ndarray, " trigram"]
    attention: Float[np.ndarray, " trigram"]
    output: Float[np.ndarray, " trigram"]
    attention_unit: str
    output_unit: str
    texts: dict[int, str]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def score(self) -> Float[np.ndarray, " trigram"]:
        """Product of the positive parts; 0 where either is negative."""
        return np.maximum(self.attention, 0) * np.maximum(self.output, 0)

    @property
    def triples(self) -> list[tuple[int, int, int]]:
        """Source, destination and out of each."""
        columns = (self.source.tolist(), self.destination.tolist(), self.out.tolist())
        return list(zip(*columns, strict=True))

    def table(self) -> pd.DataFrame:
        """Tidy: source destination out attention output score unit, and source_id destination_id out_id."""
        ids = {"source": self.source, "destination": self.destination, "out": self.out}
        texts = {place: [self.texts[token] for token in ids[place].tolist()] for place in ids}
        values = {"attention": self.attention, "output": self.output, "score": self.score}
        unit = f"{self.attention_unit} · {self.output_unit}"
        named_ids = {f"{place}_id": column for place, column in ids.items()}
        return pd.DataFrame({**texts, **values, "unit": unit, **named_ids})


@dataclass(frozen=True, eq=False)
class Bugs(SkipTrigrams):
    """Skip-trigrams that listed ones of the same source imply, and that are not listed themselves.

    Args:
        because: the two that imply each: its destination is from the first, its out from the second.
    """

    because: tuple[tuple[str, str], ...] = ()

    def table(self) -> pd.DataFrame:
        """As of `SkipTrigrams`, with destination_from and out_from: the two that imply it."""
        names = ("destination_from", "out_from")
        pairs = {name: [pair[at] for pair in self.because] for at, name in enumerate(names)}
        return super().table().assign(**pairs)


def skip_trigrams(
    weights: EffectiveWeights,
    head: Head | HeadWeights,
    *,
    k: int = 50,
    per_source: int = 3,
    offset: int | None = None,
    progress: Progress | None = None,
    **given: Unpack[Places],
) -> SkipTrigrams:
    """The k highest-scoring skip-trigrams of a head among those with the given tokens, exactly.

    Args:
        k: most trigrams; there are fewer where fewer have a positive score.
        per_source: most trigrams of one source, so that nearly equal outs of one do not fill the list; without
            effect where the source is given.
        offset: destination position minus source position; matters with rotary positions only, 1 by default.
        progress: told after every stage how many of how many are done.
        given: `source`, `destination`, `out`: an id, or exact text with its spaces.

    Raises:
        PromptError: no such token; names the nearest.
        SiteError: no such head.
        ConfigError: k, per_source or offset out of range, or another place than the three.
        UnsupportedError: a post-norm model, no unembedding, unknown positions, or weights that are not finite.
    """
    for name, value in (("k", k), ("per_source", per_source)):
        if not isinstance(value, int) or not 1 <= value <= MOST:
            raise ConfigError(
                f"{name} must be a whole number from 1 to {MOST:,}, not {value!r:.40}"
            )
    if offset is None:
        offset = 1 if weights.cfg.positions == "rotary" else 0
    ov, qk = ov_circuit(weights, head), qk_circuit(weights, head, offset=offset)
    model = weights.model
    tokens = _given(model, ov, given)
    found = _found(ov, qk, tokens, (k, per_source), progress)
    source, destination, out = (ids.cpu().numpy() for ids in found[:3])
    return SkipTrigrams(
        label=ov.label,
        model_name=weights.model_name,
        offset=qk.offset,
        source=source,
        destination=destination,
        out=out,
        attention=found.attention.cpu().numpy(),
        output=found.output.cpu().numpy(),
        attention_unit=qk.unit,
        output_unit=ov.unit,
        texts=spelled_tokens(model, [*source.tolist(), *destination.tolist(), *out.tolist()]),
    )


def bugs(trigrams: SkipTrigrams) -> Bugs:
    """What listed trigrams imply beyond the list: each destination of a source with all its outs, best first.

    Whether one is a mistake, or true and below the list, only text can tell: `occurrences` takes them too.
    """
    triples = trigrams.triples
    listed = set(triples)
    # The list runs from the highest score down: the first trigram with a token is the strongest with it.
    of_destination: dict[int, dict[int, int]] = {}
    of_out: dict[int, dict[int, int]] = {}
    for index, (source, destination, out) in enumerate(triples):
        of_destination.setdefault(source, {}).setdefault(destination, index)
        of_out.setdefault(source, {}).setdefault(out, index)
    halves = [
        (one, other)
        for source, destinations in of_destination.items()
        for destination, one in destinations.items()
        for out, other in of_out[source].items()
        if (source, destination, out) not in listed
    ]
    attention, output = trigrams.attention.clip(min=0), trigrams.output.clip(min=0)
    halves.sort(key=lambda pair: -float(attention[pair[0]] * output[pair[1]]))
    one, other = np.array(halves, dtype=int).reshape(-1, 2).T
    written = [" … ".join(trigrams.texts[token] for token in triple) for triple in triples]
    return Bugs(
        label=trigrams.label,
        model_name=trigrams.model_name,
        offset=trigrams.offset,
        source=trigrams.source[one],
        destination=trigrams.destination[one],
        out=trigrams.out[other],
        attention=trigrams.attention[one],
        output=trigrams.output[other],
        attention_unit=trigrams.attention_unit,
        output_unit=trigrams.output_unit,
        texts=trigrams.texts,
        because=tuple((written[first], written[second]) for first, second in halves),
    )


class _Given(NamedTuple):
    source: int | None = None
    destination: int | None = None
    out: int | None = None


def _given(model: Model, ov: Circuit, places: Places) -> _Given:
    """The tokens that are given, by id."""
    if unknown := set(places) - set(_Given._fields):
        known = ", ".join(_Given._fields)
        raise ConfigError(f"no place {min(unknown)!r:.40} in a skip-trigram: there are {known}")
    chosen = cast(dict[str, int | str | None], places)
    ids = {place: named_token(model, given) for place, given in chosen.items() if given is not None}
    if ids.get("out", 0) >= ov.shape[1]:
        raise PromptError(
            f"no out {ids['out']}: {model.name} predicts the tokens 0 to {ov.shape[1] - 1}"
        )
    return _Given(**ids)


def _found(
    ov: Circuit, qk: Circuit, given: _Given, limits: tuple[int, int], progress: Progress | None
) -> Found:
    """The best triples by token id."""
    for circuit in (ov, qk):
        if not (circuit.left.isfinite().all() and circuit.right.isfinite().all()):
            raise UnsupportedError(f"{circuit.kind} weights of {ov.label} are not all finite")
    sources, destinations, outs = (_chosen(token) for token in given)
    # Keys of QK and rows of OV are both the source.
    attention = Side(qk.right[sources], qk.left[destinations])
    output = Side(ov.left[sources], ov.right[outs])
    k, each = limits
    with torch.no_grad():
        found = best_triples(
            attention, output, k, k if given.source is not None else each, progress
        )
    source, destination, out = (
        ids + (token or 0) for ids, token in zip(found[:3], given, strict=True)
    )
    return Found(source, destination, out, found.attention, found.output)


def _chosen(token: int | None) -> slice:
    return slice(None) if token is None else slice(token, token + 1)

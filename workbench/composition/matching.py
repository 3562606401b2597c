"""Matching: is what a later head reads of an earlier one a token, the same token?

The token circuit of a pair of heads is `[query key]` for the reader's query or key input, `[source out]` for
its value input:

    Q: W_E W_OV[writer] W_QK W_E.T        K: W_E W_QK W_OV[writer].T W_E.T        V: W_E W_OV[writer] W_OV W_U

and matching is `Σ Re λ / Σ |λ|` of its eigenvalues: 1 where every token is matched (or copied) by itself, -1
where it is suppressed, near 0 for random heads (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits", "Induction Heads"). The circuit is as wide as the vocabulary, but AB and BA share eigenvalues:

    λ(W_E W_OV enter leave.T W_E.T) = λ((W_O enter) (leave.T G W_V)),   G = W_E.T W_E or W_U W_E.

As softmax ignores a constant, keys are taken relative to the mean key and outputs relative to the mean output.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.copying import copying_score, vocabulary_core
from workbench.errors import ConfigError, UnsupportedError
from workbench.rotary import rotate
from workbench.sites import Head
from workbench.weights import EffectiveWeights, HeadWeights

Input = Literal["Q", "K", "V"]
INPUTS: tuple[Input, ...] = ("Q", "K", "V")


class Pair(NamedTuple):
    """An earlier head and a later one that may read it."""

    writer: Head
    reader: Head


class Factors(NamedTuple):
    """What a head does with one of its inputs: `W_read = enter @ leave.T`."""

    enter: Float[Tensor, "d_model rank"]
    leave: Float[Tensor, "d_model rank"]


def factors(head: HeadWeights, through: Input, offset: int = 0) -> Factors:
    """The weights that the stream meets where it enters an input, and those on the far side of it.

    Args:
        offset: query minus key position; matters with rotary positions.
    """
    if through == "V":
        return Factors(head.W_V, head.W_O.mT)
    query = head.W_Q if head.rates is None else rotate(head.W_Q, head.rates, offset)
    return Factors(query, head.W_K) if through == "Q" else Factors(head.W_K, query)


class Matching:
    """Scores pairs of one model, keeping what all of them share.

    Args:
        centre: take the mean key, or the mean output, away.
    """

    def __init__(self, weights: EffectiveWeights, *, centre: bool = True) -> None:
        self._weights, self._centre = weights, centre

    def scores(
        self, pairs: Sequence[Pair | tuple[Head, Head]], through: Input, offset: int = 0
    ) -> Float[np.ndarray, " pair"]:
        """As `matching_scores`.

        Raises:
            ConfigError, SiteError, UnsupportedError: as `matching_scores`.
        """
        core = self._core(through).to(self._weights.W_E)
        needed = {head for pair in pairs for head in pair}
        for head in needed - set(self._weights.heads):
            self._weights.head(head)  # raises, and names the heads that there are
        heads = {head: held for head, held in self._weights.each_head() if head in needed}
        carried = {writer: core @ heads[writer].W_V for writer in {writer for writer, _ in pairs}}
        found = []
        for writer, reader in pairs:
            enter, leave = factors(heads[reader], through, offset)
            small = (heads[writer].W_O @ enter) @ (leave.mT @ carried[writer])
            found.append(copying_score(torch.linalg.eigvals(small.double())))
        return np.array(found, dtype=float)

    def null(self, through: Input, size: int, n_null: int, seed: int) -> Float[np.ndarray, " draw"]:
        """The same statistic of random pairs of heads with `size` dimensions.

        Raises:
            ConfigError, UnsupportedError: as `matching_scores`.
        """
        core, generator = self._core(through), torch.Generator().manual_seed(seed)
        found = []
        for _ in range(n_null):
            leave, read = torch.randn(2, len(core), size, generator=generator, dtype=core.dtype)
            between = torch.randn(size, size, generator=generator, dtype=core.dtype)
            small = between.to(core) @ (leave.to(core).mT @ core @ read.to(core))
            found.append(copying_score(torch.linalg.eigvals(small)))
        return np.array(found, dtype=float)

    def _core(self, through: Input) -> Float[Tensor, "d_model d_model"]:
        check(self._weights, through)
        return self._written if through == "V" else self._keys

    @cached_property
    def _keys(self) -> Float[Tensor, "d_model d_model"]:
        return vocabulary_core(self._weights, "QK", centre=self._centre)

    @cached_property
    def _written(self) -> Float[Tensor, "d_model d_model"]:
        return vocabulary_core(self._weights, "OV", centre=self._centre)


def matching_scores(
    weights: EffectiveWeights,
    pairs: Sequence[Pair | tuple[Head, Head]],
    through: Input,
    *,
    offset: int = 0,
    centre: bool = True,
) -> Float[np.ndarray, " pair"]:
    """Matching of each (writer, reader) pair: 1 = every token by itself, -1 = against itself, ~0 = chance.

    Args:
        through: the input of the reader that the writer's output enters.
        offset: query minus key position; matters with rotary positions.
        centre: take the mean key, or the mean output, away.

    Raises:
        ConfigError: another input.
        SiteError: no such head.
        UnsupportedError: values where the model does not write the tokens that it reads; norms after the sum.
    """
    return Matching(weights, centre=centre).scores(pairs, through, offset)


def check(weights: EffectiveWeights, through: str) -> None:
    """Refuse what has no circuit between tokens.

    Raises:
        ConfigError: as `matching_scores`.
        UnsupportedError: as `matching_scores`.
    """
    if through not in INPUTS:
        raise ConfigError(f"no input {through!r:.40} of a head: there are Q, K and V")
    if weights.cfg.norm_position == "post":
        raise UnsupportedError(
            f"{weights.model_name} normalises after each sum, so what one head writes is rescaled and shifted, "
            "coordinate by coordinate, before another reads it: the weights of two heads do not multiply"
        )
    if through == "V" and not can_match_values(weights):
        raise UnsupportedError(
            f"{weights.model_name} reads {weights.cfg.d_vocab} tokens and writes {weights.cfg.d_out}: "
            "values have no matching; ask for Q or K"
        )


def can_match_values(weights: EffectiveWeights) -> bool:
    """Whether the tokens written are the tokens read."""
    return int(weights.cfg.d_vocab) == int(weights.cfg.d_out)

"""Groups to be learned from part of their table: addition modulo p, permutations.

`a b =` → (a + b) mod p            ModularAddition: three positions, for a transformer
a, b → (a + b) mod p               modular_addition: two tokens side by side, for an MLP
a, b → a ∘ b, which is k ↦ a[b[k]]      permutations: the same for all orders of n things
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from workbench.errors import ConfigError
from workbench.models.transformer import Transformer
from workbench.training.tasks.batches import UNSCORED, Batch, Labelled
from workbench.training.tasks.fixed import FixedTask


@dataclass(frozen=True)
class ModularAddition:
    """`a b =` → (a + b) mod p; a part of the p² pairs is trained on, the rest measures generalisation."""

    p: int = 113
    share: float = 0.4
    n_rows: int = 512
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.p <= 1000 or not 0 < round(self.share * self.p**2) < self.p**2:
            raise ConfigError(
                f"p must be 2 to 1000 and share leave pairs on both sides, not {self.p} and {self.share}"
            )

    @cached_property
    def pairs(self) -> tuple[Int[Tensor, "train_pair 2"], Int[Tensor, "test_pair 2"]]:
        """Training and test pairs, disjoint, together all."""
        order = np.random.default_rng(self.split_seed).permutation(self.p**2)
        both = torch.from_numpy(np.stack([order // self.p, order % self.p], axis=1))
        n_train = round(self.share * self.p**2)
        return both[:n_train], both[n_train:]

    def batch(self, seed: int, step: int) -> Batch:
        """Training pairs, drawn with replacement."""
        train = self.pairs[0]
        drawn = np.random.default_rng((seed, step)).integers(0, len(train), self.n_rows)
        return self.as_batch(train[torch.from_numpy(drawn)])

    def as_batch(self, pairs: Int[Tensor, "pair 2"]) -> Batch:
        """Pairs as prompts whose last position is scored."""
        equals = torch.full((len(pairs), 1), self.p)
        targets = torch.full((len(pairs), 3), UNSCORED)
        targets[:, 2] = pairs.sum(1) % self.p
        return Batch(torch.cat([pairs, equals], dim=1), targets)

    def measure(self, model: Transformer) -> dict[str, float]:
        """Loss in nats and accuracy on training and test pairs."""
        measured = {}
        for name, pairs in zip(("train", "test"), self.pairs, strict=True):
            batch = self.as_batch(pairs)
            with torch.no_grad():
                logits = model(batch.tokens)[:, 2].double()
            right = logits.argmax(-1) == batch.targets[:, 2]
            measured[f"{name}_loss"] = float(F.cross_entropy(logits, batch.targets[:, 2]))
            measured[f"{name}_accuracy"] = float(right.double().mean())
        return measured


def modular_addition(*, p: int = 59, share: float = 0.8, seed: int = 0) -> FixedTask:
    """Two numbers below p, as two tokens, and their sum modulo p.

    Args:
        share: of the p² pairs that is trained on.
        seed: draws which.

    Raises:
        ConfigError: numbers that cannot be meant.
    """
    if not 2 <= p <= 1000:
        raise ConfigError(f"p must be 2 to 1000, not {p}")
    numbers = np.arange(p)
    table = (numbers[:, None] + numbers) % p
    return _table_task(f"addition modulo {p}", table, share, seed)


def permutations(*, n: int = 4, share: float = 0.8, seed: int = 0) -> FixedTask:
    """Two permutations of n things, numbered in the order of the alphabet, and the first after the second.

    Args:
        share: of the (n!)² pairs that is trained on.
        seed: draws which.

    Raises:
        ConfigError: numbers that cannot be meant.
    """
    if not 2 <= n <= 6:
        raise ConfigError(f"n must be 2 to 6, not {n}")
    orders = np.array(list(itertools.permutations(range(n))))
    # Entry [a, b, k] is a[b[k]]; read as digits, permutations keep the order of the alphabet.
    products = orders[:, orders] @ n ** np.arange(n - 1, -1, -1)
    numbers = orders @ n ** np.arange(n - 1, -1, -1)
    return _table_task(f"permutations of {n}", np.searchsorted(numbers, products), share, seed)


def _table_task(
    name: str, table: Int[np.ndarray, "first second"], share: float, seed: int
) -> FixedTask:
    """Pairs of rows and columns, and what the table says of them."""
    n_pairs, n_train = table.size, round(share * table.size)
    if not 0 < n_train < n_pairs:
        raise ConfigError(f"share must leave some of {n_pairs} pairs on both sides, not {share}")
    order = np.random.default_rng(seed).permutation(n_pairs)
    pairs = torch.from_numpy(np.stack(np.divmod(order, len(table)), axis=1))
    labels = torch.from_numpy(table.ravel()[order])
    train, test = (
        Labelled(pairs[:n_train], labels[:n_train]),
        Labelled(pairs[n_train:], labels[n_train:]),
    )
    return FixedTask(name, train, test)

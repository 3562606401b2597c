"""How often each token follows each other one in the text that `attn-0l` was trained on.

    python -m studies.zero_and_one_layer.counts       counts this machine's own standard library

The counts are kept beside the study, since every release of Python has another standard library.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from workbench.results import provenance, read_table, save_table

COUNTS = Path(__file__).parent / "counts.parquet"


@dataclass(frozen=True, eq=False)
class Counts:
    """Occurrences of `[token next]` in a row.

    Args:
        corpus: in all files that the models were trained from, once through.
        seen: in the crops that `attn-0l` was shown, as often as it was shown them.
    """

    corpus: Float[np.ndarray, "token next"]
    seen: Float[np.ndarray, "token next"]


def pair_counts(
    token: Int[np.ndarray, " pair"], following: Int[np.ndarray, " pair"], d_vocab: int
) -> Float[np.ndarray, "token next"]:
    """How often each token is followed by each."""
    pairs = token.astype(np.int64) * d_vocab + following.astype(np.int64)
    return np.bincount(pairs, minlength=d_vocab**2).reshape(d_vocab, d_vocab).astype(float)


def read_counts(path: Path = COUNTS) -> Counts:
    """The counts kept beside the study."""
    table, made_by = read_table(path)
    d_vocab = made_by["d_vocab"]
    found = {}
    for name in ("corpus", "seen"):
        found[name] = np.zeros((d_vocab, d_vocab))
        found[name][table["token"], table["next"]] = table[name]
    return Counts(**found)


def write_counts(path: Path = COUNTS) -> None:
    """Count this machine's standard library, and the crops of it that training would draw."""
    import pandas as pd

    from workbench.training.corpora import encoded_corpus, standard_library
    from workbench.training.recipes import D_VOCAB, make, recipe

    corpus = standard_library()
    text = np.asarray(encoded_corpus(corpus, D_VOCAB).train)
    whole = pair_counts(text[:-1], text[1:], D_VOCAB)
    chosen = recipe("attn-0l")
    _, task = make(chosen)
    seen = np.zeros_like(whole)
    for step in range(chosen.training.steps):
        batch = task.batch(chosen.training.seed, step)
        seen += pair_counts(batch.tokens.numpy().ravel(), batch.targets.numpy().ravel(), D_VOCAB)
    seen[0] = 0  # what follows the start of a crop is no bigram of the text
    token, following = np.nonzero(whole + seen)
    table = pd.DataFrame(
        {
            "token": token.astype(np.uint16),
            "next": following.astype(np.uint16),
            "corpus": whole[token, following].astype(np.uint32),
            "seen": seen[token, following].astype(np.uint32),
        }
    )
    made_by = provenance(
        d_vocab=D_VOCAB, corpus=corpus.fingerprint(), n_files=len(corpus.train), recipe=chosen.name
    )
    save_table(table, path, made_by)


if __name__ == "__main__":
    write_counts()

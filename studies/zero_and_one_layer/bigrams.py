"""`attn-0l` is `W_E W_U + b_U`: is that the bigram table of its text?

    log p(next | token) = log softmax(W_E[token] W_U + b_U)

Its rivals are tables of counts: unigrams, and bigrams by interpolated Kneser-Ney with three discounts, all of
them closed forms of the counts (Chen and Goodman 1999, "An empirical study of smoothing techniques for
language modeling", section 3), and the very factors of the model trained on with the counts as targets: what
a product of rank d_model can hold at all.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from studies.intervals import Estimate, draws, ends, pooled_mean
from studies.zero_and_one_layer.counts import Counts
from workbench.weights import EffectiveWeights

LogProbs = Float[np.ndarray, "token next"]
BANDS = ((1, 1), (2, 3), (4, 10), (11, 30), (31, 100), (101, 1000), (1001, None))
MODEL, PRODUCT, UNIGRAM = "attn-0l", "attn-0l without b_U", "unigram counts"
SEEN, CORPUS = "bigram counts, what attn-0l saw", "bigram counts, all training text"
TRAINED_ON, UNIFORM = "attn-0l trained on with all counts", "uniform"
BLOCK = 1024
_RATE = 1e-2


def kneser_ney(counts: Float[np.ndarray, "token next"]) -> Float[np.ndarray, "token next"]:
    """Probabilities of the next token; rows sum to 1, and none is 0."""
    n = [float((counts == times).sum()) for times in (1, 2, 3, 4)]
    share = n[0] / (n[0] + 2 * n[1])
    discounts = [times - (times + 1) * share * n[times] / n[times - 1] for times in (1, 2, 3)]
    taken = np.select([counts == 0, counts == 1, counts == 2], [0.0, *discounts[:2]], discounts[2])
    # Half a predecessor more for each, so that a token that never followed anything is not impossible.
    followers = (counts > 0).sum(0) + 0.5
    lower = followers / followers.sum()
    total = counts.sum(1, keepdims=True)
    found = (counts - taken + taken.sum(1, keepdims=True) * lower) / np.maximum(total, 1)
    return np.where(total > 0, found, lower)


def distributions(weights: EffectiveWeights, counts: Counts, n_steps: int) -> dict[str, LogProbs]:
    """Log-probability of every next token after every token, by name of who says it."""
    d_vocab = len(counts.corpus)
    unigram = (counts.corpus.sum(0) + 1) / (counts.corpus.sum() + d_vocab)
    everywhere = np.ones((d_vocab, 1))
    with torch.no_grad():
        product = weights.W_E.double() @ weights.W_U.double()
    return {
        UNIFORM: np.full((d_vocab, d_vocab), -np.log(d_vocab)),
        UNIGRAM: np.log(unigram) * everywhere,
        PRODUCT: product.log_softmax(-1).numpy(),
        MODEL: (product + weights.b_U.detach().double()).log_softmax(-1).numpy(),
        SEEN: np.log(kneser_ney(counts.seen)),
        TRAINED_ON: trained_on(weights, counts.corpus, n_steps),
        CORPUS: np.log(kneser_ney(counts.corpus)),
    }


def trained_on(
    weights: EffectiveWeights, counts: Float[np.ndarray, "token next"], n_steps: int
) -> LogProbs:
    """What the model's factors say after `n_steps` of Adam on all counts at once."""
    target = torch.from_numpy(counts / counts.sum()).float()
    factors = [part.detach().clone() for part in (weights.W_E, weights.W_U, weights.b_U)]
    for part in factors:
        part.requires_grad_()
    optimizer = torch.optim.Adam(factors, lr=_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=n_steps)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = -(target * (factors[0] @ factors[1] + factors[2]).log_softmax(-1)).sum()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return (factors[0] @ factors[1] + factors[2]).double().log_softmax(-1).numpy()


def losses(
    tables: dict[str, LogProbs], counts: Counts, text: Int[np.ndarray, " token"], seed: int
) -> pd.DataFrame:
    """One row per table: its loss on a text in nats per token, what it loses against `attn-0l`, and how much

    probability it spends there on pairs that the training text does not hold.
    """
    token, following = text[:-1], text[1:]
    is_new = counts.corpus == 0
    rows = []
    for name, table in tables.items():
        loss = over_blocks(-table[token, following], seed)
        over = over_blocks((tables[MODEL] - table)[token, following], seed)
        spent = over_blocks((np.exp(table) * is_new).sum(1)[token], seed)
        rows.append(
            {
                "name": name,
                **_named("loss", loss),
                **_named("over_model", over),
                "on_unseen": spent.value,
            }
        )
    held_out = float(is_new[token, following].mean())
    rows.append({"name": "the text itself", "on_unseen": held_out})
    return pd.DataFrame(rows).assign(n=len(token))


def agreement(
    tables: dict[str, LogProbs], counts: Counts, text: Int[np.ndarray, " token"], seed: int
) -> pd.DataFrame:
    """How well each table agrees with the counts of all training text.

    correlation      of log-probabilities with log counts, over pairs that occur, weighted by count
    beyond_unigram   the same after the unigram log-probability of the next token is taken from both
    divergence       KL(bigram counts ‖ table) in nats per token, tokens as frequent as in the held-out text
    """
    total = counts.corpus.sum(1, keepdims=True)
    occurs = counts.corpus > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        empirical = np.where(occurs, np.log(counts.corpus / total), 0.0)
    smoothed = tables[CORPUS]
    rows = []
    for name in (UNIGRAM, PRODUCT, MODEL, TRAINED_ON):
        table = tables[name]
        beyond = [np.where(occurs, part - tables[UNIGRAM], 0.0) for part in (empirical, table)]
        apart = (np.exp(smoothed) * (smoothed - table)).sum(1)
        row = {"name": name} | _named(
            "correlation", correlation(counts.corpus, empirical, table, seed)
        )
        if name != UNIGRAM:
            row |= _named("beyond_unigram", correlation(counts.corpus, *beyond, seed))
        rows.append(row | _named("divergence", over_blocks(apart[text[:-1]], seed)))
    return pd.DataFrame(rows)


def by_count(tables: dict[str, LogProbs], counts: Counts) -> pd.DataFrame:
    """How far `attn-0l` is from log counts, by how often the pair occurs; mean and root mean square in nats."""
    total = counts.corpus.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = tables[MODEL] - np.log(counts.corpus / total)
    rows = []
    for low, high in BANDS:
        chosen = (counts.corpus >= low) & (counts.corpus <= (high or np.inf))
        label = (
            f"{low:,}" if low == high else f"{low:,} to {high:,}" if high else f"{low:,} and more"
        )
        rows.append(
            {
                "count": label,
                "n_bigrams": int(chosen.sum()),
                "share": float(counts.corpus[chosen].sum() / counts.corpus.sum()),
                "mean": float(off[chosen].mean()),
                "rms": float(np.sqrt((off[chosen] ** 2).mean())),
            }
        )
    return pd.DataFrame(rows)


def over_blocks(values: Float[np.ndarray, " token"], seed: int) -> Estimate:
    """Mean over a text; the interval resamples stretches of it, within which tokens depend on each other."""
    blocks = np.array_split(values, max(2, len(values) // BLOCK))
    sizes = np.array([len(block) for block in blocks], dtype=float)
    return pooled_mean(np.array([block.sum() for block in blocks]), sizes, seed)


def correlation(
    weight: Float[np.ndarray, "token next"],
    one: Float[np.ndarray, "token next"],
    other: Float[np.ndarray, "token next"],
    seed: int,
) -> Estimate:
    """Weighted Pearson correlation; the interval resamples tokens, each with all that follows it."""
    terms = (weight, weight * one, weight * other, weight * one**2, weight * other**2)
    sums = np.stack([term.sum(1) for term in (*terms, weight * one * other)])
    taken = np.concatenate([np.ones((1, len(weight))), draws(len(weight), seed)])
    n, x, y, xx, yy, xy = (taken @ sums.T).T
    found = (xy / n - x * y / n**2) / np.sqrt((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2))
    return Estimate(float(found[0]), *ends(found[1:]))


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}

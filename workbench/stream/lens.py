"""The logit lens: what each layer's stream would predict if the network ended there.

    logits[layer] = unembed(final_norm(resid[layer]))

(nostalgebraist 2020, "interpreting GPT: the logit lens".) The last row is the model's own prediction. Distance
to it is `KL(final ‖ lens)` in nats, as in Belrose et al. 2023, "Eliciting Latent Predictions from Transformers
with the Tuned Lens"; uniform guessing would be `log d_vocab - H(final)` away. An early layer that reads as
nonsense need not know nothing: the lens only sees what is written in the final basis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.models.protocol import Model
from workbench.runs import Prompt, run
from workbench.sites import Site
from workbench.vocabulary import token_id, token_texts

Progress = Callable[[int, int], None]
MOST_TOP = 1000


@dataclass(frozen=True, eq=False)
class LogitLens:
    """Predictions at every depth and position, from the embedding (row 0) to the model's own (last row).

    Args:
        kl: KL(final ‖ this row), nats; 0 in the last row.
        entropy: of the row's own distribution, nats.
        chosen: tokens that were followed, by id; `ranks` count from 0, the likeliest.
    """

    model_name: str
    str_tokens: tuple[str, ...]
    labels: tuple[str, ...]
    top_tokens: Int[np.ndarray, "layer pos top"]
    top_texts: tuple[tuple[tuple[str, ...], ...], ...]
    top_probs: Float[np.ndarray, "layer pos top"]
    kl: Float[np.ndarray, "layer pos"]
    entropy: Float[np.ndarray, "layer pos"]
    chosen: tuple[int, ...]
    chosen_texts: tuple[str, ...]
    ranks: Int[np.ndarray, "layer pos chosen"]
    probs: Float[np.ndarray, "layer pos chosen"]
    d_vocab: int

    def table(self) -> pd.DataFrame:
        """Tidy: layer label pos token rank id predicted prob kl entropy; the k likeliest of every cell."""
        n_layers, n_pos, k = self.top_tokens.shape
        layer, pos, rank = (axis.ravel() for axis in np.indices((n_layers, n_pos, k)))
        flat = [text for row in self.top_texts for cell in row for text in cell]
        return pd.DataFrame(
            {
                "layer": layer,
                "label": [self.labels[index] for index in layer],
                "pos": pos,
                "token": [self.str_tokens[index] for index in pos],
                "rank": rank,
                "id": self.top_tokens.ravel(),
                "predicted": flat,
                "prob": self.top_probs.ravel(),
                "kl": np.repeat(self.kl.ravel(), k),
                "entropy": np.repeat(self.entropy.ravel(), k),
            }
        )

    def chosen_table(self) -> pd.DataFrame:
        """Tidy: layer label pos token followed rank prob; one row for every token that was followed."""
        layer, pos, index = (axis.ravel() for axis in np.indices(self.ranks.shape))
        return pd.DataFrame(
            {
                "layer": layer,
                "label": [self.labels[i] for i in layer],
                "pos": pos,
                "token": [self.str_tokens[i] for i in pos],
                "followed": [self.chosen_texts[i] for i in index],
                "rank": self.ranks.ravel(),
                "prob": self.probs.ravel(),
            }
        )


def logit_lens(
    model: Model,
    prompt: Prompt,
    *,
    tokens: Sequence[str | int] = (),
    top: int = 10,
    progress: Progress | None = None,
) -> LogitLens:
    """What the stream would predict after the embedding and after every layer.

    Args:
        tokens: tokens to follow through the layers, as text or id.
        top: likeliest tokens to keep of every layer and position.
        progress: told after every layer how many of how many are done.

    Raises:
        PromptError: several prompts, one that the model cannot read, or a token that it does not have.
        ConfigError: `top` out of range.
        UnsupportedError: a model whose stream cannot be read as next-token logits.
    """
    if not 1 <= top <= MOST_TOP:
        raise ConfigError(f"top {top}: keep between 1 and {MOST_TOP} tokens of every cell")
    if model.cfg.d_out == 0 or model.cfg.n_layers == 0:
        what = "no unembedding" if model.cfg.d_out == 0 else "no layers"
        raise UnsupportedError(f"{model.name} has {what}: there is nothing to read layer by layer")
    model.readout(model.W_E[:1].detach())  # refuses before the run
    followed = [token_id(model, token) for token in tokens]
    _check_out(model, followed)
    last = model.cfg.n_layers - 1
    one = run(model, prompt, sites=["resid_pre.0", "resid_post"])
    if len(one.lengths) != 1:
        raise PromptError(f"{len(one.lengths)} prompts: a lens looks at one, give one text")
    sites = [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(last + 1))]
    final = one.logits[0].double().log_softmax(-1).to(one.logits.dtype)
    rows = []
    for index, site in enumerate(sites):
        rows.append(_read(model, one[site][0], final, followed, min(top, model.cfg.d_out)))
        if progress is not None:
            progress(index + 1, len(sites))
    ids, probs, kl, entropy, ranks, chosen = (
        np.stack([np.asarray(row[part]) for row in rows]) for part in range(6)
    )
    spelled = dict(zip(unique := np.unique(ids).tolist(), token_texts(model, unique), strict=True))
    texts = tuple(tuple(tuple(spelled[id] for id in cell) for cell in row) for row in ids.tolist())
    return LogitLens(
        model_name=model.name,
        str_tokens=one.str_tokens[0],
        labels=("embedding", *(f"layer {layer}" for layer in range(last + 1))),
        top_tokens=ids,
        top_texts=texts,
        top_probs=probs,
        kl=kl,
        entropy=entropy,
        chosen=tuple(followed),
        chosen_texts=tuple(token_texts(model, followed)),
        ranks=ranks,
        probs=chosen,
        d_vocab=model.cfg.d_out,
    )


def _read(
    model: Model,
    stream: Float[Tensor, "pos d_model"],
    final: Float[Tensor, "pos d_vocab_out"],
    followed: list[int],
    top: int,
) -> tuple[Tensor, ...]:
    """Likeliest tokens, their probabilities, KL, entropy, ranks and probabilities of the followed tokens."""
    with torch.no_grad():
        log_probs = model.readout(stream).log_softmax(-1)
        best = log_probs.topk(top, dim=-1)
        kl = (final.exp() * (final - log_probs)).sum(-1).clamp(min=0)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        mine = log_probs[:, followed]
        # One token at a time: [pos d_vocab chosen] at once would be large.
        ranks = [(log_probs > mine[:, [i]]).sum(-1) for i in range(len(followed))]
        rank = torch.stack(ranks, -1) if ranks else mine.long()
    kept = (best.indices, best.values.exp().float(), kl.float(), entropy.float(), rank)
    return tuple(value.cpu() for value in (*kept, mine.exp().float()))


def _check_out(model: Model, tokens: Sequence[int]) -> None:
    if beyond := [token for token in tokens if token >= model.cfg.d_out]:
        raise PromptError(
            f"{model.name} never predicts token {beyond[0]}: it predicts ids below {model.cfg.d_out}"
        )

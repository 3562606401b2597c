"""One forward pass, kept: tokens, logits and exactly the sites that were asked for.

Every number is stored once. `resid_pre` of a layer is `resid_post` of the one before; a causal pattern is its
lower triangle, expanded on reading. What will be kept is estimated before the pass and refused when it
would not fit the budget; the working memory of the pass itself comes on top.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.budget import DTYPES, check_budget, estimate, spell_bytes
from workbench.errors import BudgetError, PromptError, SiteError
from workbench.models.protocol import Model
from workbench.models.tokenizer import Tokenizer
from workbench.models.tokens import checked_tokens
from workbench.sites import Site, expand

Prompt = str | Sequence[str] | Tensor | Sequence[int] | Sequence[Sequence[int]]
DEFAULT_SITES = ("pattern", "v", "resid_pre", "resid_post")
# What stands where a causal model cannot look.
_EMPTY_CELL = {"pattern": 0.0, "scores": -math.inf}


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """What one forward pass left behind; `run["pattern.3"]` or `run[Site("pattern", 3)]` reads a site.

    Rows of a batch are padded on the right: positions from `lengths[row]` on mean nothing. `run.row(i)`
    is that prompt alone, without padding.
    """

    model_name: str
    tokens: Int[Tensor, "batch pos"]
    lengths: tuple[int, ...]
    tokenizer: Tokenizer | None
    logits: Float[Tensor, "batch pos d_vocab_out"]
    is_causal: bool
    n_layers: int
    stored: Mapping[Site, Tensor]

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(site.kind for site in self.stored)) or "no sites"
        held = spell_bytes(self.nbytes)
        return f"Run({self.model_name}, prompts of {list(self.lengths)} tokens, {kinds}, {held})"

    def __getitem__(self, site: Site | str) -> Tensor:
        site = Site.parse(site) if isinstance(site, str) else site
        kept = self.stored.get(canonical(site))
        if kept is None:
            known = ", ".join(sorted({known.kind for known in self.stored})) or "no sites"
            raise SiteError(
                f"this run did not keep {site}; it kept {known}: ask run(…, sites=…) for it"
            )
        if site.kind in _EMPTY_CELL and self.is_causal:
            return unpack_triangles(kept, self.tokens.shape[1], _EMPTY_CELL[site.kind])
        return kept

    def pattern(self, layer: int) -> Float[Tensor, "batch head query key"]:
        """Where each head of a layer looks; rows sum to 1."""
        return self[Site("pattern", layer)]

    @cached_property
    def str_tokens(self) -> tuple[tuple[str, ...], ...]:
        """The tokens of every prompt as readable text, without padding."""
        rows = [row[:n].tolist() for row, n in zip(self.tokens, self.lengths, strict=True)]
        if self.tokenizer is None:
            return tuple(tuple(map(str, row)) for row in rows)
        return tuple(tuple(self.tokenizer.str_tokens(row)) for row in rows)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that were kept, under the names that they are stored by."""
        return tuple(self.stored)

    @property
    def nbytes(self) -> int:
        """Bytes held by logits and sites."""
        held = [self.logits, *self.stored.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def row(self, row: int) -> "Run":
        """One prompt of the batch, without its padding, still with a batch axis of one.

        Raises:
            PromptError: no such row.
        """
        if not 0 <= row < len(self.lengths):
            raise PromptError(
                f"no prompt {row}: this run's are counted from 0 to {len(self.lengths) - 1}"
            )
        length = self.lengths[row]
        cut = {
            "batch": slice(row, row + 1),
            "pos": slice(length),
            "query": slice(length),
            "key": slice(length),
        }
        stored = {}
        for site, kept in self.stored.items():
            if site.kind in _EMPTY_CELL and self.is_causal:
                # Triangles are stored row by row, so a shorter prompt's is a prefix.
                stored[site] = kept[row : row + 1, :, : length * (length + 1) // 2]
            else:
                stored[site] = kept[tuple(cut.get(axis, slice(None)) for axis in site.axes)]
        return replace(
            self,
            tokens=self.tokens[row : row + 1, :length],
            lengths=(length,),
            logits=self.logits[row : row + 1, :length],
            stored=stored,
        )


def run(
    model: Model,
    prompt: Prompt,
    *,
    sites: Sequence[str | Site] | None = None,
    budget: str | int = "2GB",
    dtype: str | None = None,
) -> Run:
    """One forward pass of a prompt, a list of prompts, or token ids.

    Args:
        sites: kinds (`"pattern"`: every layer that has it) or single sites (`"pattern.3"`); default
            patterns, values and the residual stream, as far as the model has them.
        budget: most memory that logits and sites may take, in bytes or as "500MB".
        dtype: what sites are stored as; default as computed.

    Raises:
        PromptError: a prompt that is empty, too long or cannot be spelled; ids outside the vocabulary.
        SiteError: a site that this model does not have.
        BudgetError: what was asked for would not fit; says what would.
    """
    if dtype is not None and dtype not in DTYPES:
        raise BudgetError(f"no storage type {dtype!r}: there are {', '.join(DTYPES)}")
    tokens, lengths = to_batch(model, prompt)
    chosen = _defaults(model) if sites is None else available(model, sites)
    n_prompts, n_pos = tokens.shape
    check_budget(estimate(model, n_prompts, n_pos, chosen, dtype), budget)
    stored: dict[Site, Tensor] = {}
    causal = bool(model.cfg.causal)

    def keeper(site: Site) -> Any:
        def keep(activation: Tensor, hook: Any) -> None:
            kept = activation.detach()
            if site.kind in _EMPTY_CELL and causal:
                kept = pack_triangles(kept)
            stored[site] = kept if dtype is None else kept.to(DTYPES[dtype])

        return keep

    mask = None
    if min(lengths) < tokens.shape[1]:
        mask = (torch.arange(tokens.shape[1]) < torch.tensor(lengths)[:, None]).long()
        mask = mask.to(tokens.device)
    hooks = [(model.site_hook(site), keeper(site)) for site in chosen]
    with model.lock, torch.no_grad(), model.hooks(fwd_hooks=hooks):
        logits = model(tokens, attention_mask=mask)
    return Run(
        model_name=model.name,
        tokens=tokens,
        lengths=lengths,
        tokenizer=model.tokenizer,
        logits=logits,
        is_causal=causal,
        n_layers=model.cfg.n_layers,
        stored={site: stored[site] for site in chosen},
    )


def canonical(site: Site) -> Site:
    """The name a site is stored under: what a layer reads is what the layer before left."""
    if site.kind == "resid_pre" and site.layer:
        return Site("resid_post", site.layer - 1)
    return site


def available(model: Model, kinds: Sequence[str | Site]) -> list[Site]:
    """The sites meant, each once; a kind means every layer that has it, a single site must exist.

    Raises:
        SiteError: a site, or a kind in every layer, that this model lacks.
    """
    chosen: dict[Site, None] = {}
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        sites = expand([kind], model.cfg.n_layers)
        held = [site for site in sites if _has(model, site)]
        if not held and len(sites) == 1:
            model.site_hook(sites[0])  # raises, and says why
        if not held:
            raise SiteError(f"{model.name} has no {kind} in any layer")
        chosen.update(dict.fromkeys(map(canonical, held)))
    return list(chosen)


def _defaults(model: Model) -> list[Site]:
    sites = expand(DEFAULT_SITES, model.cfg.n_layers)
    return list(dict.fromkeys(canonical(site) for site in sites if _has(model, site)))


def _has(model: Model, site: Site) -> bool:
    try:
        model.site_hook(site)
    except SiteError:
        return False
    return True


def to_batch(model: Model, prompt: Prompt) -> tuple[Int[Tensor, "batch pos"], tuple[int, ...]]:
    """Checked token ids, padded on the right, and how many of each row are real.

    Raises:
        PromptError: as `run`.
    """
    device = model.W_E.device
    if not isinstance(prompt, str | Tensor | Sequence):
        raise PromptError(f"a prompt is text, texts or token ids, not {type(prompt).__name__}")
    texts: list[Any] = [prompt] if isinstance(prompt, str | Tensor) else list(prompt)
    if not any(isinstance(text, str) for text in texts):
        ids = checked_tokens(cast(Any, prompt), model.cfg.d_vocab, model.cfg.n_ctx).to(device)
        return ids, (ids.shape[1],) * len(ids)
    rows = []
    for index, text in enumerate(texts):
        try:
            rows.append(model.to_tokens(text)[0])
        except PromptError as error:
            place = f"prompt {index + 1} of {len(texts)}: " if len(texts) > 1 else ""
            raise PromptError(f"{place}{error}") from error
    lengths = tuple(len(row) for row in rows)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device), lengths


@lru_cache(maxsize=2)
def _triangle(n_pos: int) -> Tensor:
    rows, columns = torch.tril_indices(n_pos, n_pos)
    return rows * n_pos + columns


def pack_triangles(
    square: Float[Tensor, "batch head query key"],
) -> Float[Tensor, "batch head pair"]:
    """The lower triangle of each square, row by row: `(0,0) (1,0) (1,1) (2,0) …`."""
    triangle = _triangle(square.shape[-1])
    if square.device.type != "cpu" or square.dtype == torch.bfloat16:
        return square.flatten(2)[:, :, triangle.to(square.device)]
    # numpy gathers several times faster than torch, and twice as fast again without its bounds check.
    rows = square.flatten(2).flatten(0, 1).numpy()
    packed = np.take(rows, triangle.numpy(), axis=1, mode="clip")
    return torch.from_numpy(packed).unflatten(0, square.shape[:2])


def unpack_triangles(
    packed: Float[Tensor, "batch head pair"], n_pos: int, empty: float
) -> Float[Tensor, "batch head query key"]:
    """Squares again, with `empty` above the diagonal."""
    square = packed.new_full((*packed.shape[:2], n_pos * n_pos), empty)
    square[:, :, _triangle(n_pos).to(packed.device)] = packed
    return square.unflatten(2, (n_pos, n_pos))

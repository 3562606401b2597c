"""nanoGPT and minGPT state dicts, as they come, and a plain forward pass over them.

The forward pass is written from those projects' own definitions and shares nothing with `transformer.py`:
it is what a conversion is measured against.
"""

import re
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import CheckpointError

StateDict = dict[str, Tensor]


class Layout(NamedTuple):
    """How one project names the parts of a GPT; `{}` is the block."""

    name: str
    tokens: str
    positions: str
    block: str
    norms: tuple[str, str]
    queries_keys_values: tuple[str, ...]
    attention_out: str
    mlp: tuple[str, str]
    final_norm: str
    head: str


NANOGPT = Layout(
    "nanoGPT",
    tokens="transformer.wte.weight",
    positions="transformer.wpe.weight",
    block="transformer.h.{}.",
    norms=("ln_1", "ln_2"),
    queries_keys_values=("attn.c_attn",),
    attention_out="attn.c_proj",
    mlp=("mlp.c_fc", "mlp.c_proj"),
    final_norm="transformer.ln_f",
    head="lm_head.weight",
)
MINGPT = NANOGPT._replace(name="minGPT")
MINGPT_2020 = Layout(
    "minGPT of 2020",
    tokens="tok_emb.weight",
    positions="pos_emb",
    block="blocks.{}.",
    norms=("ln1", "ln2"),
    queries_keys_values=("attn.query", "attn.key", "attn.value"),
    attention_out="attn.proj",
    mlp=("mlp.0", "mlp.2"),
    final_norm="ln_f",
    head="head.weight",
)
ACTIVATIONS: dict[str, Literal["gelu", "gelu_new"]] = {
    NANOGPT.name: "gelu",
    MINGPT.name: "gelu_new",
    MINGPT_2020.name: "gelu",
}
# Causal masks were once stored as buffers; torch.compile prefixes every name.
_BUFFERS = re.compile(r".*\.attn\.(bias|masked_bias|mask)")


def cleaned(state: StateDict) -> StateDict:
    """Without the prefix of torch.compile or DataParallel, and without stored causal masks."""
    cleaned = {}
    for key, tensor in state.items():
        key = key.removeprefix("_orig_mod.").removeprefix("module.")
        if not (_BUFFERS.fullmatch(key) and tensor.ndim != 1):
            cleaned[key] = tensor
    return cleaned


def layout_of(state: StateDict) -> Layout | None:
    """Which project wrote a cleaned state dict; None if neither did.

    nanoGPT ties the unembedding to the embedding, minGPT of the same names never does.
    """
    if {MINGPT_2020.tokens, MINGPT_2020.positions, MINGPT_2020.head} <= set(state):
        return MINGPT_2020
    if not {NANOGPT.tokens, NANOGPT.positions, NANOGPT.head} <= set(state):
        return None
    embedding, head = state[NANOGPT.tokens], state[NANOGPT.head]
    tied = embedding.shape == head.shape and torch.equal(embedding, head)
    return NANOGPT if tied else MINGPT


def n_blocks(state: StateDict, layout: Layout) -> int:
    """Number of blocks.

    Raises:
        CheckpointError: none, or gaps in their numbering.
    """
    pattern = re.compile(re.escape(layout.block).replace(r"\{\}", r"(\d{1,4})") + ".*")
    found = {int(match[1]) for match in map(pattern.fullmatch, state) if match}
    if not found or found != set(range(len(found))):
        raise CheckpointError(
            f"a {layout.name} checkpoint with blocks {sorted(found)[:8]} is not whole"
        )
    return len(found)


@torch.no_grad()
def plain_logits(
    state: StateDict,
    layout: Layout,
    n_heads: int,
    activation: str,
    tokens: Int[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits of the source model, in its own words."""

    def norm(x: Tensor, name: str) -> Tensor:
        weight = state[name + ".weight"]
        return F.layer_norm(x, weight.shape, weight, state.get(name + ".bias"), 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[name + ".weight"], state.get(name + ".bias"))

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)

    approximate = "tanh" if activation == "gelu_new" else "none"
    positions = state[layout.positions].reshape(-1, state[layout.tokens].shape[1])
    x = state[layout.tokens][tokens] + positions[: tokens.shape[1]]
    for block in range(n_blocks(state, layout)):
        at = layout.block.format(block)
        normed = norm(x, at + layout.norms[0])
        parts = [linear(normed, at + name) for name in layout.queries_keys_values]
        q, k, v = (heads(part) for part in torch.cat(parts, -1).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(mixed.transpose(1, 2).flatten(2), at + layout.attention_out)
        hidden = F.gelu(
            linear(norm(x, at + layout.norms[1]), at + layout.mlp[0]), approximate=approximate
        )
        x = x + linear(hidden, at + layout.mlp[1])
    return F.linear(norm(x, layout.final_norm), state[layout.head])

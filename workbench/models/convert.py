"""nanoGPT and minGPT checkpoints into our own transformer.

The number of heads is in no weight's shape: it is taken from the checkpoint's `model_args`, or from a JSON
file beside it, and never guessed.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import CheckpointError, ConfigError
from workbench.models.certify import certificate, probe_tokens
from workbench.models.config import TransformerConfig
from workbench.models.files import first_line, read_json
from workbench.models.gpt_layouts import (
    ACTIVATIONS,
    NANOGPT,
    Layout,
    StateDict,
    cleaned,
    layout_of,
    n_blocks,
    plain_logits,
)
from workbench.models.protocol import Certificate
from workbench.models.target import Target
from workbench.models.tokenizer import Tokenizer
from workbench.models.tokens import check_vocabulary
from workbench.models.transformer import Transformer

MAX_PICKLE_BYTES = 4 << 30


def load_gpt_file(path: Path, target: Target) -> Transformer:
    """A model from a nanoGPT or minGPT checkpoint, as safetensors or as torch saved it.

    Raises:
        CheckpointError: broken, hostile, of another layout, or without its number of heads.
    """
    is_safe = path.suffix == ".safetensors"
    state, facts = (_read_safetensors if is_safe else _read_torch)(path)
    for sidecar in (path.with_suffix(".json"), path.parent / "config.json"):
        if sidecar.is_file():
            facts = {**read_json(sidecar), **facts}
            break
    if not isinstance(facts.get("n_head"), int):
        raise CheckpointError(
            f"{path.name} does not say how many heads its layers have, and its weights cannot: write "
            f'{{"n_head": 6}} (with its true number) into {path.with_suffix(".json").name} beside it'
        )
    if facts.get("activation") not in (None, "gelu", "gelu_new"):
        raise CheckpointError(
            f'{path.name}: "activation" must be "gelu" or "gelu_new", not {facts["activation"]!r:.40}'
        )
    has_tokenizer = (path.parent / "tokenizer.json").is_file()
    tokenizer = Tokenizer.from_file(path.parent / "tokenizer.json") if has_tokenizer else None
    model = from_gpt_state(
        state,
        facts["n_head"],
        activation=facts.get("activation"),
        tokenizer=tokenizer,
        name=path.stem,
    )
    return model.to(device=target.device, dtype=target.dtype)


def from_gpt_state(
    state: StateDict,
    n_heads: int,
    *,
    activation: str | None = None,
    tokenizer: Tokenizer | None = None,
    name: str = "gpt",
) -> Transformer:
    """Our transformer with the weights of a nanoGPT or minGPT state dict.

    Args:
        activation: "gelu" or "gelu_new"; by default what the project uses now. nanoGPT used "gelu_new" in
            its first months.

    Raises:
        CheckpointError: not one of these layouts, or weights that are missing, misshapen or not finite.
    """
    state = cleaned(state)
    layout = _known_layout(state, name)
    _check_finite(state, name)
    state = {key: tensor.float() for key, tensor in state.items()}
    activation = activation or ACTIVATIONS[layout.name]
    try:
        config = _config(state, layout, n_heads, activation)
        weights, used = _weights(state, layout, config)
        model = Transformer(config, tokenizer, name=name)
        model.load_state_dict(weights, strict=True)
    except KeyError as error:
        raise CheckpointError(
            f"{name} lacks {error.args[0]} of a {layout.name} checkpoint"
        ) from error
    except (ConfigError, RuntimeError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{name} is no whole {layout.name} checkpoint: {error}"[:500]
        ) from error
    if unknown := sorted(set(state) - used):
        raise CheckpointError(
            f"{name} has weights that {layout.name} does not know: {unknown[0][:60]}"
        )
    check_vocabulary(tokenizer, config.d_vocab, name)
    model.certificate = _certified(model, state, layout, activation)
    return model


def _known_layout(state: StateDict, name: str) -> Layout:
    layout = layout_of(state)
    if layout is None:
        raise CheckpointError(
            f"{name} is neither a nanoGPT nor a minGPT state dict: its first weights are "
            f"{', '.join(key[:40] for key in list(state)[:3]) or 'none'}"
        )
    return layout


def _certified(
    model: Transformer, state: StateDict, layout: Layout, activation: str
) -> Certificate:
    """How far a model is from a plain forward pass over the weights that it was made from."""
    config = model.cfg
    probe = probe_tokens(model.tokenizer, config.d_vocab, config.n_ctx)
    expected = plain_logits(state, layout, config.n_heads, activation, probe)
    with torch.no_grad():
        found = model.eval()(probe)
    return certificate(f"the logits of a plain forward pass of {layout.name}", expected, found)


def _config(state: StateDict, layout: Layout, n_heads: int, activation: str) -> TransformerConfig:
    d_vocab, d_model = state[layout.tokens].shape
    n_layers = n_blocks(state, layout)
    first = layout.block.format(0)
    return TransformerConfig(
        order="sf" * n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_vocab=d_vocab,
        n_ctx=state[layout.positions].numel() // d_model,
        d_mlp=state[first + layout.mlp[0] + ".weight"].shape[0],
        mlp=activation,  # type: ignore[arg-type]  # checked by the config itself
        norm="LN",
        positions="learned",
        attn_bias=any("attn" in key and key.endswith(".bias") for key in state),
        mlp_bias=any("mlp" in key and key.endswith(".bias") for key in state),
        tied_unembedding=layout is NANOGPT,
    )


def _weights(
    state: StateDict, layout: Layout, config: TransformerConfig
) -> tuple[StateDict, set[str]]:
    """Our state dict, and the keys of theirs that went into it. Linear stores [out in], we [in out]."""
    used = {layout.tokens, layout.positions, layout.head}

    def take(name: str) -> tuple[Tensor, Tensor]:
        used.update({name + ".weight", name + ".bias"})
        weight = state[name + ".weight"]
        return weight, state.get(name + ".bias", torch.zeros(len(weight)))

    ours = {
        "embed.W_E": state[layout.tokens],
        "pos_embed.W_pos": state[layout.positions].reshape(-1, config.d_model),
    }
    if not config.tied_unembedding:
        ours["unembed.W_U"] = state[layout.head].T
    ours["ln_final.w"], ours["ln_final.b"] = take(layout.final_norm)
    for block in range(config.n_layers):
        at, to = layout.block.format(block), f"blocks.{block}."
        for norm, name in zip(("ln1", "ln2"), layout.norms, strict=True):
            ours[f"{to}{norm}.w"], ours[f"{to}{norm}.b"] = take(at + name)
        parts = [take(at + name) for name in layout.queries_keys_values]
        weight, bias = (torch.cat(part) for part in zip(*parts, strict=True))
        for letter, w, b in zip("QKV", weight.chunk(3), bias.chunk(3), strict=True):
            ours[f"{to}attn.W_{letter}"] = rearrange(w, "(h d) m -> h m d", h=config.n_heads)
            ours[f"{to}attn.b_{letter}"] = rearrange(b, "(h d) -> h d", h=config.n_heads)
        weight, ours[to + "attn.b_O"] = take(at + layout.attention_out)
        ours[to + "attn.W_O"] = rearrange(weight, "m (h d) -> h d m", h=config.n_heads)
        for name, theirs in zip(("in", "out"), layout.mlp, strict=True):
            weight, ours[f"{to}mlp.b_{name}"] = take(at + theirs)
            ours[f"{to}mlp.W_{name}"] = weight.T
    for sublayer, has_bias in (("attn", config.attn_bias), ("mlp", config.mlp_bias)):
        if not has_bias:  # zeros that this model does not hold as weights
            ours = {key: t for key, t in ours.items() if f".{sublayer}.b_" not in key}
    return ours, used


def _check_finite(state: StateDict, name: str) -> None:
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{name}: {key[:60]} has type {tensor.dtype}; weights are floating point"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name}: {key[:60]} holds values that are not finite")


def _read_safetensors(path: Path) -> tuple[StateDict, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def _read_torch(path: Path) -> tuple[StateDict, dict[str, Any]]:
    """State dict and `model_args` of a file that torch saved; nothing but tensors and plain values is built."""
    size = path.stat().st_size
    if size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{path} is over {MAX_PICKLE_BYTES >> 30} GiB: convert it to safetensors"
        )
    _check_zip(path, size)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own kinds on broken files
        if type(error).__name__ == "UnpicklingError":
            raise CheckpointError(
                f"{path} holds more than tensors and plain values, and reading it could run code: "
                "refused. Save only the state dict, or convert it to safetensors"
            ) from error
        raise CheckpointError(f"{path} is no torch checkpoint: {first_line(error)}") from error
    facts = loaded.get("model_args") if isinstance(loaded, dict) else None
    state = loaded["model"] if facts is not None and "model" in loaded else loaded
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{path} is no state dict: it must map names to tensors")
    for key, tensor in state.items():
        # A view with strides of zero claims any size at no cost, until it is copied.
        if tensor.numel() * tensor.element_size() > size:
            raise CheckpointError(f"{path}: {key[:60]} claims more numbers than the file holds")
    return state, facts if isinstance(facts, dict) else {}


def _check_zip(path: Path, size: int) -> None:
    """Refuse an archive that would grow when it is read; torch stores its entries as they are."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # a broken directory fails in many ways
        raise CheckpointError(f"{path} is no torch checkpoint: {first_line(error)}") from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise CheckpointError(
                f"{path}: {entry.filename[:60]!r} is compressed or larger than the file, which torch never "
                "writes: refused. Save it again with torch.save"
            )
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(f"{path}: its entries overlap, which torch never writes: refused")

"""Reading one unit's activation over the examples of a task, with what is known of each example."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.errors import ConfigError
from workbench.models.transformer import Transformer
from workbench.sites import Site
from workbench.training.mlp import MLP
from workbench.training.tasks import FixedTask

MAX_EXAMPLES = 20_000
_BEFORE = 14
_WHATS = {"qk": ("query", "key"), "vo": ("value",)}


@dataclass(frozen=True, eq=False)
class Reading:
    """An activation for each example.

    Args:
        features: what is known of each example.
        names: of the values of features that are tokens.
        text: what is written for an example.
    """

    what: str
    activation: Float[Tensor, " example"]
    features: Mapping[str, Shaped[np.ndarray, " example"]]
    text: Callable[[int], str]
    names: Mapping[str, Any] = field(default_factory=dict)


def read_mlp(network: MLP, task: Any, group: str, index: int, seed: int) -> Reading | str:
    """A neuron's activation over a task's test examples, and the inputs; a reason where there is none."""
    if group == "tokens":
        return "a token is looked up: it has wires, and no activation"
    inputs = _inputs(task, seed)[:MAX_EXAMPLES]
    if network.embed is None:
        inputs = inputs.to(network.layers[0].W.dtype)
    activation = network.activations(inputs)[group][:, index].cpu().float()
    columns = inputs.cpu().numpy()
    kind = "token" if network.embed is not None else "x"
    title = "token {}" if kind == "token" else "x{}"
    features = {title.format(i + 1): columns[:, i] for i in range(columns.shape[1])}
    names = {}
    if kind == "token":
        spelled = tuple(map(str, range(network.cfg.embedding or 0)))
        names = dict.fromkeys(features, spelled)

    def text(at: int) -> str:
        row = columns[at]
        shown = [f"{value:.3g}" if kind == "x" else str(int(value)) for value in row[:12]]
        return ", ".join(shown) + (", …" if len(row) > 12 else "")

    return Reading("activation", activation, features, text, names)


def read_transformer(
    network: Transformer, task: Any, unit: tuple[str, int], what: str | None, seed: int
) -> Reading | str:
    """A unit's activation at every position of some sequences; a reason where there is none."""
    group, _ = unit
    if group in ("tokens", "positions"):
        return f"{group} are looked up: they have wires, and no activation"
    kind = group.rsplit(".", 1)[-1]
    known = _WHATS.get(kind, ("logit" if group == "logits" else "activation",))
    if what is not None and what not in known:
        raise ConfigError(f"a unit of {group!r} has {' and '.join(known)}, and no {what!r:.40}")
    what = what or known[0]
    batch = task if isinstance(task, Tensor) else _batch(task, seed)
    found: list[Tensor] = []
    if group == "logits":
        logits = _run(network, batch, None, found)
        activation = logits[:, :, unit[1]]
    else:
        site, head, at = _site(network, unit, what)
        _run(network, batch, network.site_hook(site), found)
        activation = found[0][:, :, head, at] if head is not None else found[0][:, :, at]
    inputs = batch if isinstance(batch, Tensor) else batch.inputs
    flat = activation.flatten().cpu().float()[:MAX_EXAMPLES]
    if inputs.is_floating_point():
        return _of_numbers(what, flat, inputs.cpu())
    return _of_tokens(network, what, flat, inputs.cpu())


def _inputs(task: Any, seed: int) -> Tensor:
    if isinstance(task, Tensor):
        return task
    if isinstance(task, FixedTask):
        return task.test.inputs
    return task.batch(seed, 0).inputs


def _batch(task: Any, seed: int) -> Any:
    # Any step will do: the batch is one that training draws.
    return task.test if isinstance(task, FixedTask) else task.batch(seed, 0)


def _run(network: Transformer, batch: Any, hook: str | None, found: list[Tensor]) -> Tensor:
    """The logits; what stands at a hook is put into `found`."""
    outputs: list[Tensor] = []

    def keep(activation: Tensor, hook: Any) -> None:
        found.append(activation.detach())

    def last(activation: Tensor, hook: Any) -> None:
        outputs.append(network.readout(activation).detach())

    end = network.site_hook(Site("resid_post", len(network.blocks) - 1)) if network.blocks else None
    kept = [(hook, keep)] if hook else []
    with network.hooks(kept + ([(end, last)] if end and not isinstance(batch, Tensor) else [])):
        if isinstance(batch, Tensor):
            return network(batch)
        answer = batch.outputs(network)
    return outputs[0] if outputs else answer


def _site(network: Transformer, unit: tuple[str, int], what: str) -> tuple[Site, int | None, int]:
    """Where a unit's activation stands: the site, the head (or none) and the place in it."""
    group, index = unit
    if group == "stream":
        if not network.blocks:
            return Site("embed"), None, index
        return Site("resid_post", len(network.blocks) - 1), None, index
    _, layer, kind = group.split(".")
    if kind == "mlp":
        return Site("mlp_post", int(layer)), None, index
    attn = network.blocks[int(layer)].attn
    starts = np.cumsum([0, *attn.head_sizes])
    head = int(np.searchsorted(starts, index, side="right")) - 1
    owner = head if what == "query" else head // attn.group
    return (
        Site({"query": "q", "key": "k", "value": "v"}[what], int(layer)),
        owner,
        index - int(starts[head]),
    )


def _of_tokens(
    network: Transformer, what: str, activation: Tensor, tokens: Int[Tensor, "batch pos"]
) -> Reading:
    n_pos, flat = tokens.shape[1], tokens.flatten()[:MAX_EXAMPLES].numpy()
    spelled = _spelled(network, int(network.cfg.d_vocab))
    before = np.where(np.arange(len(flat)) % n_pos, np.roll(flat, 1), -1)
    has = before >= 0
    features = {"token": flat, "position": np.arange(len(flat)) % n_pos}
    if has.any():
        features["token before"] = np.where(has, before, flat)

    def text(at: int) -> str:
        row, pos = divmod(at, n_pos)
        shown = tokens[row, max(0, pos - _BEFORE) : pos + 1].tolist()
        start = "…" if pos > _BEFORE else ""
        return start + "".join(spelled[i] for i in shown[:-1]) + f" ⟦{spelled[shown[-1]]}⟧"

    names = {"token": spelled, "token before": spelled}
    return Reading(what, activation, features, text, names)


def _spelled(network: Transformer, n: int) -> tuple[str, ...]:
    if network.tokenizer is None:
        return tuple(f" {i}" for i in range(n))
    known = network.tokenizer.str_tokens(list(range(min(n, network.tokenizer.d_vocab))))
    return (*known, *(f" {i}" for i in range(len(known), n)))


def _of_numbers(
    what: str, activation: Tensor, numbers: Float[Tensor, "batch pos channel"]
) -> Reading:
    n_pos = numbers.shape[1]
    flat = numbers.flatten(0, 1)[:MAX_EXAMPLES].double().numpy()
    features = {f"channel {i}": flat[:, i] for i in range(flat.shape[1])}
    features["position"] = np.arange(len(flat)) % n_pos

    def text(at: int) -> str:
        row, pos = divmod(at, n_pos)
        shown = numbers[row, max(0, pos - 4) : pos + 1].tolist()
        return " ".join("(" + ", ".join(f"{x:.3g}" for x in pair[:6]) + ")" for pair in shown)

    return Reading(what, activation, features, text)

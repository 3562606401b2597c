"""Exact sums over all paths: order spectra against their floor, edges against attribution patching, growth.

Run      python -m benchmarks.paths [--plot FILE.png]     SmolLM2 needs the smollm2 model; about three minutes
Floor    the bare matrix products of the order spectrum: every layer's transposed maps, once for each order that
         has arrived there (attention: W_O, patterns, W_V; MLP: W_out, W_in), batched over orders
Edges    all edges between 157 components of a random model of GPT-2's shape, prompt to matrix (a forward pass
         included), against `transformer_lens.tools.analysis.attribution_patch` at granularity "edge" on the
         same bridge: two forward passes and one backward, an estimate of first order for each writer, reader
         (query, key and value inputs apart) and position. It refuses grouped-query models, hence not SmolLM2,
         where its node scores, one for each component and position, stand in
Growth   random models of ours (for heads without MLPs, whose share would not grow); exponents by least squares
         on logarithms
Goal     orders within 1.3 of the floor and exact to 1e-5 of the largest
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor
from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

from benchmarks.circuits import cpu_seconds
from benchmarks.composition import resident
from benchmarks.measure import interleaved, report
from workbench import load
from workbench.models import list_models
from workbench.models.bridge import BridgeModel
from workbench.models.config import TransformerConfig
from workbench.models.families import bridge_config
from workbench.models.protocol import Model
from workbench.models.transformer import Transformer
from workbench.paths.chains import head_chains
from workbench.paths.directions import Direction, logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.maps import FrozenAttention
from workbench.paths.network import FrozenNetwork
from workbench.paths.neurons import through_neurons
from workbench.paths.orders import order_spectrum
from workbench.paths.through import Through, paths_through
from workbench.runs import Prompt

PROMPT = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
SHAPE = {"d_model": 256, "n_heads": 8, "d_vocab": 64, "n_ctx": 1024}
# What grows: values, and the config and number of tokens for one of them.
GROWTH: dict[str, tuple[tuple[int, ...], Callable[[int], tuple[dict[str, object], int]]]] = {
    "layers": ((4, 8, 16, 32, 64), lambda n: ({"order": "sf" * n, "norm": "RMS"}, 16)),
    "tokens": ((16, 32, 64, 128, 256), lambda n: ({"order": "sf" * 8, "norm": "RMS"}, n)),
    "heads": (
        (4, 8, 16, 32, 64),
        lambda n: ({"order": "s" * 8, "norm": "RMS", "n_heads": n, "d_head": 32}, 16),
    ),
}


def main(plot: Path | None = None) -> None:
    """Print every ratio; draw the growth if asked."""
    torch.set_num_threads(1)
    if any(info.name == "smollm2" and info.available for info in list_models()):
        smollm2(load("smollm2"))
    else:
        print("smollm2: not installed, skipped")
    edges_against_peer()
    grown = {name: growth(name) for name in GROWTH}
    if plot is not None:
        draw(grown, plot)


def smollm2(model: Model) -> None:
    """Orders against the floor, freezing against a forward pass, edges, chains and neurons."""
    frozen = freeze(model, PROMPT)
    direction = logit_direction(frozen, " Mary", distractor=" John")
    orders = order_spectrum(frozen, direction)
    what = f"smollm2, {len(frozen.str_tokens)} tokens"
    ratio = interleaved(
        lambda: order_spectrum(frozen, direction), lambda: floor(frozen), rounds=9, tries=2
    )
    report("<= 1.3x", f"{what}, {len(orders.orders)} orders: spectrum / floor", ratio)
    error = abs(orders.residual) / np.abs(orders.orders).max()
    report("<= 1e-5", f"{what}: distance to the logit difference", f"{error:.1e} of the largest")
    plain = interleaved(
        lambda: freeze(model, PROMPT), lambda: forward(model, frozen.run.tokens), rounds=9, tries=2
    )
    report("-", f"{what}: freeze / plain forward", plain)
    _ = frozen.written  # what every part writes, shared by all that follows
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    seconds, through = cpu_seconds(lambda: paths_through(frozen, direction))
    n_edges, most = int(np.isfinite(through.edges).sum()), resident("VmHWM") - before
    report("-", f"{what}: {n_edges:,} edges", f"{seconds:.2f} s, {most:.0f} MB on top")
    for length in (2, 3):
        seconds, chains = cpu_seconds(lambda: head_chains(frozen, direction, length=length))  # noqa: B023
        report("-", f"{what}: {chains.n_chains:,} chains of {length} heads", f"{seconds:.2f} s")
    seconds, neurons = cpu_seconds(lambda: through_neurons(frozen, direction, 15))
    report("-", f"{what}: {len(neurons.neurons):,} neurons of a layer", f"{seconds:.2f} s")
    nodes_against_peer(model)


def floor(frozen: FrozenNetwork) -> None:
    """The bare products of one order spectrum."""
    n_pos, d_model = frozen.stream.shape
    block = torch.ones(len(frozen.steps), n_pos, d_model)
    for n_orders, step in enumerate(reversed(frozen.steps), start=1):
        asked, maps = block[:n_orders], step.sublayer
        if isinstance(maps, FrozenAttention):
            n_read, d_head = len(maps.W_V), maps.W_V.shape[-1]
            per_group = asked @ maps.W_O.flatten(0, 1).mT
            per_group = per_group.reshape(n_orders, n_read, -1, d_head)
            pulled = maps.pattern.reshape(n_read, -1, n_pos).mT @ per_group
            _ = pulled.reshape(n_orders, n_pos, -1) @ maps.W_V.permute(0, 2, 1).flatten(0, 1)
        else:
            _ = (asked @ maps.W_out.mT) @ maps.W_in.mT


def forward(model: Model, tokens: Tensor) -> None:
    """One plain pass."""
    with torch.no_grad():
        model(tokens)


def ours(model: Model, prompt: Prompt, answer: int, distractor: int) -> Through:
    """From a prompt to the whole matrix of edges."""
    frozen = freeze(model, prompt)
    return paths_through(frozen, logit_direction(frozen, answer, distractor=distractor))


def nodes_against_peer(model: Model) -> None:
    """SmolLM2's edges against the peer's nodes."""
    clean, corrupt = model.to_tokens(PROMPT), model.to_tokens(CORRUPT)
    answer, distractor = (int(model.to_tokens(name)[0, -1]) for name in (" Mary", " John"))

    def peer() -> object:
        return attribution_patch(
            model.bridge,  # type: ignore[attr-defined]
            clean,
            corrupt,
            lambda logits: logits[0, -1, answer] - logits[0, -1, distractor],
        )

    ratio = interleaved(lambda: ours(model, PROMPT, answer, distractor), peer, rounds=5, tries=1)
    report("-", "smollm2: all edges / TransformerLens' nodes", ratio)


def edges_against_peer() -> None:
    """All edges of a random model of GPT-2's shape, both ways."""
    config = transformers.GPT2Config(vocab_size=1000, n_positions=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()
    model = BridgeModel(hf, bridge_config(hf.config), None, name="gpt2, random")
    clean = torch.randint(1000, (1, 14), generator=torch.Generator().manual_seed(0))
    corrupt = clean.clone()
    corrupt[0, 9] = clean[0, 2]

    def peer() -> object:
        return attribution_patch(
            model.bridge,
            clean,
            corrupt,
            lambda logits: logits[0, -1, 1] - logits[0, -1, 2],
            EdgeAttributionConfig(granularity="edge"),
        )

    ratio = interleaved(lambda: ours(model, clean, 1, 2), peer, rounds=3, tries=1)
    report("< 1x", "gpt2's shape, 14 tokens: all edges / TransformerLens' edges", ratio)


def growth(name: str) -> list[tuple[int, float]]:
    """CPU seconds of a spectrum as one number grows, and the exponent of its last three values."""
    values, shaped = GROWTH[name]
    found = []
    for value in values:
        fields, n_tokens = shaped(value)
        frozen, direction = random_question(fields, n_tokens)
        seconds = min(cpu_seconds(lambda: order_spectrum(frozen, direction))[0] for _ in range(5))  # noqa: B023
        found.append((value, seconds))
    x, y = np.log(np.array(found[-3:]).T)
    slope = np.polyfit(x, y, 1)[0]
    spread = ", ".join(f"{value}: {1e3 * seconds:.0f} ms" for value, seconds in found)
    report({"layers": "2"}.get(name, "1"), f"growth with {name}, exponent {slope:.2f}", spread)
    return found


def random_question(fields: dict[str, object], n_tokens: int) -> tuple[FrozenNetwork, Direction]:
    """A random model of ours, frozen on random tokens."""
    model = Transformer(TransformerConfig(**(SHAPE | fields)), seed=0).eval()
    tokens = torch.randint(64, (1, n_tokens), generator=torch.Generator().manual_seed(0))
    frozen = freeze(model, tokens)
    return frozen, logit_direction(frozen, 1)


def draw(grown: dict[str, list[tuple[int, float]]], file: Path) -> None:
    """Seconds over what grows, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(grown), figsize=(10, 3.2), sharey=True)
    for axis, (name, found) in zip(axes, grown.items(), strict=True):
        x, y = np.array(found).T
        slope = np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0]
        axis.loglog(x, y, "o-", base=2)
        axis.set(xlabel=name, title=f"exponent {slope:.2f}")
    axes[0].set_ylabel("order spectrum, CPU seconds")
    figure.tight_layout()
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Benchmarks of exact sums over paths.")
    parser.add_argument("--plot", type=Path, help="draw the growth into this PNG")
    main(parser.parse_args().plot)

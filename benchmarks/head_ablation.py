"""The effect of every head: a batch for each layer, begun at that layer, against one pass for each head."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.measure import interleaved, report
from workbench import load
from workbench.heads.ablation import head_effects
from workbench.models.protocol import Model
from workbench.sites import Site

N_PROMPTS, N_TOKENS = 2, 48
CASES = {"attn-2l": 9, "mlp-2l": 9, "smollm2": 0}


def one_by_one(model: Model, tokens: torch.Tensor) -> torch.Tensor:
    """Mean-ablation as it is usually written: hooks on z, and a forward pass for each head."""
    layers = [layer for layer in range(model.cfg.n_layers) if model.n_heads_in(layer)]
    names = {layer: model.site_hook(Site("z", layer)) for layer in layers}
    kept: dict[int, torch.Tensor] = {}

    def keep(layer, z, hook):
        kept[layer] = z

    with model.hooks([(names[layer], partial(keep, layer)) for layer in layers]):
        clean = _losses(model, tokens)
    found = []
    for layer in layers:
        mean = kept[layer][:, 1:].mean((0, 1))
        for head in range(model.n_heads_in(layer)):
            with model.hooks([(names[layer], partial(_replace, mean, head))]):
                found.append(_losses(model, tokens) - clean)
    return torch.stack(found)


def _replace(mean, head, z, hook):
    z = z.clone()
    z[:, 1:, head] = mean[head]
    return z


def _losses(model: Model, tokens: torch.Tensor) -> torch.Tensor:
    log_probs = model(tokens)[:, 1:-1].log_softmax(-1)
    return -log_probs.gather(2, tokens[:, 2:, None]).mean()


def timed(side: Callable[[], Any]) -> tuple[Any, float]:
    """What a side gives, and the CPU seconds that it took."""
    start = time.process_time()
    return side(), time.process_time() - start


def floor(model: Model) -> float:
    """Multiplications of all passes begun at their head's layer, of those of whole passes.

    Every later layer and the unembedding see other numbers for each head, so nothing else can be shared.
    """
    weights = [
        sum(weight.numel() for weight in block.parameters() if weight.ndim > 1)
        for block in getattr(model, "bridge", model).blocks
    ]
    unembedding = model.cfg.d_model * model.cfg.d_out
    heads = [model.n_heads_in(layer) for layer in range(model.cfg.n_layers)]
    begun = sum(n * (sum(weights[layer:]) + unembedding) for layer, n in enumerate(heads))
    return begun / (sum(heads) * (sum(weights) + unembedding))


def main() -> None:
    """Print the ratios, and how far apart the two are; of SmolLM2 one run each, which take a minute or two."""
    torch.set_num_threads(1)
    for name, rounds in CASES.items():
        model = load(name)
        generator = torch.Generator().manual_seed(0)
        n_prompts = N_PROMPTS if rounds else 1
        tokens = torch.randint(model.cfg.d_vocab, (n_prompts, N_TOKENS), generator=generator)
        sides = (
            partial(head_effects, model, tokens, n_draws=2),
            partial(one_by_one, model, tokens),
        )
        with torch.no_grad():
            (ours, taken), (theirs, peer) = timed(sides[0]), timed(sides[1])
            effects = torch.from_numpy(ours.effect.mean(0))
            apart = float((effects - theirs.double()).abs().max())
            ratio: object = f"{taken / peer:.2f}x  (one run each; peer {peer:.1f} s)"
            if rounds:
                ratio = interleaved(*sides, rounds=rounds, tries=1)
        report("≤ 0.33x", f"effect of {len(effects)} heads of {name}, one pass each", ratio)
        report(f"{floor(model):.2f}x", "  of its multiplications, no more can be left out", "")
        report("same", f"  largest difference, {name}", f"{apart:.1e} nats")


if __name__ == "__main__":
    main()

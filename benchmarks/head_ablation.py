"""The effect of every head: a batch for each layer, begun at that layer, against one pass for each head."""

import time
from functools import partial

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


def once(ours, peer) -> str:
    """The ratio of single runs in CPU time, where each takes tens of seconds."""
    taken = []
    for side in (ours, peer):
        start = time.process_time()
        side()
        taken.append(time.process_time() - start)
    return f"{taken[0] / taken[1]:.2f}x  (one run each; peer {taken[1]:.1f} s)"


def main() -> None:
    """Print the ratios, and how far apart the two are."""
    torch.set_num_threads(1)
    for name, rounds in CASES.items():
        model = load(name)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(model.cfg.d_vocab, (N_PROMPTS, N_TOKENS), generator=generator)
        with torch.no_grad():
            ours = torch.from_numpy(head_effects(model, tokens, n_draws=2).effect.mean(0))
            apart = float((ours - one_by_one(model, tokens).double()).abs().max())
            sides = (
                partial(head_effects, model, tokens, n_draws=2),
                partial(one_by_one, model, tokens),
            )
            ratio = interleaved(*sides, rounds=rounds, tries=1) if rounds else once(*sides)
        report("≤ 0.33x", f"effect of {len(ours)} heads of {name}, one pass each", ratio)
        report("same", f"  largest difference, {name}", f"{apart:.1e} nats")


if __name__ == "__main__":
    main()

"""A run that keeps patterns and residual stream: time against a plain forward, bytes against a full cache.

python -m benchmarks.runs
"""

import torch

import workbench
from benchmarks.measure import interleaved, report
from workbench.models import list_models
from workbench.models.protocol import Model

SITES = ("pattern", "resid_pre.0", "resid_post")
PROMPT = "def run(self, tokens):\n    return self.model(tokens)\n\n" * 12


def main() -> None:
    """Print the ratios for attn-2l and SmolLM2."""
    torch.set_num_threads(1)
    known = {info.name for info in list_models() if info.available}
    for name, lengths, rounds in (("attn-2l", (64, 256), 41), ("smollm2", (14, 128), 9)):
        if name not in known:
            print(f"{name}: not installed, skipped")
            continue
        model = workbench.load(name)
        ids = torch.tensor([model.tokenizer.encode(PROMPT)])
        for n_pos in lengths:
            _compare(model, ids[:, :n_pos], rounds)


def _compare(model: Model, tokens: torch.Tensor, rounds: int) -> None:
    what = f"{model.name}, {tokens.shape[1]} tokens"

    def kept() -> workbench.Run:
        return workbench.run(model, tokens, sites=SITES)

    def plain() -> None:
        with torch.no_grad():
            model(tokens)

    report("<= 1.15x", f"{what}: run / plain forward", interleaved(kept, plain, rounds=rounds))
    sites = kept().stored.values()
    held = sum(t.numel() * t.element_size() for t in sites)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    full = sum(t.numel() * t.element_size() for t in cache.values())
    unique = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in cache.values()}
    shares = f"{held / full:.3f} of all names, {held / sum(unique.values()):.3f} of unique storage"
    report("<= 0.250", f"{what}: bytes / run_with_cache", shares)


if __name__ == "__main__":
    main()

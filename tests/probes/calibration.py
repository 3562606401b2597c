"""Whether p-values are honest: how often probes "find" something in models that have learnt nothing.

    python -m tests.probes.calibration --seeds 100 [--probes a,b] [--norm LN]

For each probe, over random models: the share of p below 0.05 (5 % if p is exact, less where it is coarse),
the share of findings that pass the false discovery rate of 0.05 (Benjamini and Hochberg 1995), and the share
of models with any discovery, which must not lie above 5 % by more than chance.
"""

import argparse
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest, false_discovery_control

from probes.configs import make_config
from probes.contract import Probe, check_table, silent
from probes.data import ProbeData, read_data
from probes.facts import facts_of
from probes.registry import get_probe, probe_names
from workbench import load
from workbench.errors import UnsupportedError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer

LEVEL = 0.05
# Enough draws for a p below the level of any table here, and little text.
SMALL = {"n_prompts": 4, "n_tokens": 32, "n_draws": 99, "n_null": 199}
# What is counted in text, or compared between its documents, needs more of it.
MORE = {
    "skip-trigrams": {"n_prompts": 200, "n_tokens": 64, "k": 80},
    "in-context-learning": {"n_prompts": 32, "n_tokens": 64},
}


class Outcome(NamedTuple):
    """What one probe said of one random model: p-values that are not NaN."""

    probe: str
    p: np.ndarray

    @property
    def n_discoveries(self) -> int:
        """Findings that pass the false discovery rate."""
        return int((false_discovery_control(self.p) <= LEVEL).sum()) if len(self.p) else 0


def random_model(seed: int, norm: str = "none", scale: float = 2.0) -> Transformer:
    """Two small layers over a real vocabulary; the weights are large enough for attention to be uneven."""
    mlps = "sfsf" if norm != "none" else "ss"
    config = TransformerConfig(
        order=mlps,
        norm=norm,
        d_model=32,
        n_heads=4,
        d_vocab=1024,
        n_ctx=64,
        positions="shortformer",
    )
    model = Transformer(config, load("attn-1l").tokenizer, name=f"random-{seed}", seed=seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale if weight.ndim > 1 else 1.0)
    return model.eval()


def small_config(probe: Probe, seed: int) -> Any:
    """The probe's config, with less to read; the seed is its own for every probe."""
    known = {field.name for field in fields(probe.Config)}
    mixed = (seed + zlib.crc32(probe.name.encode())) % 2**31
    small = SMALL | MORE.get(probe.name, {}) | {"seed": mixed}
    given = {name: value for name, value in small.items() if name in known}
    return make_config(probe, given)


def outcomes(
    names: Sequence[str], seeds: Sequence[int], data: ProbeData, norm: str = "none"
) -> Iterator[Outcome]:
    """Every probe on every random model; those that refuse it are left out."""
    for seed in seeds:
        model = random_model(seed, norm)
        for name in names:
            probe = get_probe(name)
            if probe.refuses(facts_of(model)):
                continue
            try:
                table = probe.run(model, data, small_config(probe, seed), silent)
            except UnsupportedError:
                continue
            check_table(table, name)
            yield Outcome(name, table["p"].dropna().to_numpy())


def summary(found: Sequence[Outcome]) -> list[str]:
    """One line for each probe."""
    lines = [
        f"{'probe':26s}{'models':>7s}{'tests':>8s}{'p<.05':>8s}{'passing':>9s}{'any':>7s}  p of any > 5 %"
    ]
    for name in dict.fromkeys(outcome.probe for outcome in found):
        of = [outcome for outcome in found if outcome.probe == name and len(outcome.p)]
        if not of:
            lines.append(f"{name:26s}{'no p-values':>15s}")
            continue
        p = np.concatenate([outcome.p for outcome in of])
        n_any = sum(outcome.n_discoveries > 0 for outcome in of)
        passing = sum(outcome.n_discoveries for outcome in of) / len(p)
        beyond = binomtest(n_any, len(of), LEVEL, alternative="greater").pvalue
        lines.append(
            f"{name:26s}{len(of):7d}{len(p):8d}{(p < LEVEL).mean():8.3f}{passing:9.4f}"
            f"{n_any / len(of):7.2f}  {beyond:.2f}"
        )
    return lines


def main() -> None:
    """Print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--probes", default=",".join(probe_names()))
    parser.add_argument("--norm", default="none", choices=("none", "LN", "RMS"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    documents = read_data("stdlib").documents[:40]
    data = ProbeData(documents, "part of stdlib")
    found = list(outcomes(given.probes.split(","), range(given.seeds), data, given.norm))
    print("\n".join(summary(found)))


if __name__ == "__main__":
    main()

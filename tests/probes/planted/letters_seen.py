"""A quick probe that reads data: how often each token occurs. It may pause at each row, to be interrupted."""

import os
import time
from dataclasses import dataclass

from probes.contract import Cost, Probe, findings_table, silent
from tests.probes.planted.size_of_weights import SizeOfWeights


@dataclass(frozen=True)
class SeenConfig:
    n_prompts: int = 8
    seed: int = 0


class LettersSeen(SizeOfWeights):
    name = "letters-seen"
    version = 1
    kind = "data"
    Config = SeenConfig

    def cost(self, facts, data, config):
        return Cost(0.01 * config.n_prompts, 1e6)

    def run(self, model, data, config, progress=silent):
        import torch

        tokens = data.tokens(model, config.n_prompts, 8, config.seed)
        for _ in tokens:
            time.sleep(float(os.environ.get("PLANTED_PAUSE", "0")))
        found, counts = torch.unique(tokens, return_counts=True)
        return findings_table(
            {"measure": "seen", "item": str(token), "value": count, "n": tokens.numel()}
            for token, count in zip(found.tolist(), counts.tolist(), strict=True)
        )


PROBE: Probe = LettersSeen()

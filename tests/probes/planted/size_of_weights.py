"""A quick probe that reads no data: the size of every weight."""

from dataclasses import dataclass

from probes.configs import check_whole
from probes.contract import Cost, Probe, findings_table, silent


@dataclass(frozen=True)
class SizesConfig:
    digits: int = 6
    seed: int = 0

    def __post_init__(self):
        check_whole("digits", self.digits, 1, 12)


class SizeOfWeights(Probe):
    name = "size-of-weights"
    title = "Sizes of weights"
    version = 1
    question = "How large are the weights?"
    method = "The norm of each."
    limits = "A planted probe of the tests."
    needs = "Weights alone; no data; anything."
    kind = "weights"
    Config = SizesConfig

    def refuses(self, facts):
        return f"it is bidirectional: {facts.described}" if facts.kind == "encoder" else ""

    def cost(self, facts, data, config):
        return Cost(0.01, 1e6)

    def run(self, model, data, config, progress=silent):
        rows = []
        weights = list(model.named_parameters())
        for index, (name, weight) in enumerate(weights):
            rows.append(
                {
                    "measure": "size",
                    "item": name,
                    "value": round(float(weight.detach().double().norm()), config.digits),
                    "unit": "length",
                    "n": weight.numel(),
                    "seed": config.seed,
                }
            )
            progress((index + 1) / len(weights), "weights")
        return findings_table(rows)


PROBE = SizeOfWeights()

"""How exact the sums are, over all architectures: `python -m tests.paths.exactness` prints the table.

The error of a number (a logit, a logit difference, an attention score) is the distance between the model's own
and the sum of all orders, or of all sources, relative to the largest term of that sum.
"""

from functools import cache
from types import MethodType

import numpy as np
import pandas as pd
import torch

from tests.models.gpt_sources import source
from tests.models.tiny import tiny_hf
from tests.paths.test_frozen import OURS
from tests.test_weights import PUBLIC, randomised
from workbench import load
from workbench.models.bridge import BridgeModel
from workbench.models.config import TransformerConfig
from workbench.models.convert import from_gpt_state
from workbench.models.families import bridge_config
from workbench.models.transformer import Transformer
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.orders import order_spectrum
from workbench.paths.scores import query_key, score_direction, score_parts
from workbench.paths.through import paths_through
from workbench.sites import Head

IDS = [3, 7, 7, 2, 11, 3, 7, 0]
GPTS = ("nanogpt", "nanogpt-without-biases", "mingpt", "mingpt-2020")
# BERT's head has layers of its own: its scores alone are sums.
NAMES = (*OURS, *PUBLIC, *GPTS, "bert")
PROMPT = "When Mary and John went to the store, John gave a drink to"
DTYPES = ("float32", "float64")
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


@cache
def model_of(name, dtype):
    """One architecture with random weights, or SmolLM2; shared, so leave it as it is."""
    if name == "smollm2":
        model = load(name, dtype=dtype)
        if dtype == "float64":
            in_full_precision(model._hf)
        return model
    if name in OURS:
        model = randomised(_built, OURS[name])
    elif name in GPTS:
        model = from_gpt_state(source(name).state_dict(), 3)
    else:
        hf = tiny_hf(name)
        hf = in_full_precision(hf.double()) if dtype == "float64" else hf
        return BridgeModel(hf, bridge_config(hf.config), None, name=name)
    return model.double() if dtype == "float64" else model


def _built(scale, **fields):
    shape = {"d_model": 32, "n_heads": 4, "d_vocab": 18, "n_ctx": 32} | fields
    model = Transformer(TransformerConfig(**shape), None, name="random").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def in_full_precision(hf):
    """Without the roundings to float32 that transformers has in its RMSNorms and rotary angles."""
    for module in hf.modules():
        module = getattr(module, "original_component", None) or module
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = MethodType(_rms_norm, module)
        elif type(module).__name__.endswith("RotaryEmbedding"):
            module.inv_freq = module.inv_freq.double()
            module.forward = MethodType(_rotary, module)
    return hf


def _rms_norm(module, x):
    is_shifted = type(module).__name__.startswith("Gemma")
    eps = module.eps if is_shifted else module.variance_epsilon
    gain = 1 + module.weight if is_shifted else module.weight
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def _rotary(module, x, position_ids):
    angles = position_ids[..., None].double() * module.inv_freq
    angles = torch.cat([angles, angles], -1)
    scale = module.attention_scaling
    return (angles.cos() * scale).to(x.dtype), (angles.sin() * scale).to(x.dtype)


def errors(name, dtype):
    """Rows `model dtype number error`, the worst of all positions, heads and ways to add up."""
    frozen = freeze(model_of(name, dtype), PROMPT if name == "smollm2" else IDS)
    last = len(frozen.str_tokens) - 1
    found = {"attention score": _score_errors(frozen, last)}
    if name != "bert":
        asked = {
            "logit": [{"pos": 0}, {"pos": last}],
            "logit difference": [{"distractor": 5}, {"distractor": "mean"}],
        }
        found |= {
            number: [
                _error(frozen, logit_direction(frozen, 2, **question)) for question in questions
            ]
            for number, questions in asked.items()
        }
    worst = {number: max(values, default=None) for number, values in found.items()}
    return [
        {"model": name, "dtype": dtype, "number": number, "error": error}
        for number, error in worst.items()
        if error is not None
    ]


def _score_errors(frozen, last):
    """Of the last head, pair by pair, and with either side taken apart by order."""
    heads = [part for part in frozen.components if part.kind == "head"]
    for part in heads[-1:]:
        maps = query_key(frozen, Head(part.layer, part.head))
        for query, key, versus in ((last, 1, None), (last, last, 0), (last - 1, 0, "mean")):
            parts = score_parts(frozen, maps, query, key, versus=versus)
            yield abs(parts.residual) / max(np.abs(parts.values).max(), abs(parts.total))
        for side in ("query", "key"):
            yield _error(frozen, score_direction(frozen, maps, last, 1, side=side))


def _error(frozen, direction):
    orders, through = order_spectrum(frozen, direction), paths_through(frozen, direction)
    sums = ((orders, orders.orders), (through, through.from_source))
    return max(
        abs(found.residual) / max(np.abs(terms).max(), abs(found.bias), abs(found.total))
        for found, terms in sums
    )


def table(names=NAMES, dtypes=DTYPES):
    """All errors: a row for each model, a column for each number and type."""
    rows = pd.DataFrame([row for name in names for dtype in dtypes for row in errors(name, dtype)])
    return rows.pivot(index="model", columns=["dtype", "number"], values="error").loc[list(names)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table((*NAMES, "smollm2")).to_string(float_format="{:.0e}".format, na_rep="-"))

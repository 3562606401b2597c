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
from workbench.paths.through import paths_through

IDS = [3, 7, 7, 2, 11, 3, 7, 0]
GPTS = ("nanogpt", "nanogpt-without-biases", "mingpt", "mingpt-2020")
NAMES = (*OURS, *PUBLIC, *GPTS)
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
            module.forward = MethodType(_rotary, module)
    return hf


def _rms_norm(module, x):
    is_shifted = type(module).__name__.startswith("Gemma")
    eps = module.eps if is_shifted else module.variance_epsilon
    gain = 1 + module.weight if is_shifted else module.weight
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def _rotary(module, x, position_ids):
    angles = position_ids[..., None].double() * module.inv_freq.double()
    angles = torch.cat([angles, angles], -1)
    scale = module.attention_scaling
    return (angles.cos() * scale).to(x.dtype), (angles.sin() * scale).to(x.dtype)


def errors(name, dtype, prompt=IDS):
    """Rows `model dtype number error`, the worst of all positions, heads and ways to add up."""
    model = model_of(name, dtype)
    frozen = freeze(model, prompt)
    last = len(frozen.str_tokens) - 1
    found = {
        "logit": [logit_direction(frozen, 2, pos=pos) for pos in {0, 4, last}],
        "logit difference": [
            logit_direction(frozen, 2, distractor=against, pos=last) for against in (5, "mean")
        ],
    }
    rows = [
        {"number": number, "error": max(_error(frozen, direction) for direction in directions)}
        for number, directions in found.items()
    ]
    return [{"model": name, "dtype": dtype, **row} for row in rows]


def _error(frozen, direction):
    orders, through = order_spectrum(frozen, direction), paths_through(frozen, direction)
    sums = ((orders, orders.orders), (through, through.from_source))
    return max(
        abs(found.residual) / max(np.abs(terms).max(), abs(found.bias), abs(found.total))
        for found, terms in sums
    )


def table(names=NAMES, dtypes=DTYPES):
    """All errors, the largest first within each type of number."""
    rows = [row for name in names for dtype in dtypes for row in errors(name, dtype)]
    return pd.DataFrame(rows).sort_values(["dtype", "error"], ascending=[True, False])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table((*NAMES, "smollm2")).to_string(index=False, float_format="{:.1e}".format))

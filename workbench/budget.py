"""Memory that a run would take, known before it is taken."""

import math
import re
from collections.abc import Sequence

import torch

from workbench.errors import BudgetError
from workbench.models.protocol import Model
from workbench.sites import Site

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PACKED_KINDS = ("pattern", "scores")
_UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def estimate(
    model: Model, n_prompts: int, n_pos: int, sites: Sequence[Site], dtype: str | None = None
) -> dict[str, int]:
    """Bytes that the logits and each kind of site would take, exactly as a run stores them."""
    held = {"logits": n_prompts * n_pos * model.cfg.d_out * model.W_E.element_size()}
    width = model.W_E.element_size() if dtype is None else DTYPES[dtype].itemsize
    for site in sites:
        count = math.prod(_axis_size(model, site, axis, n_prompts, n_pos) for axis in site.axes)
        if site.kind in PACKED_KINDS and model.cfg.causal:
            count = count // n_pos * (n_pos + 1) // 2
        held[site.kind] = held.get(site.kind, 0) + count * width
    return held


def _axis_size(model: Model, site: Site, axis: str, n_prompts: int, n_pos: int) -> int:
    sizes = {"batch": n_prompts, "pos": n_pos, "query": n_pos, "key": n_pos, "one": 1}
    if axis in sizes:
        return sizes[axis]
    if axis == "d_model":
        return int(model.cfg.d_model)
    block = model.blocks[site.layer]
    if axis == "neuron":
        return int(block.mlp.W_in.shape[-1])
    weight = block.attn.W_K if axis == "kv_head" else block.attn.W_Q
    return int(weight.shape[2] if axis == "d_head" else weight.shape[0])


def check_budget(held: dict[str, int], budget: str | int) -> None:
    """Refuse what would not fit.

    Raises:
        BudgetError: says what takes most and what to do.
    """
    limit, needed = parse_bytes(budget), sum(held.values())
    if needed <= limit:
        return
    largest = sorted(held, key=lambda kind: held[kind], reverse=True)
    shares = ", ".join(f"{kind} {spell_bytes(held[kind])}" for kind in largest[:3])
    raise BudgetError(
        f"this run would keep {spell_bytes(needed)} ({shares}); the budget is {spell_bytes(limit)}: ask "
        "for fewer sites or layers, shorter prompts, a smaller batch, dtype='float16' or more budget"
    )


def parse_bytes(budget: str | int) -> int:
    """Bytes from a number or a text such as "500MB".

    Raises:
        BudgetError: neither.
    """
    if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0:
        return budget
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s?([KMGT]B)", str(budget)[:40].upper(), re.ASCII)
    if not match:
        raise BudgetError(f"a budget is a positive number of bytes, or '500MB'; not {budget!r:.40}")
    return int(float(match[1]) * _UNITS[match[2]])


def spell_bytes(count: int) -> str:
    """A number of bytes as a person reads it."""
    unit = next((u for u in reversed(_UNITS) if count >= _UNITS[u]), "KB")
    return f"{count / _UNITS[unit]:.2f} {unit}"

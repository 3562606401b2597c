"""What the command line prints about a model and a run, as rich tables."""

from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from workbench.attention import pattern_maps
from workbench.errors import WorkbenchError
from workbench.models import read_card
from workbench.models.protocol import Model
from workbench.runs import Run


def info_table(model: Model) -> Table:
    """Shape, certificate and card of a model."""
    cfg = model.cfg
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    heads = [model.n_heads_in(layer) for layer in range(cfg.n_layers)]
    rows = {
        "model": model.name,
        "layers": str(cfg.n_layers),
        "heads a layer": _counts(heads),
        "d_model": str(cfg.d_model),
        "vocabulary": f"{cfg.d_vocab:,} tokens",
        "context": f"{cfg.n_ctx:,} tokens",
        "positions": cfg.positions,
        "norm": f"{cfg.normalization_type}, {cfg.norm_position}"
        if cfg.normalization_type
        else "none",
        "attention": "causal" if cfg.causal else "bidirectional",
        "parity": str(model.certificate or "the workbench's own format: nothing to compare with"),
    }
    for name, value in (rows | _card_rows(model.name)).items():
        table.add_row(name, Text(value))
    return table


def _counts(heads: list[int]) -> str:
    if not any(heads):
        return "none"
    return str(heads[0]) if len(set(heads)) == 1 else ", ".join(map(str, heads))


def _card_rows(name: str) -> dict[str, str]:
    try:
        card = read_card(name)
    except WorkbenchError:
        return {}  # only bundled models have a card
    rows = {"summary": str(card.get("summary", "")), "licence": str(card.get("licence", ""))}
    for metric, value in card.get("metrics", {}).items():
        rows[metric.replace("_", " ")] = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return rows


def prediction_table(model: Model, run: Run, top: int = 5) -> Table:
    """The likeliest next tokens after the prompt."""
    probs = run.logits[0, -1].float().softmax(-1)
    best = probs.topk(min(top, len(probs)))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("next token")
    table.add_column("probability", justify="right")
    for prob, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        text = model.tokenizer.str_tokens([token])[0] if model.tokenizer else str(token)
        table.add_row(Text(repr(text)), f"{prob:.3f}")
    return table


def head_table(run: Run, rows: int) -> Table:
    """The heads that look hardest at anything but the first token, from the last position."""
    maps = pattern_maps(run)
    found: list[tuple[float, str, Any]] = []
    for layer, heads in enumerate(maps.layers):
        for head, pattern in enumerate(heads if heads is not None else ()):
            last = pattern[-1].copy()
            strongest = float(last[1:].max()) if len(last) > 1 else float(last[0])
            found.append((strongest, f"{layer}.{head}", pattern[-1]))
    found.sort(key=lambda item: item[0], reverse=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("head")
    table.add_column("looks, from the last token, at", overflow="fold")
    for _, label, last in found[:rows]:
        keys = np.argsort(last)[::-1][:3]
        looks = "  ".join(f"{maps.key_tokens[k]!r}@{k} {last[k]:.2f}" for k in keys)
        table.add_row(label, Text(looks))
    return table

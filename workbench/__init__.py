"""A mechanistic interpretability workbench: load a model, run it, look inside.

    import workbench
    model = workbench.load("attn-2l")
    run = workbench.run(model, "def f(x):\\n    return x")
    workbench.attention_view(run)

Names are loaded when first used, so that `import workbench` costs nothing.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "AttentionMaps": "workbench.attention",
    "Head": "workbench.sites",
    "Run": "workbench.runs",
    "Site": "workbench.sites",
    "TransformerConfig": "workbench.models.config",
    "WorkbenchError": "workbench.errors",
    "attention_view": "workbench.figures.attention_view",
    "badges": "workbench.heads",
    "difference_maps": "workbench.attention",
    "head_scores": "workbench.heads",
    "list_models": "workbench.models",
    "load": "workbench.models",
    "mean_maps": "workbench.attention",
    "pattern_maps": "workbench.attention",
    "positional_kernel": "workbench.kernels",
    "run": "workbench.runs",
    "save_checkpoint": "workbench.models.checkpoints",
    "score_maps": "workbench.attention",
    "value_weighted_maps": "workbench.attention",
}

__all__ = [
    "AttentionMaps",
    "Head",
    "Run",
    "Site",
    "TransformerConfig",
    "WorkbenchError",
    "attention_view",
    "badges",
    "difference_maps",
    "head_scores",
    "list_models",
    "load",
    "mean_maps",
    "pattern_maps",
    "positional_kernel",
    "run",
    "save_checkpoint",
    "score_maps",
    "value_weighted_maps",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)

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
    "bugs": "workbench.trigrams",
    "composition_scores": "workbench.composition",
    "copying_scores": "workbench.copying",
    "difference_maps": "workbench.attention",
    "effective_weights": "workbench.weights",
    "eigen_cloud": "workbench.copying",
    "head_card": "workbench.cards",
    "head_measures": "workbench.cards",
    "head_scores": "workbench.heads",
    "list_models": "workbench.models",
    "load": "workbench.models",
    "logit_attribution": "workbench.direct_attribution",
    "logit_lens": "workbench.lens",
    "matching_scores": "workbench.matching",
    "mean_maps": "workbench.attention",
    "occurrences": "workbench.trigram_counts",
    "ov_circuit": "workbench.circuits",
    "pattern_maps": "workbench.attention",
    "positional_kernel": "workbench.kernels",
    "principal_angles": "workbench.angles",
    "qk_circuit": "workbench.circuits",
    "qk_geometry": "workbench.geometry",
    "run": "workbench.runs",
    "save_checkpoint": "workbench.models.checkpoints",
    "score_by_offset": "workbench.position_circuits",
    "score_maps": "workbench.attention",
    "skip_trigrams": "workbench.trigrams",
    "stream_geometry": "workbench.residual",
    "stream_parts": "workbench.parts",
    "summed": "workbench.circuits",
    "value_weighted_maps": "workbench.attention",
    "virtual_head": "workbench.virtual",
    "virtual_pattern": "workbench.virtual",
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
    "bugs",
    "composition_scores",
    "copying_scores",
    "difference_maps",
    "effective_weights",
    "eigen_cloud",
    "head_card",
    "head_measures",
    "head_scores",
    "list_models",
    "load",
    "logit_attribution",
    "logit_lens",
    "matching_scores",
    "mean_maps",
    "occurrences",
    "ov_circuit",
    "pattern_maps",
    "positional_kernel",
    "principal_angles",
    "qk_circuit",
    "qk_geometry",
    "run",
    "save_checkpoint",
    "score_by_offset",
    "score_maps",
    "skip_trigrams",
    "stream_geometry",
    "stream_parts",
    "summed",
    "value_weighted_maps",
    "virtual_head",
    "virtual_pattern",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)

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
    "badges": "workbench.heads.behaviours",
    "bugs": "workbench.trigrams.listing",
    "chain_pattern": "workbench.paths.chains",
    "composition_scores": "workbench.composition.scores",
    "copying_scores": "workbench.circuits.copying",
    "difference_maps": "workbench.attention",
    "effective_weights": "workbench.weights",
    "eigen_cloud": "workbench.circuits.copying",
    "feeds": "workbench.paths.feeds",
    "freeze": "workbench.paths.frozen",
    "gradient_by_length": "workbench.paths.lengths",
    "head_card": "workbench.heads.cards",
    "head_chains": "workbench.paths.chains",
    "head_measures": "workbench.heads.cards",
    "head_scores": "workbench.heads.behaviours",
    "lesions": "workbench.paths.lesions",
    "list_models": "workbench.models",
    "load": "workbench.models",
    "logit_attribution": "workbench.stream.attribution",
    "logit_direction": "workbench.paths.directions",
    "logit_lens": "workbench.stream.lens",
    "matching_scores": "workbench.composition.matching",
    "mean_maps": "workbench.attention",
    "occurrences": "workbench.trigrams.counts",
    "order_ablation": "workbench.paths.ablation",
    "order_spectrum": "workbench.paths.orders",
    "ov_circuit": "workbench.circuits.full",
    "paths_through": "workbench.paths.through",
    "pattern_maps": "workbench.attention",
    "positional_kernel": "workbench.heads.kernels",
    "principal_angles": "workbench.circuits.angles",
    "qk_circuit": "workbench.circuits.full",
    "qk_geometry": "workbench.circuits.geometry",
    "run": "workbench.runs",
    "save_checkpoint": "workbench.models.checkpoints",
    "score_by_offset": "workbench.circuits.positions",
    "score_direction": "workbench.paths.scores",
    "score_maps": "workbench.attention",
    "score_parts": "workbench.paths.scores",
    "skip_trigrams": "workbench.trigrams.listing",
    "stream_geometry": "workbench.stream.residual",
    "stream_parts": "workbench.stream.parts",
    "summed": "workbench.circuits.full",
    "through_neurons": "workbench.paths.neurons",
    "top_paths": "workbench.paths.search",
    "value_weighted_maps": "workbench.attention",
    "verify": "workbench.paths.verify",
    "virtual_head": "workbench.composition.virtual",
    "virtual_pattern": "workbench.composition.virtual",
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
    "chain_pattern",
    "composition_scores",
    "copying_scores",
    "difference_maps",
    "effective_weights",
    "eigen_cloud",
    "feeds",
    "freeze",
    "gradient_by_length",
    "head_card",
    "head_chains",
    "head_measures",
    "head_scores",
    "lesions",
    "list_models",
    "load",
    "logit_attribution",
    "logit_direction",
    "logit_lens",
    "matching_scores",
    "mean_maps",
    "occurrences",
    "order_ablation",
    "order_spectrum",
    "ov_circuit",
    "paths_through",
    "pattern_maps",
    "positional_kernel",
    "principal_angles",
    "qk_circuit",
    "qk_geometry",
    "run",
    "save_checkpoint",
    "score_by_offset",
    "score_direction",
    "score_maps",
    "score_parts",
    "skip_trigrams",
    "stream_geometry",
    "stream_parts",
    "summed",
    "through_neurons",
    "top_paths",
    "value_weighted_maps",
    "verify",
    "virtual_head",
    "virtual_pattern",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)

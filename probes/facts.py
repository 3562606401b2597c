"""What a probe may know of a model before it runs: enough to refuse it by name and to tell the cost."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["transformer", "mlp", "encoder"]


@dataclass(frozen=True)
class ModelFacts:
    """The shape of a model.

    Args:
        kind: "encoder" is a transformer that is not causal; "mlp" a multilayer perceptron without tokens.
        n_layers: of an MLP, its weight matrices.
        n_heads: of the layer that has most; 0 for an MLP. Likewise d_head.
        d_model: of an MLP, its widest layer.
        d_mlp: neurons of one layer, 0 where there is no MLP.
        d_vocab: tokens that are read; `d_out` that are predicted.
        has_attention: whether any layer has a head.
        caps_logits: whether logits become cap * tanh(logits / cap), as Gemma 2's do.
        is_ours: an MLP or our own Transformer; other models come through a bridge.
    """

    name: str
    kind: Kind
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    norm: str
    norm_position: str
    positions: str
    has_mlp: bool
    is_causal: bool
    has_unembed: bool
    has_attention: bool
    caps_logits: bool
    has_tokenizer: bool
    is_parallel: bool
    is_ours: bool
    d_out: int
    n_params: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def described(self) -> str:
        """The shape in a few words, for refusals."""
        if self.kind == "mlp":
            return f"{self.name} is a multilayer perceptron of {self.n_layers} layers"
        mlps = f"MLPs of {self.d_mlp} neurons" if self.has_mlp else "no MLPs"
        what = "an encoder" if self.kind == "encoder" else "a transformer"
        return (
            f"{self.name} is {what} of {self.n_layers} layers with {self.n_heads} heads, {mlps}, "
            f"norm {self.norm} ({self.norm_position}) and {self.positions} positions"
        )


def facts_of(model: Any) -> ModelFacts:
    """The shape of a loaded model; torch is not needed to ask."""
    return _of_perceptron(model) if hasattr(model.cfg, "widths") else _of_transformer(model)


def _of_perceptron(model: Any) -> ModelFacts:
    cfg = model.cfg
    return ModelFacts(
        name=model.name,
        kind="mlp",
        n_layers=cfg.n_layers,
        n_heads=0,
        d_model=max(cfg.widths),
        d_head=0,
        d_mlp=max(cfg.widths[1:-1], default=0),
        d_vocab=cfg.embedding or 0,
        n_ctx=0,
        norm="none",
        norm_position="pre",
        positions="none",
        has_mlp=True,
        is_causal=False,
        has_unembed=False,
        has_attention=False,
        caps_logits=False,
        has_tokenizer=False,
        is_parallel=False,
        is_ours=True,
        d_out=cfg.widths[-1],
        n_params=cfg.n_params,
    )


def _of_transformer(model: Any) -> ModelFacts:
    cfg = model.cfg
    heads = [model.n_heads_in(layer) for layer in range(cfg.n_layers)]
    first = next((layer for layer, count in enumerate(heads) if count), None)
    is_ours = hasattr(cfg, "order")
    d_mlp = cfg.d_mlp_or_default if is_ours else cfg.d_mlp
    return ModelFacts(
        name=model.name,
        kind="transformer" if cfg.causal else "encoder",
        n_layers=cfg.n_layers,
        n_heads=max(heads, default=0),
        d_model=cfg.d_model,
        d_head=0 if first is None else int(model.blocks[first].attn.W_Q.shape[-1]),
        d_mlp=0 if cfg.attn_only else int(d_mlp),
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
        norm=cfg.normalization_type or "none",
        norm_position=cfg.norm_position,
        positions=cfg.positions,
        has_mlp=not cfg.attn_only,
        is_causal=cfg.causal,
        has_unembed=cfg.d_out > 0,
        has_attention=first is not None,
        # Our own transformers never do, and their config has no word for it.
        caps_logits=bool(getattr(cfg, "logit_soft_cap", None)),
        has_tokenizer=model.tokenizer is not None,
        is_parallel=cfg.parallel,
        is_ours=is_ours,
        d_out=cfg.d_out,
        n_params=sum(weight.numel() for weight in model.parameters()),
    )

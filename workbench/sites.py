"""Places inside a transformer: heads, and the sites where activations can be read or edited.

The only maker and parser of hook names. Everything else speaks of `Site("pattern", 3)` and `Head(9, 6)`.
Names are TransformerLens' own (`blocks.3.attn.hook_pattern`), so a cache of either library fits.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from workbench.errors import SiteError


@dataclass(frozen=True, order=True)
class Head:
    """One attention head; prints as `layer.head`."""

    layer: int
    head: int

    def __post_init__(self) -> None:
        if self.layer < 0 or self.head < 0:
            raise SiteError(f"no head {self.layer}.{self.head}: layers and heads count from 0")

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"

    @classmethod
    def parse(cls, label: str) -> "Head":
        """Read a label such as `9.6`.

        Raises:
            SiteError: the label is not of the form `layer.head`.
        """
        match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", label, re.ASCII)
        if not match:
            raise SiteError(
                f"no head {label[:40]!r}: heads are written 'layer.head', for example '1.2'"
            )
        return cls(int(match[1]), int(match[2]))


class Kind(NamedTuple):
    """What is known of one kind of site: its hook name and the axes of its activation."""

    hook: str
    axes: tuple[str, ...]


_STREAM = ("batch", "pos", "d_model")
_PER_HEAD = ("batch", "pos", "head", "d_head")
_PER_KV_HEAD = ("batch", "pos", "kv_head", "d_head")
_PAIRS = ("batch", "head", "query", "key")
_NEURONS = ("batch", "pos", "neuron")
_SCALE = ("batch", "pos", "one")

KINDS: dict[str, Kind] = {
    "embed": Kind("hook_embed", _STREAM),
    "pos_embed": Kind("hook_pos_embed", _STREAM),
    "resid_pre": Kind("blocks.{layer}.hook_resid_pre", _STREAM),
    "ln1_scale": Kind("blocks.{layer}.ln1.hook_scale", _SCALE),
    "ln1_normalized": Kind("blocks.{layer}.ln1.hook_normalized", _STREAM),
    "q": Kind("blocks.{layer}.attn.hook_q", _PER_HEAD),
    "k": Kind("blocks.{layer}.attn.hook_k", _PER_KV_HEAD),
    "v": Kind("blocks.{layer}.attn.hook_v", _PER_KV_HEAD),
    "scores": Kind("blocks.{layer}.attn.hook_attn_scores", _PAIRS),
    "pattern": Kind("blocks.{layer}.attn.hook_pattern", _PAIRS),
    "z": Kind("blocks.{layer}.attn.hook_z", _PER_HEAD),
    "attn_out": Kind("blocks.{layer}.hook_attn_out", _STREAM),
    "resid_mid": Kind("blocks.{layer}.hook_resid_mid", _STREAM),
    "ln2_scale": Kind("blocks.{layer}.ln2.hook_scale", _SCALE),
    "ln2_normalized": Kind("blocks.{layer}.ln2.hook_normalized", _STREAM),
    "mlp_pre": Kind("blocks.{layer}.mlp.hook_pre", _NEURONS),
    "mlp_pre_linear": Kind("blocks.{layer}.mlp.hook_pre_linear", _NEURONS),
    "mlp_post": Kind("blocks.{layer}.mlp.hook_post", _NEURONS),
    "mlp_out": Kind("blocks.{layer}.hook_mlp_out", _STREAM),
    "resid_post": Kind("blocks.{layer}.hook_resid_post", _STREAM),
    "final_scale": Kind("ln_final.hook_scale", _SCALE),
    "final_normalized": Kind("ln_final.hook_normalized", _STREAM),
}
_GLOBAL = frozenset(kind for kind, known in KINDS.items() if "{layer}" not in known.hook)


@dataclass(frozen=True, order=True)
class Site:
    """One place where an activation can be read: a kind and, for most kinds, a layer.

    Raises:
        SiteError: an unknown kind, a missing layer, or a layer where there is none.
    """

    kind: str
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SiteError(f"no kind of site {self.kind[:40]!r}: there are {', '.join(KINDS)}")
        if self.kind in _GLOBAL and self.layer is not None:
            raise SiteError(f"{self.kind!r} is outside the layers: write Site({self.kind!r})")
        if self.kind not in _GLOBAL and (self.layer is None or self.layer < 0):
            raise SiteError(f"{self.kind!r} needs a layer: write Site({self.kind!r}, 0)")

    @property
    def hook(self) -> str:
        """The hook name, as TransformerLens writes it."""
        return KINDS[self.kind].hook.format(layer=self.layer)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axis words of the activation."""
        return KINDS[self.kind].axes

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read `pattern.3`, `embed`, or a full hook name.

        Raises:
            SiteError: neither a site's label nor a known hook name.
        """
        if match := re.fullmatch(r"(\w+)\.(\d{1,4})", text, re.ASCII):
            return cls(match[1], int(match[2]))
        for kind, known in KINDS.items():
            form = re.escape(known.hook).replace(r"\{layer\}", r"(\d{1,4})")
            if match := re.fullmatch(form, text, re.ASCII):
                return cls(kind, int(match[1]) if match.groups() else None)
        return cls(text)


def is_global(kind: str) -> bool:
    """Whether a kind of site stands outside the layers."""
    return kind in _GLOBAL


def expand(kinds: Iterable[str | Site], n_layers: int) -> list[Site]:
    """The sites meant by a mixed list: `"pattern"` is that kind in every layer, `"pattern.3"` one site.

    Raises:
        SiteError: an unknown kind, or a layer that the model does not have.
    """
    sites: dict[Site, None] = {}
    for item in kinds:
        if isinstance(item, str) and item in KINDS and not is_global(item):
            sites.update(dict.fromkeys(Site(item, layer) for layer in range(n_layers)))
            continue
        site = Site.parse(item) if isinstance(item, str) else item
        if site.layer is not None and site.layer >= n_layers:
            raise SiteError(f"no site {site}: this model's layers run from 0 to {n_layers - 1}")
        sites[site] = None
    return list(sites)

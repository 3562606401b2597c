"""Contributions against interventions: what a number loses when a component or a path is taken out.

    frozen      everything else held: the component's output, or the path's last message, is left out and the
                frozen network runs forward. It equals the contribution: the check of the bookkeeping.
    unfrozen    the model itself runs, with patterns, norms and gates recomputed. It need not.

A path is taken out by path patching: its message starts as the source; each component is run on the stream that
it reads minus the message, what its output loses by that is the message to the next, and what the last one
loses is taken from the stream where the question is asked. A message passes no other component on its way.
(Wang et al. 2023, "Interpretability in the Wild", §3.1 and appendix B; Goldowsky-Dill et al. 2023,
"Localizing Model Behavior with Path Patching".)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.protocol import HookFn
from workbench.paths.directions import Direction
from workbench.paths.feeds import Suffixes
from workbench.paths.network import FrozenNetwork
from workbench.paths.search import Path
from workbench.runs import Run, run
from workbench.sites import Site
from workbench.stream.parts import Part


@dataclass(frozen=True)
class Check:
    """One component or path: what the decomposition says, and what two interventions say.

    Args:
        contribution: its exact share of the number in the frozen network.
        frozen: what the number loses in the frozen network without it.
        unfrozen: what the model's own number loses, everything behind recomputed.
    """

    label: str
    unit: str
    contribution: float
    frozen: float
    unfrozen: float

    @property
    def error(self) -> float:
        """How far the frozen intervention is from the contribution: rounding alone."""
        return self.frozen - self.contribution

    @property
    def response(self) -> float:
        """What patterns, norms and gates change when they are recomputed: 0 in a linear model."""
        return self.unfrozen - self.frozen

    def table(self) -> pd.DataFrame:
        """Tidy, one row: label contribution frozen unfrozen error response unit."""
        row = {
            "label": self.label,
            "contribution": self.contribution,
            "frozen": self.frozen,
            "unfrozen": self.unfrozen,
            "error": self.error,
            "response": self.response,
            "unit": self.unit,
        }
        return pd.DataFrame([row])


def verify(frozen: FrozenNetwork, direction: Direction, what: Part | Path) -> Check:
    """A contribution, and what taking it out does: with everything else frozen, and in the model itself.

    Args:
        what: a head or an MLP, of which the part that depends on what it reads is taken out; or one path.

    Raises:
        ConfigError: a part that the model does not have, or a path that does not exist.
    """
    suffixes = Suffixes(frozen, direction)
    if isinstance(what, Path):
        suffix = suffixes.checked(what.components)
        source = suffixes.entered(what.source, suffix)
        lost = _lost_by_path(suffixes, what)
        level = len(suffixes.frozen.steps)
        message = _true_message(frozen, what, suffixes.sources[source], level)
        edit = (level_site(frozen, level), message)
        contribution = float(suffixes.by_token(source, suffix).sum())
    else:
        place = suffixes.checked([what])[0]
        lost = _lost_by_component(suffixes.frozen, direction, *place)
        edit = (_out_site(frozen, place[0]), frozen.written[place[0]][place[1]])
        contribution = _through(suffixes.frozen, direction, *place)
    one = _paired(frozen, *edit, direction.sites)
    unfrozen = direction.measure(one.row(0)) - direction.measure(one.row(1))
    return Check(what.label, direction.unit, contribution, lost, unfrozen)


def level_site(frozen: FrozenNetwork, level: int) -> Site:
    """Where the model holds a level of the stream that is read."""
    if level == len(frozen.steps):
        last = frozen.model.cfg.n_layers - 1
        return Site("resid_post", last) if frozen.steps else Site("embed")
    step = frozen.steps[level]
    follows = level > 0 and frozen.steps[level - 1].sublayer.layer == step.sublayer.layer
    return Site("resid_mid" if follows else "resid_pre", step.sublayer.layer)


def _out_site(frozen: FrozenNetwork, step: int) -> Site:
    """Where the model holds what a step adds."""
    chosen = frozen.steps[step]
    return Site("attn_out" if chosen.kind == "attn" else "mlp_out", chosen.sublayer.layer)


def _through(frozen: FrozenNetwork, direction: Direction, step: int, place: int) -> float:
    """All paths through a component, from one pass back to it."""
    vector, norm = frozen.behind(direction.vector, step), frozen.steps[step].norm
    vector = vector if norm is None else norm.transpose(vector)
    return float((vector.double() * frozen.written[step][place].double()).sum())


def _lost_by_component(frozen: FrozenNetwork, direction: Direction, step: int, place: int) -> float:
    """What the number loses when the frozen network runs forward without a component's output."""
    with_it, without = list(frozen.levels[: step + 1]), list(frozen.levels[: step + 1])
    for index in range(step, len(frozen.steps)):
        here = frozen.steps[index]
        for levels in (with_it, without):
            x = levels[-1] + here.sublayer.apply(levels[here.reads]) + here.sublayer.constant
            if index == step and levels is without:
                x = x - here.sublayer.parts(levels[here.reads])[place]
            levels.append(x if here.norm is None else here.norm.apply(x) + here.norm.bias)
    lost = with_it[-1].double() - without[-1].double()
    return float((direction.vector.double() * lost).sum())


def _lost_by_path(suffixes: Suffixes, path: Path) -> float:
    """The source carried forwards through one frozen map after the other."""
    frozen = suffixes.frozen
    message, since = suffixes.vectors[path.source], suffixes.sources[path.source]
    for component in path.components:
        step, place = suffixes.components[component]
        read = frozen.past(message, since, frozen.steps[step].reads)
        message, since = frozen.steps[step].sublayer.parts(read)[place], step
    end = frozen.past(message, since, len(frozen.steps))
    return float((suffixes.direction.vector.double() * end.double()).sum())


def _true_message(
    frozen: FrozenNetwork, path: Path, since: int, level: int
) -> Float[Tensor, "pos d_model"]:
    """What arrives of a path at a level when the model itself computes every link."""
    message = ({**frozen.sources, **frozen.constants})[path.source]
    for component in path.components:
        step, place = frozen.place(component)
        reads = frozen.steps[step].reads
        message = _true_past(frozen, message, since, reads)
        message = _answer(frozen, message, reads, step, place)
        since = step
    return _true_past(frozen, message, since, level)


def _answer(
    frozen: FrozenNetwork,
    message: Float[Tensor, "pos d_model"],
    reads: int,
    step: int,
    place: int,
) -> Float[Tensor, "pos d_model"]:
    """What a component's output loses when it reads the stream without a message."""
    chosen = frozen.steps[step]
    layer = chosen.sublayer.layer
    site = Site("z" if chosen.kind == "attn" else "mlp_out", layer)
    both = _paired(frozen, level_site(frozen, reads), message, [site])[site]
    if chosen.kind == "attn":
        both = _head_written(frozen.model.blocks[layer], both, place)
    return both[0] - both[1]


def _head_written(
    block: Any, z: Float[Tensor, "pair pos head d_head"], head: int
) -> Float[Tensor, "pair pos d_model"]:
    """What one head adds to the stream, in both runs: behind the norm of the output where there is one."""
    W_O = block.attn.W_O.detach()
    written = z[:, :, head] @ W_O[head]
    norm = getattr(block, "ln1_post", None)
    if norm is None:
        return written
    whole = torch.einsum("iphd,hdm->ipm", z, W_O) + block.attn.b_O.detach()
    scale = (whole.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    return written / scale * norm.w.detach()


def _true_past(
    frozen: FrozenNetwork, message: Float[Tensor, "pos d_model"], since: int, level: int
) -> Float[Tensor, "pos d_model"]:
    """A message past all components, through the norms of sums as the model computes them without it."""
    if all(step.norm is None for step in frozen.steps[since:level]):
        return message
    while since < level:
        # The MLP of a parallel block does not read the level before it, and no site holds that.
        following = since + 1
        while following < level and frozen.steps[following].reads != following:
            following += 1
        site = level_site(frozen, following)
        both = _paired(frozen, _out_site(frozen, since), message, [site])[site]
        message, since = both[0] - both[1], following
    return message


def _paired(
    frozen: FrozenNetwork,
    site: Site,
    message: Float[Tensor, "pos d_model"],
    sites: Sequence[Site],
) -> Run:
    """The prompt twice in one pass, the second time with a message taken from a site."""

    def without(activation: Tensor, hook: Any) -> Tensor:
        return torch.stack([activation[0], activation[1] - message])

    model = frozen.model
    hooks: list[tuple[str, HookFn]] = [(model.site_hook(site), without)]
    with model.lock, model.hooks(hooks):
        return run(model, frozen.run.tokens.repeat(2, 1), sites=list(sites), budget="8GB")

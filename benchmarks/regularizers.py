"""What regularizers cost a training step, and swaps against those of the paper.

    python -m benchmarks.regularizers

A step is forward, loss, backward, clipping and AdamW, on new random data each time; with a penalty it is the
same step of the same network plus that penalty (and what follows the step, for decay). A round of swaps comes
every 200 steps, as published, and is spread over them.

The published swaps (Liu, Gan, Tegmark 2023, and its code) are written out below as the peer: for the `top_k`
neurons of each layer with most weight, change places with every neuron of the layer in turn, and evaluate the
whole cost each time. It is spared what costs the paper's code time besides: distances are computed once, and
nothing is recorded for gradients.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Ratio, interleaved, report
from workbench.errors import DivergedError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.layouts import Layout, grid_layout, line_layout
from workbench.training.loop import keep_freed_memory
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.optimizers import optimizers_for
from workbench.training.recipes import recipe
from workbench.training.regularizers.clusterability import Clusterability
from workbench.training.regularizers.decay import WeightDecay
from workbench.training.regularizers.decorrelation import HeadDecorrelation
from workbench.training.regularizers.group_lasso import HeadLasso, UnitLasso
from workbench.training.regularizers.l1 import L1
from workbench.training.regularizers.ordering import ChannelCost, NestedDropout
from workbench.training.regularizers.swaps import Method, Swaps
from workbench.training.regularizers.wiring import WiringLength, wiring_length
from workbench.training.shaping import Shaping
from workbench.training.wires import Network, wires

STRENGTH, EVERY, TOP_K = 1e-5, 200, 30
WIRING = "wiring"


@dataclass(frozen=True, eq=False)
class Case:
    """A network to train and how many rows a step reads."""

    name: str
    make: Callable[[], Network]
    n_rows: int

    @cached_property
    def layout(self) -> Layout:
        """Lines, as published for all but images."""
        return line_layout(self.make())

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, new ones in each call."""
        model = self.sample
        if isinstance(model, MLP):
            widths = model.cfg.widths
            return torch.randn(self.n_rows, widths[0]), torch.randn(self.n_rows, widths[-1])
        tokens, targets = torch.randint(model.cfg.d_vocab, (2, self.n_rows, model.cfg.n_ctx))
        return tokens, targets

    @cached_property
    def sample(self) -> Network:
        """One of these networks, for its shape."""
        return self.make()

    def loss(self, model: Network) -> Tensor:
        """Of a new batch."""
        inputs, targets = self.batch()
        outputs = model(inputs)
        if isinstance(model, MLP):
            return F.mse_loss(outputs, targets)
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def mlp(*widths: int) -> Callable[[], MLP]:
    """Makes a perceptron."""
    return lambda: MLP(MLPConfig(widths=widths))


def bundled(name: str) -> Callable[[], Transformer]:
    """Makes an untrained network of a bundled model's shape."""
    return lambda: Transformer(TransformerConfig(**recipe(name).shape))


CASES = (
    Case("MLP 4-20-20-2", mlp(4, 20, 20, 2), 100),
    Case("MLP 64-100-100-10", mlp(64, 100, 100, 10), 100),
    Case("induction-2l", bundled("induction-2l"), 64),
    Case("attn-2l", bundled("attn-2l"), 8),
)


def shapings(case: Case) -> dict[str, Shaping]:
    """Every regularizer that this network can have, by its name."""
    is_mlp = isinstance(case.sample, MLP)
    names = ("layers.*.W",) if is_mlp else ("blocks.*.attn.W_O", "blocks.*.attn.W_V")
    found = {
        WIRING: WiringLength(layout=case.layout, strength=STRENGTH),
        "L1": L1(strength=STRENGTH),
        "unit lasso": UnitLasso(strength=STRENGTH),
        "channel cost": ChannelCost(strength=STRENGTH),
        "clusterability": Clusterability(strength=STRENGTH, clusters=2, names=names),
        "nested dropout": NestedDropout(
            strength=STRENGTH, loss=lambda model, step: case.loss(model)
        ),
        "decay as a penalty": WeightDecay(strength=STRENGTH, rates={"*": 1.0}),
    }
    if not is_mlp:
        found["head lasso"] = HeadLasso(strength=STRENGTH)
        found["decorrelation"] = HeadDecorrelation(
            strength=STRENGTH, tokens=lambda step: case.batch()[0]
        )
    decay = Shaping(decay=WeightDecay(strength=STRENGTH, rates={"*": 1.0}))
    return {name: Shaping(penalties={name: penalty}) for name, penalty in found.items()} | {
        "decay, decoupled": decay
    }


def stepper(case: Case, shaping: Shaping) -> Callable[[], None]:
    """One whole training step, as the loop takes it."""
    model = case.make().train()
    optimizers = optimizers_for(model, TrainingConfig(steps=1000, muon_lr=None))
    steps = iter(range(10**9))

    def step() -> None:
        number = next(steps)
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss = case.loss(model)
        for penalty in shaping.penalties.values():
            loss = loss + penalty(model, number)
        if not math.isfinite(float(loss.detach())):
            raise DivergedError(f"the loss of {case.name} is not finite")
        loss.backward()
        weights = list(model.parameters())
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights])  # type: ignore[misc]
        if not math.isfinite(float(norm)):
            raise DivergedError(f"the gradient of {case.name} is not finite")
        torch.nn.utils.clip_grads_with_norm_(weights, 1.0, norm)
        for optimizer in optimizers.values():
            optimizer.step()
        shaping.after(model, optimizers, number, 1e-3)

    return step


def many(step: Callable[[], None], times: int) -> Callable[[], None]:
    """Several steps at once: one of a small network is too short for the clock."""

    def run() -> None:
        for _ in range(times):
            step()

    return run


def round_ms(case: Case) -> float:
    """CPU milliseconds of one round of swaps over a network as it starts, moments and all."""
    taken = []
    for _ in range(3):
        model = case.make()
        optimizers = optimizers_for(model, TrainingConfig(steps=1000, muon_lr=None))
        case.loss(model).backward()
        for optimizer in optimizers.values():
            optimizer.step()
        swaps = Swaps(layout=case.layout, every=EVERY)
        taken.append(seconds(lambda s=swaps, m=model, o=optimizers: s(m, o.values())))  # type: ignore[misc]
    return min(taken) * 1e3


def step_costs(case: Case) -> dict[str, Ratio]:
    """Ratio to the plain step, by regularizer."""
    times, rounds = (20, 15) if isinstance(case.sample, MLP) else (1, 7)
    plain, found = many(stepper(case, Shaping()), times), {}
    for name, shaping in shapings(case).items():
        ours = many(stepper(case, shaping), times)
        ratio = interleaved(ours, plain, rounds=rounds, tries=2)
        found[name] = ratio._replace(peer_ms=ratio.peer_ms / times)
        if name == WIRING:
            added = round_ms(case) / EVERY / found[name].peer_ms
            found["wiring + swaps"] = Ratio(
                *(part + added for part in ratio[:3]), found[name].peer_ms
            )
    return found


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


class Published:
    """The paper's swaps on the weights of an MLP."""

    def __init__(self, model: MLP, layout: Layout, fixed: tuple[str, ...]) -> None:
        blocks = wires(model)
        self.weights = [block.weight.detach().clone() for block in blocks]
        distances = [layout.distances(block) for block in blocks]
        self.distances = [each.float() for each in distances if each is not None]
        names = [blocks[0].source, *(block.target for block in blocks)]
        self.layers = [index for index, name in enumerate(names) if name not in fixed]

    def cost(self) -> Tensor:
        """`get_cc`: the length of all wires."""
        pairs = zip(self.weights, self.distances, strict=True)
        return torch.stack([(weight.abs() * length).sum() for weight, length in pairs]).sum()

    def swap(self, layer: int, j: int, k: int) -> None:
        """Two neurons change places."""
        if layer > 0:
            into = self.weights[layer - 1]
            into[:, [j, k]] = into[:, [k, j]]
        if layer < len(self.weights):
            out = self.weights[layer]
            out[[j, k]] = out[[k, j]]

    def relocate(self, layer: int, top_k: int) -> None:
        """Each of the heaviest in turn takes the place that makes the whole cost least."""
        sizes = [self.weights[layer].abs().sum(1)] if layer < len(self.weights) else []
        sizes += [self.weights[layer - 1].abs().sum(0)] if layer > 0 else []
        weight = torch.stack(sizes).sum(0)
        for j in weight.argsort(descending=True)[:top_k].tolist():
            costs = []
            for k in range(len(weight)):
                self.swap(layer, j, k)
                costs.append(self.cost())
                self.swap(layer, j, k)
            self.swap(layer, j, int(torch.stack(costs).argmin()))

    def __call__(self, top_k: int) -> None:
        """One round over all layers that may move."""
        for layer in self.layers:
            self.relocate(layer, top_k)


METHODS: tuple[Method, ...] = ("assignment", "greedy")
IMAGES = "784-100-100-10"
SHAPES = {"4-20-20-2": 5, "64-50-50-59": TOP_K, "64-100-100-10": TOP_K, IMAGES: TOP_K}
"""Widths, and how many neurons of a layer the paper tries to place."""


def swap_line(shape: str, top_k: int) -> tuple[dict[str, float], dict[str, float], float]:
    """Seconds (the fastest of a few) and reached wiring of one round from the same weights; wiring before."""
    make = mlp(*map(int, shape.split("-")))
    is_images = shape == IMAGES
    layout = grid_layout(make(), rings=("outputs",)) if is_images else line_layout(make())
    # Pixels stay where they are, as published.
    fixed = ("inputs",) if is_images else ()
    taken: dict[str, float] = {}
    reached: dict[str, float] = {}
    for method in METHODS:
        swaps = Swaps(layout=layout, method=method, top_k=top_k, fixed=fixed)
        models = [make() for _ in range(7)]
        taken[method] = min(seconds(lambda s=swaps, m=model: s(m)) for model in models)  # type: ignore[misc]
        reached[method] = wiring_length(models[0], layout)
    peers = [Published(make(), layout, fixed) for _ in range(2)]
    taken["published"] = min(seconds(lambda p=peer: p(top_k)) for peer in peers)  # type: ignore[misc]
    reached["published"] = float(peers[0].cost())
    return taken, reached, wiring_length(make(), layout)


def main() -> None:
    """Print a line per network and regularizer, then per shape of the swaps."""
    torch.set_num_threads(1)
    keep_freed_memory()
    for case in CASES:
        for name, ratio in step_costs(case).items():
            goal = "1.25x" if name == "wiring + swaps" else "-"
            report(goal, f"{case.name}: step with {name} against plain", ratio)
    for shape, top_k in SHAPES.items():
        taken, reached, before = swap_line(shape, top_k)
        for method, goal in zip(METHODS, ("20x", "-"), strict=True):
            times = f"{taken['published'] / taken[method]:.0f}x  ({taken[method] * 1e3:.1f} ms)"
            report(goal, f"swaps of {shape}: {method}, faster than published by", times)
        lengths = ", ".join(f"{name} {length:.4g}" for name, length in reached.items())
        report("-", f"swaps of {shape}: wiring {before:.4g} becomes", lengths)


if __name__ == "__main__":
    main()

"""Models as a batch names them, with a hash of their files that needs no torch.

    attn-2l          a name of `workbench models`            attn-2l@500    its checkpoint of that step
    attn-2l@*        all its checkpoints, then the final one    runs/mine      a folder or a file
    runs/*/          every model folder that fits

Folders of our transformers, of multilayer perceptrons, of Hugging Face; files of GPTs and GGUF.
"""

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from probes.facts import ModelFacts, facts_of
from workbench.errors import CheckpointError, UnknownModelError
from workbench.models import catalog
from workbench.models.files import checkpoint_steps, read_json, step_name

MAX_SOURCES = 10_000
# What a model folder holds beside the model: none of it changes what the model does.
_BESIDE = re.compile(
    r"\..*|.*\.(jsonl|md|png|html)|card\.json|run\.json|report\.json|LICENSE.*|README.*"
)
_OURS, _MLP = "workbench-transformer-1", "workbench-mlp-1"


@dataclass(frozen=True)
class ModelSource:
    """One model, not loaded yet.

    Args:
        name: what `workbench.load` takes.
        step: a checkpoint of its training, None for the final weights.
        label: under which its results are listed; differs from every other's in a batch.
    """

    name: str
    step: int | None = None
    label: str = ""

    @property
    def spec(self) -> str:
        """As it is written."""
        return self.name if self.step is None else f"{self.name}@{self.step}"

    @cached_property
    def hash(self) -> str:
        """Equal for equal files, wherever they are; 16 hexadecimal digits.

        The final weights and a checkpoint that holds the same are one model.

        Raises:
            CheckpointError: a file cannot be read.
        """
        digest = hashlib.blake2b(digest_size=8)
        # A checkpoint's weights lie elsewhere than the final ones, and must not come in another order.
        for name, path in sorted(self._files()):
            try:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").digest()
            except OSError as error:
                raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + content)
        return digest.hexdigest()

    @cached_property
    def place(self) -> Path:
        """The folder or file that holds it.

        Raises:
            UnknownModelError: nothing of that name.
        """
        return _place(self.name)

    def _files(self) -> Iterator[tuple[str, Path]]:
        """What the model is read from, each under a name that does not depend on where it is."""
        if self.place.is_file():
            yield "weights", self.place
            beside = self.place.parent
            for name in ("config.json", "tokenizer.json"):
                if (beside / name).is_file():
                    yield name, beside / name
            return
        paths = sorted(path for path in self.place.iterdir() if path.is_file())
        for path in paths:
            is_weights = path.name == "model.safetensors"
            if not _BESIDE.fullmatch(path.name) and not (is_weights and self.step is not None):
                yield path.name, path
        if self.step is not None:
            yield "model.safetensors", self.place / "checkpoints" / step_name(self.step)

    @property
    def format(self) -> str:
        """What its config calls itself; "" for models of others."""
        if not (self.place / "config.json").is_file():
            return ""
        return str(read_json(self.place / "config.json").get("format", ""))

    def load(self) -> Any:
        """The model, ready to run; float32 on the CPU unless it was saved otherwise.

        Raises:
            UnknownModelError: nothing of that name.
            CheckpointError: a file that is broken, or a step that is not there.
        """
        if self.format == _MLP:
            from workbench.training.mlp import load_mlp

            return load_mlp(self.place)
        import workbench

        return workbench.load(self.name, step=self.step)

    def facts(self) -> ModelFacts:
        """Its shape: from the config alone where that says all, else by loading it."""
        if self.format == _OURS:
            return _facts_of_ours(self.place)
        return facts_of(self.load())


def _facts_of_ours(folder: Path) -> ModelFacts:
    import torch

    from workbench.models.checkpoints import read_config
    from workbench.models.tokenizer import Tokenizer
    from workbench.models.transformer import Transformer

    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(path) if path.is_file() else None
    with torch.device("meta"):
        model = Transformer(read_config(folder / "config.json"), tokenizer, name=folder.name)
    return facts_of(model)


def load_source(spec: str) -> ModelSource:
    """One model from its spec.

    Raises:
        UnknownModelError: nothing of that name, or more than one model.
    """
    found = read_sources([spec])
    if len(found) != 1:
        raise UnknownModelError(f"{spec[:60]!r} stands for {len(found)} models: name one")
    return found[0]


def read_sources(specs: Sequence[str]) -> tuple[ModelSource, ...]:
    """The models that these specs stand for, in order, each once, each under a label of its own.

    Raises:
        UnknownModelError: a spec that stands for nothing.
        CheckpointError: a step that a model does not keep.
    """
    found: dict[tuple[str, int | None], ModelSource] = {}
    for spec in specs:
        for source in _expanded(spec.strip()):
            found.setdefault((str(source.place.resolve()), source.step), source)
            if len(found) > MAX_SOURCES:
                raise UnknownModelError(f"over {MAX_SOURCES:,} models: name fewer")
    if not found:
        raise UnknownModelError(f"no models: {catalog.suggestion('')}")
    return _labelled(list(found.values()))


def _labelled(sources: list[ModelSource]) -> tuple[ModelSource, ...]:
    """Short labels where they tell models apart, whole paths where they would not."""
    short = [_label(source, Path(source.name).name) for source in sources]
    taken = Counter(short)
    return tuple(
        replace(source, label=label if taken[label] == 1 else _label(source, source.name))
        for source, label in zip(sources, short, strict=True)
    )


def _label(source: ModelSource, name: str) -> str:
    return name if source.step is None else f"{name}@{source.step}"


def _expanded(spec: str) -> Iterator[ModelSource]:
    checked = catalog.checked_name(spec)
    name, at, step = checked.rpartition("@")
    # A folder may have an @ in its name.
    if not at or catalog.existing_path(checked) is not None:
        yield from (ModelSource(place) for place in _named(checked))
        return
    for place in _named(name):
        yield from _steps(place, step)


def _named(name: str) -> list[str]:
    """The name itself, or the model folders that fit a pattern."""
    if not glob.has_magic(name) or catalog.existing_path(name) is not None:
        _place(name)
        return [name]
    pattern = Path(name).expanduser()
    root = Path(pattern.anchor)
    try:
        fitting = sorted(root.glob(str(pattern.relative_to(root))))
    except (OSError, ValueError, NotImplementedError) as error:
        raise UnknownModelError(f"{name[:60]!r} is no pattern of folders: {error}") from error
    found = [str(path) for path in fitting if (path / "config.json").is_file()]
    if not found:
        raise UnknownModelError(
            f"no model folder fits {name[:60]!r}: {len(fitting)} paths do, none with a config.json"
        )
    return found


def _steps(name: str, step: str) -> Iterator[ModelSource]:
    steps = checkpoint_steps(_place(name))
    if step == "*":
        if not steps:
            raise CheckpointError(f"{name} keeps no checkpoints of its training: leave out @*")
        yield from (ModelSource(name, kept) for kept in steps)
        yield ModelSource(name)
    elif not step.isascii() or not step.isdigit() or int(step) not in steps:
        kept = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(
            f"{name} has no checkpoint {step[:20]!r}: there are {kept}; @* means all of them"
        )
    else:
        yield ModelSource(name, int(step))


def _place(name: str) -> Path:
    folder = catalog.bundled_folder(name)
    if folder is not None:
        return folder
    if name in catalog.PACKAGES:
        return catalog.package_weights(name)
    path = catalog.existing_path(name)
    if path is None:
        raise UnknownModelError(f"no model {name[:60]!r}. {catalog.suggestion(name)}")
    return path

"""Kills the processes of a batch at random moments; what they leave must be whole, and the end the same.

    python -m tests.probes.crash --rounds 20          prints one line a round; ends with code 1 at a difference
    python -m tests.probes.crash --rounds 5 --real    the same of `workbench report` itself, with real probes

A round starts a batch in a fresh folder and, `--blows` times, kills its parent or one of its workers with
SIGKILL, or stops the parent as Ctrl-C does; the real command is also killed while it writes its report. Then
the batch is run to its end. Its tables, and the real one's findings, must be those of an undisturbed run, byte
for byte; nothing half-written may be left, and no worker may outlive its parent.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from probes.contract import silent
from probes.data import ProbeData
from probes.engine import Limits, run_plan
from probes.plan import Asked, Plan, make_plan
from probes.running import LoadedModel, run_job
from probes.sources import read_sources
from probes.store import Store
from tests.probes.planted import letters_seen, size_of_weights

DOCUMENTS = tuple("abcdefghijklmnop"[n:] * 8 for n in range(8))
N_MODELS = 3
PATIENCE = 240
WORKERS = int(os.environ.get("CRASH_WORKERS", "2"))
# One that reads weights and one that reads data.
REAL_PROBES = ("copying-eigenvalues", "residual-norms")
FINDINGS, PAGE = "findings.parquet", "report.html"


@dataclass(frozen=True)
class Kind:
    """What is disturbed.

    Args:
        n_models: each is asked two probes.
        store: where in its folder a batch keeps its results.
        blows: what it is done to; "writing" waits for the report's first file.
    """

    n_models: int
    store: str
    blows: tuple[str, ...]

    @property
    def is_real(self):
        return self is REAL

    def command(self, root, folder):
        if not self.is_real:
            models = str(root / "models")
            return [sys.executable, "-m", "tests.probes.crash", "--batch", models, str(folder)]
        words = ["report", "--models", f"{root / 'models'}/*/", "--probes", ",".join(REAL_PROBES)]
        words += ["--data", str(root / "letters.jsonl"), "--out", str(folder)]
        words += ["--workers", str(WORKERS), "--memory", "8GB"]
        return [sys.executable, "-c", "from app.cli import main; main()", *words]

    def files(self, folder):
        """The bytes of all that must come out equal, by name; what is still being written is not there."""
        found = tables(folder / self.store)
        path = folder / FINDINGS  # the page tells times too, which are never the same
        return found | ({FINDINGS: path.read_bytes()} if path.is_file() else {})


PLANTED = Kind(N_MODELS, ".", ("parent", "worker", "ctrl-c"))
REAL = Kind(2, "store", ("parent", "worker", "ctrl-c", "writing"))


def make_models(root, n_models=N_MODELS):
    """A few tiny transformers over letters, in folders."""
    import torch

    from tests.conftest import letters
    from workbench.models.checkpoints import save_checkpoint
    from workbench.models.config import TransformerConfig
    from workbench.models.transformer import Transformer

    for seed in range(n_models):
        config = TransformerConfig(order="ss", d_model=16, n_heads=2, d_vocab=18, n_ctx=32)
        with torch.no_grad():
            save_checkpoint(
                Transformer(config, letters(), name=f"m{seed}", seed=seed), root / f"m{seed}"
            )


def plan_of(models, store) -> Plan:
    """Two probes of every model."""
    sources = read_sources([f"{models}/*/"])
    data = ProbeData(DOCUMENTS, "letters")
    probes = (size_of_weights.PROBE, letters_seen.PROBE)
    return make_plan(Asked(sources, probes, data, {}), store)


def run_batch(models, folder):
    """What the parent process does; Ctrl-C ends it with code 130."""
    store = Store(folder)
    try:
        run_plan(plan_of(models, store), store, Limits(workers=WORKERS, memory="8GB"))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def start(kind, root, folder):
    """The parent, in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PLANTED_PAUSE": "0.02", "PYTHONPATH": path}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} if kind.is_real else {}
    return subprocess.Popen(kind.command(root, folder), env=env, **quiet)


def children(pid):
    """The processes that a process has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(one) for one in path.read_text().split()]
    except OSError:
        return []


def is_alive(pid):
    """Whether a process runs; one that is dead and not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def tables(folder):
    """The bytes of every table by its name; what is still being written is none, and may be gone at once."""
    return {path.name: path.read_bytes() for path in Path(folder).glob("[!.]*.parquet")}


def undisturbed(root, kind=PLANTED):
    """Make the models, and the files of a calm run; planted jobs one after another in this process."""
    make_models(root / "models", kind.n_models)
    if kind.is_real:
        (root / "letters.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
        assert start(kind, root, root / "calm").wait(PATIENCE) == 0
        return kind.files(root / "calm")
    store = Store(root / "calm")
    plan = plan_of(root / "models", store)
    for job in plan.jobs:
        record, table = run_job(job, plan.data, LoadedModel(), silent)
        assert record.status == "ok", record.error
        store.save(record, table)
    return kind.files(store.folder)


def one_round(root, expected, rng, blows, kind=PLANTED):
    """A disturbed run; returns what was done to it.

    Raises:
        AssertionError: something was lost, left half-written, changed, or lived on.
    """
    folder = Path(tempfile.mkdtemp(dir=root))
    shutil.copytree(root / "calm" / kind.store / "facts", folder / kind.store / "facts")
    done = []
    for _ in range(blows):
        parent = start(kind, root, folder)
        done.append(strike(kind, parent, folder, rng))
        check_whole(kind, folder, expected)
    assert start(kind, root, folder).wait(PATIENCE) in (0, 1 if kind.is_real else None)
    if not all(
        record is not None and record.status == "ok"
        for _, record in Store(folder / kind.store).records()
    ):
        # A job whose worker was killed twice has failed; the next run asks it again.
        assert start(kind, root, folder).wait(PATIENCE) == 0
    assert kind.files(folder) == expected, "the end is not that of an undisturbed run"
    assert not kind.is_real or (folder / PAGE).is_file(), "there is no page"
    left = [path.name for path in folder.rglob(".saving-*")]
    assert not left, f"something half-written was left: {left}"
    shutil.rmtree(folder)
    return done


def strike(kind, parent, folder, rng):
    """One blow at a random moment; then the parent is gone, or has come to its end."""
    blow = rng.choice(kind.blows)
    if blow == "writing":
        before = written(folder)
        while written(folder) == before and parent.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 1))
    else:
        awaited = len(tables(folder / kind.store)) + rng.randint(0, kind.n_models)
        while len(tables(folder / kind.store)) < awaited and parent.poll() is None:
            time.sleep(0.005)
        # While it starts, or while a job is in hand: a planted one takes about a fifth of a second.
        time.sleep(rng.uniform(0, 0.3))
    workers = children(parent.pid)
    if blow == "worker" and workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
        parent.wait(PATIENCE)
    elif blow == "ctrl-c":
        parent.send_signal(signal.SIGINT)
        parent.wait(PATIENCE)
    else:
        parent.kill()
        parent.wait()
    end = time.monotonic() + 30
    while any(is_alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(is_alive(pid) for pid in workers), "a worker outlived its parent"
    return blow


def written(folder):
    """The report's files, finished or not, as they are now."""
    found = set()
    for path in folder.glob("*.*"):
        try:
            found.add((path.name, path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue  # it has just got its name
    return found


def check_whole(kind, folder, expected):
    """Whatever says that it is done is done, and right."""
    store = Store(folder / kind.store)
    for path in store.folder.glob("*.json"):
        record = store.record(path.stem) if path.name != "plan.json" else None
        if record is not None and record.status == "ok":
            name = f"{record.key}.parquet"
            here = store.table_path(record.key).read_bytes()
            assert here == expected[name], f"{name} is not as it should be"
    findings, page = folder / FINDINGS, folder / PAGE
    assert not findings.is_file() or findings.read_bytes() == expected[FINDINGS], "other findings"
    assert not page.is_file() or page.read_text().rstrip().endswith("</html>"), "half a page"


def main():
    """Rounds until the number that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--blows", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="the command itself, real probes")
    parser.add_argument("--batch", nargs=2, help="models and folder: be the parent")
    asked = parser.parse_args()
    if asked.batch:
        run_batch(*asked.batch)
        return
    rng, kind = random.Random(asked.seed), REAL if asked.real else PLANTED
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        expected = undisturbed(root, kind)
        for number in range(asked.rounds):
            done = one_round(root, expected, rng, asked.blows, kind)
            print(f"round {number + 1}: {', '.join(done)}; {len(expected)} files equal", flush=True)


if __name__ == "__main__":
    main()

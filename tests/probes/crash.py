"""Kills the processes of a batch at random moments; what they leave must be whole, and the end the same.

    python -m tests.probes.crash --rounds 20          prints one line a round; ends with code 1 at a difference

A round starts a batch in a fresh folder and, `--blows` times, kills its parent or one of its workers with
SIGKILL, or stops the parent as Ctrl-C does; then the batch is run to its end. Its tables must be those of an
undisturbed run, byte for byte; nothing half-written may be left, and no worker may outlive its parent.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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


def make_models(root):
    """A few tiny transformers over letters, in folders."""
    import torch

    from tests.conftest import letters
    from workbench.models.checkpoints import save_checkpoint
    from workbench.models.config import TransformerConfig
    from workbench.models.transformer import Transformer

    for seed in range(N_MODELS):
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


def start(models, folder):
    """The parent, in a process of its own."""
    command = [sys.executable, "-m", "tests.probes.crash", "--batch", str(models), str(folder)]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PLANTED_PAUSE": "0.02", "PYTHONPATH": path}
    return subprocess.Popen(command, env=env)


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


def undisturbed(root):
    """Make the models, and the tables of every job, run one after another in this process."""
    make_models(root / "models")
    store = Store(root / "calm")
    plan = plan_of(root / "models", store)
    for job in plan.jobs:
        record, table = run_job(job, plan.data, LoadedModel(), silent)
        assert record.status == "ok", record.error
        store.save(record, table)
    return tables(store.folder)


def one_round(root, expected, rng, blows):
    """A disturbed run; returns what was done to it.

    Raises:
        AssertionError: something was lost, left half-written, changed, or lived on.
    """
    folder = Path(tempfile.mkdtemp(dir=root))
    shutil.copytree(root / "calm" / "facts", folder / "facts")
    done = []
    for _ in range(blows):
        parent = start(root / "models", folder)
        done.append(strike(parent, folder, rng))
        check_whole(folder, expected)
    assert start(root / "models", folder).wait(PATIENCE) in (0, None)
    if not all(
        record is not None and record.status == "ok" for _, record in Store(folder).records()
    ):
        # A job whose worker was killed twice has failed; the next run asks it again.
        assert start(root / "models", folder).wait(PATIENCE) == 0
    assert tables(folder) == expected, "the tables are not those of an undisturbed run"
    assert not list(folder.glob(".saving-*")), "something half-written was left"
    shutil.rmtree(folder)
    return done


def strike(parent, folder, rng):
    """One blow at a random moment; then the parent is gone, or has come to its end."""
    awaited = len(tables(folder)) + rng.randint(0, N_MODELS)
    while len(tables(folder)) < awaited and parent.poll() is None:
        time.sleep(0.005)
    # While it starts, or while a job is in hand: a planted one takes about a fifth of a second.
    time.sleep(rng.uniform(0, 0.3))
    workers = children(parent.pid)
    kind = rng.choice(["parent", "worker", "ctrl-c"])
    if kind == "worker" and workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
        parent.wait(PATIENCE)
    elif kind == "ctrl-c":
        parent.send_signal(signal.SIGINT)
        parent.wait(PATIENCE)
    else:
        parent.kill()
        parent.wait()
    end = time.monotonic() + 30
    while any(is_alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(is_alive(pid) for pid in workers), "a worker outlived its parent"
    return kind


def check_whole(folder, expected):
    """Whatever says that it is done is done, and right."""
    store = Store(folder)
    for path in folder.glob("*.json"):
        record = store.record(path.stem) if path.name != "plan.json" else None
        if record is not None and record.status == "ok":
            name = f"{record.key}.parquet"
            assert (folder / name).read_bytes() == expected[name], f"{name} is not as it should be"


def main():
    """Rounds until the number that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--blows", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", nargs=2, help="models and folder: be the parent")
    asked = parser.parse_args()
    if asked.batch:
        run_batch(*asked.batch)
        return
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        expected = undisturbed(root)
        for number in range(asked.rounds):
            done = one_round(root, expected, rng, asked.blows)
            print(
                f"round {number + 1}: {', '.join(done)}; {len(expected)} tables equal", flush=True
            )


if __name__ == "__main__":
    main()

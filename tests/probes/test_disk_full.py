"""Writers that really cannot write: files may not grow beyond a limit, in this process and in its workers."""

import json
import resource
from contextlib import contextmanager

import pytest

PROBES = ("residual-norms", "copying-eigenvalues")
SETTINGS = ("residual-norms.n_prompts=4", "residual-norms.n_tokens=16", "residual-norms.n_draws=9")


@contextmanager
def file_limit(n_bytes):
    """No file may grow beyond `n_bytes`: a write fails as on a full disk, and processes inherit that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def letters_file(letter_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "letters.jsonl"
    path.write_text("\n".join(map(json.dumps, letter_data.documents)))
    return path


@pytest.fixture
def ask(workbench, model_folders, letters_file):
    """`ask(out, probes)`: the command itself, with a worker of its own."""

    def run(out, probes=PROBES):
        words = ["--models", model_folders / "first", "--probes", ",".join(probes)]
        words += ["--data", letters_file, "--out", out, "--workers", "1"]
        for one in SETTINGS if PROBES[0] in probes else ():
            words += ["--config", one]
        return workbench("report", *words)

    return run


@pytest.fixture(scope="module")
def undisturbed():
    """Filled by the first test that needs it."""
    return {}


@pytest.fixture
def calm(ask, undisturbed, tmp_path):
    """The files of a report that nothing disturbed."""
    if not undisturbed:
        assert ask(tmp_path / "calm").returncode == 0
        undisturbed |= files(tmp_path / "calm")
    return undisturbed


def files(out):
    """What must be equal in the end: every table, and all findings; the page tells times too."""
    paths = [*(out / "store").glob("*.parquet"), out / "findings.parquet"]
    return {path.name: path.read_bytes() for path in paths}


def scratch(out):
    return list(out.rglob(".saving-*"))


def test_a_worker_that_cannot_write_loses_nothing_and_the_same_command_goes_on(ask, calm, tmp_path):
    out = tmp_path / "out"
    assert ask(out, PROBES[:1]).returncode == 0
    before = files(out)
    smallest = min(len(of) for name, of in calm.items() if name.endswith(".parquet"))
    assert smallest > 6000
    with file_limit(6000):
        done = ask(out)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"cannot write results to {out / 'store'}: " in done.stderr
    assert "File too large" in done.stderr and "the same command goes on" in done.stderr
    assert files(out) == before and not scratch(out)
    again = ask(out)
    assert again.returncode == 0 and "1 jobs run: 1 ok" in again.stdout
    assert files(out) == calm


def test_a_report_that_cannot_be_written_leaves_the_old_one_and_all_results(ask, calm, tmp_path):
    """Tables are small, and the page holds a library of megabytes."""
    out = tmp_path / "out"
    assert ask(out, PROBES[1:]).returncode == 0
    page = (out / "report.html").read_bytes()
    with file_limit(1 << 20):
        done = ask(out)
    assert done.returncode == 2, done.stderr
    assert f"cannot write the report to {out}: File too large" in done.stderr
    assert "the same command writes it from them" in done.stderr
    assert (out / "report.html").read_bytes() == page and not scratch(out)
    again = ask(out)
    assert again.returncode == 0 and "0 jobs run" in again.stdout
    assert files(out) == calm

"""A process over a folder: found from anywhere, alone, in a session of its own, with a code that says how."""

import os
import signal
import time
from pathlib import Path

import pytest

from workbench.errors import CheckpointError, ConfigError, WorkbenchError
from workbench.locks import is_held
from workbench.processes import (
    IN_USE,
    LOCK_FILE,
    LOG_FILE,
    NOTHING,
    STOPPED,
    alone,
    main_over,
    start_detached,
)

MAIN = """
import os, sys, time
from pathlib import Path
from workbench.processes import main_over

def work(folder):
    print("at work", flush=True)
    said = [os.getpid(), os.getsid(0), Path.cwd(), os.environ["OMP_NUM_THREADS"]]
    (folder / "said.tmp").write_text("\\n".join(map(str, said)))
    (folder / "said.tmp").rename(folder / "said")
    time.sleep(120)
    return 0

raise SystemExit(main_over(sys.argv[1:], "made_up_worker", lambda path: path, work))
"""


def opened(path):
    if not path.is_dir():
        raise CheckpointError(f"no folder {path}")
    return path


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_process_lives_by_itself_and_holds_the_lock_until_it_dies(tmp_path, monkeypatch):
    folder, modules, elsewhere = (tmp_path / name for name in ("folder", "modules", "elsewhere"))
    for path in (folder, modules, elsewhere):
        path.mkdir()
    (modules / "made_up_worker.py").write_text(MAIN)
    # What stands where the command was given is not to be taken for one of our modules.
    (elsewhere / "workbench.py").write_text("raise SystemExit(77)")
    (elsewhere / "made_up_worker.py").write_text("raise SystemExit(77)")
    monkeypatch.syspath_prepend(modules)
    monkeypatch.chdir(elsewhere)
    start_detached("made_up_worker", folder)
    wait_for((folder / "said").is_file)
    pid, session, cwd, threads = (folder / "said").read_text().splitlines()
    try:
        assert pid == session != str(os.getsid(0))
        assert cwd == str(elsewhere) and threads == "1"
        assert (folder / LOG_FILE).read_text() == "at work\n"
        assert is_held(folder / LOCK_FILE)
        with pytest.raises(ConfigError, match="taken"), alone(folder, "taken"):
            pass
        monkeypatch.setattr("workbench.processes.PATIENCE", 0.05)
        assert main_over([str(folder)], "m", opened, lambda path: pytest.fail("two")) == IN_USE
    finally:
        os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: not is_held(folder / LOCK_FILE))
    with alone(folder, "taken"):
        assert is_held(folder / LOCK_FILE)
    # No zombie stays.
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "usage: python -m m FOLDER"), (["a", "b"], "usage"), (["/nowhere"], "error: no folder")],
)
def test_nothing_to_work_on_is_a_line_and_a_code(words, said, capsys):
    assert main_over(words, "m", opened, lambda path: pytest.fail("nothing")) == NOTHING
    assert capsys.readouterr().err.startswith(said)


def test_the_code_is_that_of_the_work_which_holds_the_lock(tmp_path):
    def work(path):
        assert path == tmp_path and is_held(path / LOCK_FILE)
        return STOPPED

    assert main_over([str(tmp_path)], "m", opened, work) == STOPPED
    assert not is_held(tmp_path / LOCK_FILE)


def test_a_folder_that_is_gone_is_told_of(tmp_path):
    with pytest.raises(WorkbenchError, match=r"cannot start work on .*gone"):
        start_detached("m", tmp_path / "gone")

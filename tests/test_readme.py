"""Every command of the README runs, and does what it says there."""

import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(block: str) -> list[str]:
    return [line.split(" #")[0].strip() for line in block.splitlines() if line]


# In these blocks each command builds on those before it.
IN_TURN = [block for block in blocks("sh") if "runs/moons" in block or "workbench query" in block]
COMMANDS = [
    command for block in blocks("sh") if block not in IN_TURN for command in commands(block)
]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
WORKBENCH = [command for command in COMMANDS if command.startswith("workbench ")]


def test_the_readme_has_only_commands_that_are_run_here():
    assert len(MAKE) >= 4 and len(WORKBENCH) >= 7
    assert set(COMMANDS) == set(MAKE) | set(WORKBENCH)


@pytest.mark.parametrize("command", MAKE)
def test_a_make_command_exists(command):
    done = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.real
@pytest.mark.parametrize("command", [c for c in WORKBENCH if c != "workbench dashboard"])
def test_a_workbench_command_runs(command, tmp_path):
    words = [word.replace("\\n", "\n") for word in shlex.split(command)]
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    for word in words:
        if word.startswith("attention."):
            assert (tmp_path / word).stat().st_size > 1000
    if command.startswith("workbench attention smollm2"):
        name, probability = re.search(r"(' Mary')\s+([\d.]+)", done.stdout).groups()
        assert name == "' Mary'" and 0.90 < float(probability) < 0.94


@pytest.mark.parametrize("block", IN_TURN, ids=["training", "reports"])
def test_commands_that_build_on_one_another_run_in_turn(block, tmp_path):
    for command in commands(block):
        words = shlex.split(command)
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip()


def test_the_dashboard_serves_and_says_where():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(BIN / "workbench"), "dashboard", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        page = _wait_for(f"http://127.0.0.1:{port}/", server)
        assert "<title>Interpretability workbench</title>" in page
    finally:
        server.terminate()
        printed = server.communicate(timeout=20)[0]
    assert f"http://127.0.0.1:{port}" in printed


def _wait_for(url: str, server: subprocess.Popen) -> str:
    for _ in range(240):
        assert server.poll() is None, server.communicate()[0]
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.25)
    raise TimeoutError(url)


def test_the_notebook_examples_run_in_a_kernel(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    from nbclient import NotebookClient

    first, *others = blocks("python")
    assert others
    cells = [nbformat.v4.new_code_cell(source) for source in (first + "\nview", *others)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    (output,) = notebook.cells[0].outputs
    assert "application/vnd.jupyter.widget-view+json" in output["data"]
    assert (tmp_path / "attention.html").stat().st_size > 10_000
    (output,) = notebook.cells[-1].outputs
    residual = float(output["data"]["text/plain"].rstrip(")").split(",")[-1])
    assert abs(residual) < 1e-4

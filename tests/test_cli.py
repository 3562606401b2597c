"""The command as a person uses it: its words, what it prints, its exit codes."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from workbench.errors import UnknownModelError
from workbench.models.checkpoints import save_checkpoint
from workbench.results import read_table

COMMAND = [str(Path(sys.executable).parent / "workbench")]


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_checkpoint(model, tmp_path_factory.mktemp("models") / "letters")


@pytest.mark.parametrize("words", [["--help"], ["paths", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words):
    """Loading torch alone takes longer than anyone waits for help."""
    heavy = "('torch', 'transformers', 'pandas', 'numpy', 'scipy', 'dash', 'plotly')"
    code = (
        f"import atexit, sys; atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]));"
        f"sys.argv = ['workbench', *{words}]; from app.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"
    assert "workbench" in done.stdout.lower()


def test_models_lists_the_bundled_ones(workbench):
    done = workbench("models")
    assert done.returncode == 0
    assert "attn-2l" in done.stdout


def test_info_shows_the_shape(workbench, folder):
    done = workbench("info", folder)
    assert done.returncode == 0
    assert "LN, pre" in done.stdout and "causal" in done.stdout


def test_attention_shows_the_next_token_and_the_heads(workbench, folder):
    done = workbench("attention", folder, "abcab", "--rows", "3")
    assert done.returncode == 0, done.stderr
    assert "next token" in done.stdout
    assert len(done.stdout.split("from the last token")[1].strip().splitlines()) == 1 + 3


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_attention_writes_a_table_with_its_provenance(workbench, folder, tmp_path, suffix):
    out = tmp_path / f"new/patterns{suffix}"
    done = workbench("attention", folder, "abcab", "--out", out)
    assert done.returncode == 0, done.stderr
    table, made_by = read_table(out)
    assert len(table) == 2 * 4 * 21
    assert made_by["prompt"] == "abcab"


def test_attention_writes_one_offline_page(workbench, folder, tmp_path):
    out = tmp_path / "patterns.html"
    assert workbench("attention", folder, "abcab", "--out", out).returncode == 0
    page = out.read_text(encoding="utf-8")
    assert "<canvas" in page or "WorkbenchAttention" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("info", "nonsense"), "no model 'nonsense'"),
        (("info", "../../etc"), "no model"),
        (("attention", "FOLDER", ""), "empty"),
        (("attention", "FOLDER", "abZ"), "no token for 'Z'"),
        (("attention", "FOLDER", "a" * 100), "at most 32"),
        (("attention", "FOLDER", "abc", "--out", "x.pkl"), ".html, .json, .parquet"),
        (("attention", "FOLDER", "abc", "--out", "/dev/null/x.html"), "cannot write to /dev/null"),
        (("attention", "FOLDER", "abc", "--step", "5"), "no checkpoint of step 5"),
        (("attention", "FOLDER", "abc", "--rows", "0"), "--rows"),
        (("train", "nonsense"), "nonsense"),
        (("dashboard", "--port", "99999"), "--port"),
        (("dashboard", "no/such/folder"), "no model at 'no/such/folder'"),
        (("nonsense",), "nonsense"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_two(workbench, folder, words, message):
    done = workbench(*(folder if word == "FOLDER" else word for word in words))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "rror" in line]) == 1


def test_debug_shows_the_trace(monkeypatch):
    for words in (["--debug", "info", "nonsense"], ["info", "nonsense", "--debug"]):
        monkeypatch.setattr(sys, "argv", ["workbench", *words])
        with pytest.raises(UnknownModelError):
            main()


def test_a_model_without_heads_still_predicts(workbench, build, tmp_path):
    bare = save_checkpoint(build(order="", positions="none"), tmp_path / "bare")
    done = workbench("attention", bare, "abc")
    assert done.returncode == 0
    assert "next token" in done.stdout and "head " not in done.stdout
    refused = workbench("attention", bare, "abc", "--out", "x.json")
    assert refused.returncode == 2 and "no attention to write" in refused.stderr


def test_a_prompt_of_many_lines_comes_from_standard_input(workbench, folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("abcab"))
    assert (
        workbench("attention", folder, "-").stdout == workbench("attention", folder, "abcab").stdout
    )


def test_a_process_of_its_own_fails_the_same_way():
    done = subprocess.run(
        [*COMMAND, "info", "nonsense"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no model 'nonsense'")

"""The commands report, probes and query: what they print, what they refuse, and how they end."""

import json
import shutil
import subprocess
import sys

import pytest

from probes.contract import findings_table
from probes.engine import Status
from probes.jobs import Job, Record
from probes.registry import probe_names
from probes.store import Store
from workbench.results import read_table


@pytest.fixture
def letters_file(tmp_path, letter_data):
    path = tmp_path / "letters.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in letter_data.documents))
    return path


@pytest.fixture
def results(tmp_path):
    """A report's folder with one job that went well."""
    job = Job("a [b]", "a", None, "h", "p", "m", 1, "weights", "{}", "", "")
    store = Store(tmp_path / "out" / "store")
    store.write_plan([job])
    store.save(
        Record.of(job, "ok"), findings_table([{"measure": "size", "value": 1 / 3, "item": "[/]"}])
    )
    return tmp_path / "out"


def test_probes_lists_all_and_describes_one(workbench):
    listed = workbench("probes")
    assert listed.returncode == 0 and all(name in listed.stdout for name in probe_names())
    one = workbench("probes", "residual-norms")
    assert "‖x + out‖" in one.stdout and "residual-norms.n_prompts=24" in one.stdout
    assert "Needs\nSites resid_pre" in one.stdout
    assert "no probe 'x'" in workbench("probes", "x").stderr


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    workbench, model_folders, letters_file, tmp_path
):
    words = [
        "--models",
        f"{model_folders}/*/",
        "--probes",
        "residual-norms",
        "--data",
        letters_file,
    ]
    done = workbench("report", *words, "--dry-run", "--out", tmp_path / "out", "--workers", "3")
    assert done.returncode == 0, done.stderr
    assert "models: 4; jobs: 4, to run: 3" in done.stdout and "workers: 3" in done.stdout
    assert "refused: residual-norms of mlp: it has no residual stream" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no models: name some with --models"),
        (["--models", "nope"], "no model 'nope'"),
        (["--models", "attn-2l", "--probes", "nope"], "no probe 'nope'"),
        (["--models", "attn-2l", "--data", "nowhere"], "no data at 'nowhere'"),
        (["--models", "attn-2l", "--engine", "slurm"], "engine must be local or ray"),
        (["--models", "attn-2l", "--memory", "much"], "a budget is a positive number"),
        (["--models", "attn-2l", "--config", "n=3"], "write probe.field=value"),
        (
            ["--models", "attn-2l", "--probes", "residual-norms", "--config", "residual-norms.x=3"],
            "no setting",
        ),
        (["--plan", "nowhere.yaml"], "no plan at nowhere.yaml"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(workbench, letters_file, words, message):
    data = [] if "--data" in words else ["--data", letters_file]
    done = workbench("report", *words, *data, "--dry-run")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_a_plan_file_is_read_and_options_go_first(workbench, model_folders, letters_file, tmp_path):
    plan = {
        "models": [str(model_folders / "first")],
        "probes": ["residual-norms"],
        "data": str(letters_file),
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan | {"workers": 2}))
    done = workbench("report", "--plan", tmp_path / "plan.yaml", "--dry-run", "--workers", "1")
    assert "jobs: 1, to run: 1" in done.stdout and "workers: 1" in done.stdout


def test_a_plan_file_says_where_to_write_unless_an_option_does(
    workbench, model_folders, letters_file, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr("probes.engine.run_plan", lambda *given: Status(0, 0, 0, 0, 1.0, 0.0, ()))
    monkeypatch.setattr("probes.report.write_report", lambda store, out: seen.append(out) or out)
    plan = {"models": [str(model_folders / "first")], "probes": "residual-norms"}
    plan |= {"data": str(letters_file), "out": str(tmp_path / "named")}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    Store(tmp_path / "named" / "store").write_plan([])
    Store(tmp_path / "other" / "store").write_plan([])
    assert workbench("report", "--plan", tmp_path / "plan.yaml").returncode == 0
    words = ["--plan", tmp_path / "plan.yaml", "--out", tmp_path / "other"]
    assert workbench("report", *words).returncode == 0
    assert seen == [tmp_path / "named", tmp_path / "other"]


def test_no_resume_asks_all_anew(workbench, model_folders, letters_file, tmp_path):
    out = tmp_path / "out"
    words = ["--models", model_folders / "first", "--probes", "residual-norms"]
    words += ["--data", letters_file, "--out", out, "--dry-run"]
    from probes.plan import make_plan
    from probes.requests import Request

    asked = Request((str(model_folders / "first"),), "residual-norms", str(letters_file)).asked()
    store = Store(out / "store")
    job = make_plan(asked, store).jobs[0]
    store.save(Record.of(job, "ok"), findings_table([{"measure": "size", "value": 1.0}]))
    assert "to run: 0" in workbench("report", *words).stdout
    assert "to run: 0" in workbench("report", *words, "--resume").stdout
    assert "to run: 1" in workbench("report", *words, "--no-resume").stdout
    assert store.record(job.key).status == "ok"


def test_a_model_that_cannot_be_read_does_not_stop_the_others(
    workbench, model_folders, letters_file, tmp_path
):
    (tmp_path / "m" / "broken").mkdir(parents=True)
    (tmp_path / "m" / "broken" / "config.json").write_text('{"format": "workbench-transformer-1"}')
    shutil.copytree(model_folders / "first", tmp_path / "m" / "good")
    words = ["--probes", "residual-norms", "--data", letters_file, "--out", tmp_path / "out"]
    done = workbench("report", "--models", f"{tmp_path}/m/*/", *words, "--workers", "1")
    assert done.returncode == 1
    assert done.stderr.count("cannot be read: broken: ") == 1
    assert "failed: residual-norms of broken: " in done.stderr
    assert "2 jobs run: 1 ok, 1 failed, 0 refused; 0 were there" in done.stdout
    assert "residual-norms" in (tmp_path / "out" / "report.md").read_text()
    # Alone it is an error at once, in one line.
    alone = workbench("report", "--models", tmp_path / "m" / "broken", *words)
    assert alone.returncode == 2 and alone.stderr.count("\n") == 1


def test_the_end_tells_how_many_prompts_were_read(workbench, model_folders, tmp_path):
    (tmp_path / "list.txt").write_text("abcdefgh\nponmlkji\nab\nabcdefghij\n")
    words = ["--models", model_folders / "first", "--probes", "residual-norms"]
    words += ["--data", tmp_path / "list.txt", "--out", tmp_path / "out", "--workers", "1"]
    done = workbench("report", *words)
    assert done.returncode == 0, done.stderr
    said = "list.txt: 3 of 4 prompts read at 9 tokens; 1 left out as shorter (1 jobs)"
    assert said in done.stdout.replace("\n", "")
    found = Store(tmp_path / "out" / "store").frame("select distinct n from findings")
    assert list(found["n"]) == [3 * 8]


def test_ctrl_c_says_what_is_kept(workbench, model_folders, letters_file, tmp_path, monkeypatch):
    def stopped(planned, store, limits, told):
        store.write_plan(planned.jobs)
        told(Status(2, 1, 0, 0, 0.5, 75.0, ("[red]residual-norms of first",)))
        raise KeyboardInterrupt

    monkeypatch.setattr("probes.engine.run_plan", stopped)
    words = [
        "--models",
        model_folders / "first",
        "--probes",
        "residual-norms",
        "--data",
        letters_file,
    ]
    done = workbench("report", *words, "--out", tmp_path / "out")
    assert done.returncode == 130
    assert "stopped: 0 of 1 jobs are done and kept" in done.stderr


def test_query_prints_and_writes_an_answer(workbench, results, tmp_path):
    out = tmp_path / "answer.parquet"
    done = workbench(
        "query", "select model, item, value from findings", "--store", results, "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert "a [b]" in done.stdout and "[/]" in done.stdout and "0.3333" in done.stdout
    table, made_by = read_table(out)
    assert table["value"][0] == 1 / 3 and made_by["sql"].startswith("select")
    assert "status" in workbench("query", "select * from jobs", "--store", results / "store").stdout
    more = workbench("query", "select * from range(9)", "--store", results, "--rows", "2")
    assert "… 7 more rows" in more.stdout


def test_query_refuses_what_is_no_question(workbench, results, tmp_path):
    done = workbench("query", "drop table findings", "--store", results)
    assert done.returncode == 2 and "a query is one SELECT" in done.stderr
    assert "no results in" in workbench("query", "select 1", "--store", tmp_path / "no").stderr


def test_query_needs_no_torch(results):
    code = (
        f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules));"
        f"sys.argv = ['workbench', 'query', 'select 1', '--store', {str(results)!r}];"
        "from app.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"

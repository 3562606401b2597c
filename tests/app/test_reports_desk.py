"""Reports as folders and processes: listed, worked on, cancelled, resumed, served, whatever they hold."""

import json
import os
from types import SimpleNamespace

import pytest
from plotly.utils import PlotlyJSONEncoder
from tiny_session import Loader, no_card, tiny_model, tiny_models

from app import report_plans as plans
from app.main import create_app
from app.pages import reports as page
from app.pages import reports_new
from app.report_desk import ReportDesk
from app.report_folder import PRODUCTS, ReportFolder, Standing, Wanted, read_standing
from app.report_routes import POLICY
from app.report_worker import FAILED, FINISHED, STOPPED, Stopped, work
from app.session import Session
from app.views import reports as views
from app.views.reports_tables import opener
from probes.contract import findings_table
from probes.jobs import Job, Record
from probes.store import Store
from workbench.errors import ConfigError, UnknownModelError, UnsupportedError, WorkbenchError
from workbench.locks import Lock
from workbench.models.checkpoints import save_checkpoint
from workbench.processes import LOCK_FILE

HOSTILE = (
    "../../etc", "..", ".", "", "/etc/passwd", "a/../a", "a\0", "a\n", "a" * 5000, "<b>", "\ud800", ".hidden",
    None, 5,
)  # fmt: skip
WANTED = Wanted(("attn-2l",), ("qk-geometry",))
BAD_STATUS = ("{", "[]", "{}", '{"state": "running"}', "null", "\0")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "reports"


@pytest.fixture
def desk(root):
    return ReportDesk(root)


@pytest.fixture
def session(desk):
    session = Session(load=Loader(), list_models=tiny_models, read_card=no_card, reports=desk)
    yield session
    session.close()


@pytest.fixture
def client(session):
    return create_app(session).server.test_client()


def asked(root, name="one", wanted=WANTED, **standing):
    """A folder as the dashboard makes it, without a process."""
    from dataclasses import asdict

    folder = ReportFolder(root / name)
    folder.path.mkdir(parents=True)
    (folder.path / "request.json").write_text(json.dumps(asdict(wanted)))
    if standing:
        folder.tell(Standing(**standing))
    return folder


def by_command(root, name="cli <b>"):
    """A folder as the command makes it: one job went well, one failed, one waits."""
    store = Store(root / name / "store")
    jobs = [Job(m, m, None, m, "p", "m", 1, "weights", "{}", "", "") for m in ("a", "b", "c")]
    store.write_plan(jobs)
    row = {"measure": "size", "layer": 0, "head": 1, "value": 1.0}
    store.save(Record.of(jobs[0], "ok"), findings_table([row]))
    store.save(Record.of(jobs[1], "failed", error="no <luck>"))
    return ReportFolder(store.folder.parent)


def texts(part):
    return json.dumps(part, cls=PlotlyJSONEncoder, ensure_ascii=False)


def test_reports_of_the_dashboard_and_of_the_command_are_listed_and_broken_ones_too(root, desk):
    asked(root, "mine", state="running", jobs=5, done=2, failed=1)
    by_command(root)
    asked(root, "broken")
    (root / "broken" / "request.json").write_text('{"models": 3}')
    by_command(root, "no plan")
    (root / "no plan" / "store" / "plan.json").write_text('{"jobs": [{"model": []}]}')
    (root / "other").mkdir()
    (root / "link").symlink_to(root / "mine")
    rows = {row.name: row for row in desk.rows()}
    assert set(rows) == {"mine", "cli <b>", "broken", "no plan"}
    assert rows["mine"].state == "interrupted"  # nobody holds its lock
    command = rows["cli <b>"].standing
    assert (command.jobs, command.done, command.failed) == (3, 2, 1)
    assert rows["cli <b>"].models == ("a", "b", "c") and not rows["cli <b>"].is_ours
    assert rows["broken"].state == rows["no plan"].state == "broken"
    assert rows["mine"].fits("ATTN interrupted") and not rows["mine"].fits("attn finished")
    listed = " ".join(map(texts, views.report_list(desk.rows(), "mine", "")))
    assert "cannot be read" in listed and "2/5, 1 failed" in listed
    assert "None of 4 reports fits." in texts(views.report_list(desk.rows(), "", "zzz")[0])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_folder_of_ours_finds_nothing(root, desk, session, client, name):
    asked(root)
    with pytest.raises(UnknownModelError, match="no report"):
        desk.find(name)
    if isinstance(name, str) and name:
        shown = page.layout(session, {"report": name}, [])
        assert "no report" in texts(shown)
    if isinstance(name, str) and name.isprintable() and len(name) < 300:
        assert client.get(f"/api/reports/{name}/report.html").status_code in (404, 308)


@pytest.mark.parametrize("text", BAD_STATUS)
def test_a_broken_status_is_told_of_and_takes_no_other_report_with_it(root, desk, session, text):
    folder = asked(root)
    by_command(root)
    (folder.path / "status.json").write_text(text)
    with pytest.raises(WorkbenchError):
        read_standing(folder.path / "status.json")
    states = {row.name: row.state for row in desk.rows()}
    assert states["one"] == "broken" and states["cli <b>"] == "interrupted"
    assert "status.json" in texts(page.layout(session, {"report": "one"}, []))


def test_only_three_files_are_served_under_a_policy_of_their_own(root, client, tmp_path):
    folder = by_command(root)
    (tmp_path / "secret").write_text("secret")
    (folder.path / "report.html").write_text("<script>1</script>")
    (folder.path / "report.md").symlink_to(tmp_path / "secret")
    base = "/api/reports/cli%20%3Cb%3E"
    told = client.get(f"{base}/report.html")
    assert told.status_code == 200 and told.headers["Content-Security-Policy"] == POLICY
    assert (
        "allow-same-origin" not in POLICY and "sandbox" in POLICY and "default-src 'none'" in POLICY
    )
    assert told.headers["X-Content-Type-Options"] == "nosniff"
    told.close()
    for file in (
        "report.md",
        "findings.parquet",
        "request.json",
        "store",
        "..%2fone",
        "worker.log",
    ):
        assert client.get(f"{base}/{file}").status_code == 404
    pages = client.get("/reports").headers["Content-Security-Policy"]
    script = next(part for part in pages.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in script and "frame-src" not in pages
    assert set(PRODUCTS) == {"report.html", "report.md", "findings.parquet"}


def test_a_report_is_worked_on_cancelled_and_resumed(root, desk):
    save_checkpoint(tiny_model(), root.parent / "tiny")
    spec = str(root.parent / "tiny")
    folder = asked(root, wanted=Wanted((spec,), ("qk-geometry", "neuron-statistics")))
    (folder.path / "control").write_text("cancel")
    assert work(folder) == STOPPED and desk.row(folder).state == "cancelled"
    (folder.path / "control").unlink()
    assert work(folder) == FINISHED
    told = folder.standing
    assert (told.state, told.jobs, told.done, told.refused, told.failed) == ("finished", 2, 2, 1, 0)
    assert all(folder.product(name) for name in PRODUCTS)
    assert desk.findings("one").measures()
    assert desk.jobs("one")["status"].tolist() == ["ok", "refused"]
    # Once more: everything is there, and nothing is asked.
    assert work(folder) == FINISHED and folder.standing.done == 2
    with pytest.raises(UnsupportedError, match="nothing to resume"):
        desk.ask("one", "resume")


def one_job_and_then_unwanted(plan, store, told):
    """In the place of a run: one job goes well before the report is cancelled."""
    store.write_plan(plan.jobs)
    row = {"measure": "size", "layer": 0, "head": 1, "value": 1.0}
    store.save(Record.of(plan.jobs[0], "ok"), findings_table([row]))
    raise Stopped


@pytest.fixture
def tiny_report(root):
    """Two probes of a tiny model."""
    save_checkpoint(tiny_model(), root.parent / "tiny")
    spec = str(root.parent / "tiny")
    return asked(root, wanted=Wanted((spec,), ("residual-norms", "qk-geometry")))


def test_a_cancelled_report_is_written_of_what_there_is_and_again_when_resumed(
    tiny_report, desk, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr("app.report_worker._run", one_job_and_then_unwanted)
        assert work(tiny_report) == STOPPED
    assert desk.row(tiny_report).state == "cancelled" and tiny_report.standing.can_resume
    assert all(tiny_report.product(name) for name in PRODUCTS)
    page = tiny_report.product("report.html").read_text()
    assert "2 jobs: 1 ok, 1 waiting" in page and "it has not been run to its end" in page
    assert "written once" not in texts(views.files(tiny_report))
    assert work(tiny_report) == FINISHED
    assert "2 jobs: 2 ok" in tiny_report.product("report.html").read_text()


def test_a_report_cancelled_before_it_found_anything_is_not_written(tiny_report):
    (tiny_report.path / "control").write_text("cancel")
    assert work(tiny_report) == STOPPED and tiny_report.standing.state == "cancelled"
    assert not any(tiny_report.product(name) for name in PRODUCTS)


@pytest.mark.parametrize(
    ("run", "code", "state"),
    [("app.report_worker._run", STOPPED, "cancelled"), ("", FINISHED, "finished")],
)
def test_to_cancel_while_the_report_is_written_changes_nothing(
    tiny_report, desk, monkeypatch, run, code, state
):
    from probes.report import write_report

    states = []

    def cancelled_meanwhile(store, out):
        states.append(tiny_report.standing.state)
        desk.ask("one", "cancel")
        return write_report(store, out)

    if run:
        monkeypatch.setattr(run, one_job_and_then_unwanted)
    monkeypatch.setattr("probes.report.write_report", cancelled_meanwhile)
    with Lock(tiny_report.path / LOCK_FILE) as is_ours:
        assert is_ours and work(tiny_report) == code
    assert states == ["writing"] and tiny_report.standing.state == state
    assert all(tiny_report.product(name) for name in PRODUCTS)


def test_a_cancelled_report_that_cannot_be_written_says_why_and_can_be_resumed(
    tiny_report, monkeypatch
):
    def full(store, out):
        raise WorkbenchError("cannot write the report: no space left")

    monkeypatch.setattr("app.report_worker._run", one_job_and_then_unwanted)
    monkeypatch.setattr("probes.report.write_report", full)
    assert work(tiny_report) == FAILED
    told = tiny_report.standing
    assert told.state == "failed" and "no space left" in told.message and told.can_resume


def test_what_cannot_be_done_to_a_report_is_refused(root, desk):
    asked(root, state="finished", jobs=1, done=1)
    by_command(root)
    with pytest.raises(ConfigError, match="nothing to cancel"):
        desk.ask("one", "cancel")
    with pytest.raises(UnsupportedError, match="the same command"):
        desk.ask("cli <b>", "resume")
    asked(root, "again", state="finished", jobs=1, done=1, failed=1)
    assert ReportFolder(root / "again").standing.can_resume
    with pytest.raises(UnsupportedError, match="--reports DIR"):
        ReportDesk(None).start(WANTED)
    queued = asked(root, "queued", state="queued")
    os.utime(queued.path / "status.json", (1, 1))
    assert queued.standing.state == "interrupted"


def test_files_of_this_machine_are_not_read_for_others(root, session):
    away = ReportDesk(root, reads_files=False)
    with pytest.raises(UnsupportedError, match="reads no files"):
        away.start(Wanted(("attn-2l",), ("qk-geometry",), "/etc"))
    session.reports = away
    shown = reports_new.layout(session, {"data": "/etc"}, is_first=True)[0]
    box = next(p for p in shown[0]._traverse() if getattr(p, "id", None) == "report-data")
    assert box.disabled and box.value == "stdlib"
    assert not root.exists()


def test_only_offered_models_and_known_probes_can_be_asked(session):
    for wanted in (
        Wanted(("/etc/passwd",), ("qk-geometry",)),
        Wanted(("attn-2l@5",), ("qk-geometry",)),
        Wanted(("minilm",), ("qk-geometry",)),  # not installed in this session
        Wanted(("attn-2l",), ("nope",)),
    ):
        with pytest.raises(ConfigError, match=r"no (model|probe)"):
            plans.checked(session, wanted)
    assert plans.checked(session, Wanted(("attn-2l@*",), ("qk-geometry",))).models == ("attn-2l@*",)
    for bad in ({"models": ()}, {"probes": ()}, {"data": ""}, {"title": "x" * 121}):
        with pytest.raises(ConfigError):
            Wanted(**{"models": ("a",), "probes": ("b",), **bad})


def test_the_first_screen_invites_with_a_small_model_and_quick_probes(session):
    shown = page.layout(session, {}, [])
    assert "Your first report" in texts(shown)
    store = next(p for p in shown._traverse() if getattr(p, "id", None) == "reports-state")
    assert store.data["models"] == "attn-2l" and "qk-geometry" in store.data["quick"]
    assert "modularity-wiring" not in store.data["quick"]
    odd = page.layout(session, {"new": "1", "models": "nope,other", "probes": "x,qk-geometry"}, [])
    assert "no model 'nope' to ask" in texts(odd) and "no probe 'x'" in texts(odd)


def test_heads_are_opened_only_where_a_page_can_show_them():
    opened = {"a": ("attn-2l", None), "a@10": ("attn-2l", 10), "a@7": ("attn-2l", 7)}
    found = SimpleNamespace(opened=opened | {"x": ("/x", None)})
    opens = opener(found, {"attn-2l": ("attn-2l", (10,))})
    assert opens("a", 1, 2)["card"] == "/heads?model=attn-2l&head=1.2"
    assert opens("a@10", 1, 2)["attention"] == "/?model=attn-2l&step=10&head=1.2&locked=1"
    for label, layer in (("a@7", 1), ("x", 1), ("gone", 1), ("a", None)):
        assert opens(label, layer, 0) == {}


def test_what_a_killed_process_left_can_be_started_again(root, desk, monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda words, **_: started.append(words) or Ended())
    for state in ("running", "writing"):
        folder = asked(root, state, state=state, jobs=2, done=1)
        assert folder.standing.state == "interrupted"
        desk.ask(state, "resume")
        assert folder.standing.state == "queued" and started[-1][-1] == str(folder.path)
    name = desk.start(WANTED)
    assert name == "attn-2l" and ReportFolder(root / name).wanted == WANTED
    assert desk.start(WANTED) == "attn-2l-2" and len(started) == 4


class Ended:
    """A process that has come and gone."""

    def wait(self):
        return 0

"""The training page over real small runs: what is listed, refused, drawn and offered, whatever they hold."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_session import Loader, no_card, tiny_models

import workbench
from app.main import create_app
from app.pages import attention, circuits, training
from app.run_routes import MIN_LINES
from app.session import Session
from app.training_state import read_run_state
from app.trainings import MAX_FRAMES, Row, Trainings
from app.views import training as views
from app.views import training_curves as curves
from app.views import training_panels as panels
from workbench.errors import UnknownModelError, UnsupportedError, WorkbenchError
from workbench.training.plan import TransformerShape, presets
from workbench.training.run_folder import RunFolder, create
from workbench.training.working import work

PRESETS = presets()
MLP = replace(PRESETS["bimt-independence/bimt"], name="m", steps=40, snapshots=5, swap_every=20)
HEADS = replace(
    PRESETS["induction-2l"],
    name="t",
    steps=2,
    snapshots=2,
    network=TransformerShape(order="ss", d_model=16, n_heads=2),
)
HOSTILE = (
    *("../../etc", "..", ".", "", "/etc/passwd", "m/../m", "m\0", "m\n", "a" * 5000, "<b>", "\ud800", "M%2f"),
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for plan in (MLP, HEADS):
        work(create(root, plan))
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy that a test may break."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def runs(root):
    return Trainings(root)


@pytest.fixture
def shown(runs):
    """A session over these runs, and tiny models beside them."""
    session = Session(load=Loader(), list_models=tiny_models, read_card=no_card, runs=runs)
    yield session
    session.close()


@pytest.fixture
def client(shown):
    return create_app(shown).server.test_client()


def test_runs_are_listed_with_their_loss_and_broken_ones_with_the_reason(runs, root):
    (root / "broken").mkdir()
    (root / "broken" / "plan.json").write_text('{"format": "workbench-plan-1"')
    (root / "other").mkdir()  # no run at all
    (root / "file").write_text("")
    rows = {row.name: row for row in runs.rows()}
    assert rows.keys() == {"m", "t", "broken"}
    assert (rows["broken"].state, rows["m"].state) == ("broken", "finished")
    assert "plan.json" in rows["broken"].message
    assert rows["m"].loss == float(RunFolder(root / "m").metrics()["test_loss"].iloc[-1])
    assert "broken" in str(views.run_list(list(rows.values()), "m"))


def test_metrics_that_are_no_numbers_are_left_out(runs, root):
    (root / "m" / "metrics.jsonl").write_text('[1]\n{"step": "x", "test_loss": {}}\n')
    rows = {row.name: row for row in runs.rows()}
    assert rows["m"].loss is None
    assert rows["t"].loss is not None
    assert curves.losses(runs.metrics(runs.find("m")), is_log=True) is not None


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_folder(runs, root, name):
    outside = root.parent / "outside"
    shutil.copytree(root / "m", outside)
    (root / "link").symlink_to(outside)
    for asked in (name, "link", "../outside"):
        with pytest.raises(UnknownModelError, match="no run"):
            runs.find(asked)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_address_of_no_run_is_a_message(shown, name):
    said = str(training.layout(shown, {"run": name, "new": name}, []))
    assert "run-lost" in said or "plan-start" in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at", "-1"), ("at", "1e400"), ("at", "9" * 30), ("at", "x"), ("threshold", "inf"), ("threshold", "-2"),
        ("log", "maybe"), ("dot", "hidden 0"), ("dot", "hidden 0/99999999999"), ("level", "nan"),
        ("other", "../m"), ("other", "x" * 500),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_meant_is_said_and_the_run_is_shown(shown, field, value):
    state, complaints = read_run_state(shown.runs, {"run": "m", field: value})
    assert len(complaints) == 1
    assert state["step"] == MLP.steps
    said = str(training.layout(shown, {"run": "m", field: value}, []))
    assert "run-standing" in said
    assert complaints[0][:20] in said


def test_a_step_without_a_snapshot_gives_way_to_the_nearest(runs):
    state, complaints = read_run_state(runs, {"run": "m", "at": "12"})
    assert (state["at"], state["step"]) == (10, 10)
    assert "nearest, of step 10" in complaints[0]
    assert read_run_state(runs, {"run": "m"})[0]["at"] is None


def test_what_is_asked_does_not_change_with_every_new_snapshot(runs):
    seen = {"run": "m", "at": None, "step": 20}
    assert read_run_state(runs, seen)[0]["step"] == 20
    assert read_run_state(runs, {**seen, "at": 30})[0]["step"] == 30
    for junk in (None, 17, "20", True, [20]):
        assert read_run_state(runs, {**seen, "step": junk})[0]["step"] == MLP.steps


def test_without_runs_the_form_is_shown_and_with_runs_the_newest(shown, tmp_path):
    assert "run-standing" in str(training.layout(shown, {}, []))
    empty = Session(load=Loader(), list_models=tiny_models, runs=Trainings(tmp_path / "none"))
    said = str(training.layout(empty, {}, []))
    empty.close()
    assert "bimt-independence/bimt" in said
    assert "press Start" in said
    assert not (tmp_path / "none").exists()


def test_many_snapshots_are_thinned_and_the_last_is_kept(runs, monkeypatch):
    steps = tuple(range(0, 7000, 7))
    monkeypatch.setattr(RunFolder, "snapshots", lambda self: steps)
    frames = runs.frames(runs.find("m"))
    assert len(frames) == MAX_FRAMES
    assert set(frames) <= set(steps)
    assert (frames[0], frames[-1]) == (steps[0], steps[-1])


def test_a_finished_transformer_opens_in_every_page_and_an_mlp_says_why_not(shown, root):
    name = str(root / "t")
    info = shown.info(name)
    assert (info.kind, info.available, info.steps) == ("own", True, (0, 2))
    assert str(root / "m") not in [info.name for info in shown.models()]
    model = workbench.load(name)
    trained = shown.runs.load("t", 2).network
    assert all(
        np.allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-2)
        for a, b in zip(model.parameters(), trained.parameters(), strict=True)
    )
    rows = {row.name: row for row in shown.runs.rows()}
    client = create_app(shown).server.test_client()
    assert client.get("/api/training", query_string={"model": name}).json["state"] == "working"
    assert client.get("/api/training", query_string={"model": f"{name}/.."}).status_code == 404
    links = str(views.links(rows["t"], shown.runs.model_name(rows["t"])))
    paths = ("/residual?", "/circuits?", "/composition?", "/heads?", "/paths?")
    assert all(path in links for path in paths)
    numbers = replace(rows["t"], task="in-context regression")
    assert shown.runs.model_name(numbers) is None
    assert "it reads numbers" in str(views.links(numbers, None))
    assert "an MLP has no attention" in str(
        views.links(rows["m"], shown.runs.model_name(rows["m"]))
    )
    assert "once it has finished" in str(views.links(replace(rows["t"], state="paused"), None))


def test_an_unfinished_transformer_opens_with_its_newest_weights(shown, runs, root):
    folder = RunFolder(root / "t")
    (folder.path / "model.safetensors").unlink()
    folder.tell(replace(folder.status, state="paused"))
    row, name = runs.row(folder), str(root / "t/checkpoints/step-000002.safetensors")
    assert runs.model_name(row) == name
    links = views.links(row, name)
    assert "Open at step 2 in" in str(links) and "step-000002" in str(links[1])
    assert all(info.name != name and info.name != str(root / "t") for info in shown.models())
    info = shown.info(name)
    assert (info.available, info.steps) == (True, ()) and "at step 2 of 2" in info.summary
    kept = runs.network("t", 2).state_dict()
    loaded = workbench.load(name).state_dict()
    assert all(torch.equal(loaded[key], kept[key]) for key in kept)
    for page in (attention, circuits.PAGE):
        said = str(page.layout(shown, {"model": name}, []))
        assert f"'value': '{name}'" in said and "no model" not in said
    # Weights from before the first step are no reason to open other pages.
    Path(name).unlink()
    assert runs.model_name(row) is None


@pytest.mark.parametrize(
    "path",
    [
        "t/checkpoints/step-000001.safetensors",
        "t/checkpoints/../checkpoints/step-000002.safetensors",
        "t/./checkpoints/step-000002.safetensors",
        "../runs/t/checkpoints/step-000002.safetensors",
        "../outside/checkpoints/step-000002.safetensors",
        "link/checkpoints/step-000002.safetensors",
        "m/checkpoints/step-000040.safetensors",
        "t/checkpoints/step-2.safetensors",
        "t/training-state.safetensors",
        "t/checkpoints/step-000002.safetensors\0",
    ],
)
def test_no_other_file_passes_for_weights_of_a_run(shown, root, path):
    shutil.copytree(root / "t", root.parent / "outside")
    (root / "link").symlink_to(root.parent / "outside")
    assert shown.info(str(root / "t/checkpoints/step-000002.safetensors"))
    with pytest.raises(UnknownModelError, match=r"no (model|run)"):
        shown.info(f"{root}/{path}")


@pytest.mark.parametrize("panel", panels.ALL, ids=lambda panel: panel.name)
@pytest.mark.parametrize("name", ["m", "t"])
def test_a_panel_answers_draws_and_has_a_table(shown, panel, name):
    dot = {"m": "hidden 0/3", "t": "stream/1"}[name]
    given = {"run": name, "dot": dot, "other": "t" if name == "m" else "m"}
    state, complaints = read_run_state(shown.runs, given)
    assert not complaints
    answer = shown.trained.ask(panel.question(state), panel.compute, wait=60)
    assert answer.kept is not None, answer.error
    assert panel.draw(answer.kept.result, state)
    assert isinstance(answer.kept.table(), pd.DataFrame)
    compile(panel.code(state), "panel", "exec")
    nothing = {**panels.NOTHING, "run": name}
    assert panel.needs(nothing)


def test_wiring_is_sent_once_and_then_not_modified(client):
    first = client.get("/api/runs/m/wiring/40", headers={"Accept-Encoding": "gzip"})
    assert first.status_code == 200
    found = json.loads(gzip.decompress(first.data))
    assert [frame["step"] for frame in found["frames"]] == [0, 10, 20, 30, 40]
    again = client.get(
        "/api/runs/m/wiring/40",
        headers={"If-None-Match": first.headers["ETag"], "Accept-Encoding": "gzip"},
    )
    assert (again.status_code, again.data) == (304, b"")
    assert len(client.get("/api/runs/m/wiring/10").json["frames"]) == 2
    pair = client.get("/api/runs/m/wiring/40/beside/m/0").json
    assert len(pair["frames"]) == 1
    alone = client.get("/api/runs/t/wiring/2/beside/m/40")
    assert alone.status_code == 200
    assert MIN_LINES > 0


def test_another_run_of_the_same_name_is_not_taken_for_the_old_one(client, root):
    old = client.get("/api/runs/m/wiring/40").data
    shutil.rmtree(root / "m")
    assert client.get("/api/runs/m/wiring/40").status_code == 404
    work(create(root, replace(MLP, seed=7)))
    new = client.get("/api/runs/m/wiring/40")
    assert new.status_code == 200
    assert new.data != old


@pytest.mark.parametrize(
    "path",
    [
        *("no/wiring/0", "../../etc/wiring/0", "m/wiring/-1", "m", "%2e%2e/wiring/1"),
        "m/wiring/9999999999999999999999/beside/m/0",
    ],
)
def test_routes_of_what_is_not_there_are_not_found(client, path):
    assert client.get(f"/api/runs/{path}").status_code == 404


def test_broken_weights_are_an_error_with_words(client, root):
    for path in (root / "m" / "checkpoints").rglob("*.safetensors"):
        path.write_bytes(b"x")
    found = client.get("/api/runs/m/wiring/40")
    assert found.status_code == 404
    assert "safetensors" in found.json["error"]


def test_what_cannot_be_done_to_a_run_is_refused(runs):
    for what in ("pause", "cancel", "resume"):
        with pytest.raises(WorkbenchError, match=f"nothing to {what}"):
            runs.ask("m", what)
    with pytest.raises(UnsupportedError, match="no action 'rm'"):
        runs.ask("m", "rm")
    with pytest.raises(UnknownModelError):
        runs.ask("gone", "pause")


def test_a_run_is_not_started_without_a_folder_or_with_files_for_strangers(tmp_path):
    with pytest.raises(UnsupportedError, match="--runs"):
        Trainings(None).start(MLP)
    reading = replace(PRESETS["small-text"], task="text folder", folder="/etc")
    with pytest.raises(UnsupportedError, match="no folders"):
        Trainings(tmp_path, reads_files=False).start(reading)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError):
        Trainings(tmp_path / "file").start(MLP)


def call(client, app_output, inputs, state):
    body = {
        "output": app_output,
        "outputs": [
            dict(zip(("id", "property"), part.split("@")[0].rsplit(".", 1), strict=True))
            for part in app_output.strip(".").split("...")
        ],
        "inputs": [{"id": i, "property": p, "value": v} for i, p, v in inputs],
        "state": [{"id": i, "property": p, "value": v} for i, p, v in state],
        "changedPropIds": [f"{inputs[0][0]}.{inputs[0][1]}"],
    }
    return client.post("/_dash-update-component", json=body)


def test_a_run_that_is_deleted_meanwhile_is_said_and_asked_for_no_more(shown, root):
    app = create_app(shown)
    client = app.server.test_client()
    output = next(key for key in app.callback_map if key.startswith("..run-standing.children"))
    inputs = [
        ("run-tick", "n_intervals", 1),
        ("run-retry", "n_clicks", 0),
        ("run-did", "data", None),
    ]
    state = [("run-state", "data", {"run": "m"}), ("run-stamp", "data", None)]
    found = call(client, output, inputs, state).json["response"]
    assert "finished" in json.dumps(found["run-standing"])
    assert found["run-tick"]["disabled"] is False
    shutil.rmtree(root / "m")
    gone = call(client, output, inputs, state).json["response"]
    assert "no run 'm'" in json.dumps(gone["run-standing"])
    assert gone["run-tick"]["disabled"] is True


def test_the_state_says_which_buttons_there_are():
    shown = {
        state: views.which_buttons(state)
        for state in ("running", "paused", "finished", "interrupted")
    }
    assert shown == {
        "running": (False, False, True),
        "paused": (True, False, False),
        "finished": (True, True, True),
        "interrupted": (True, True, False),
    }
    row = Row("x", "x", "failed", 5, 10, 1.0, "the disk is full")
    assert "the disk is full" in str(views.standing(row))


def test_curves_are_those_of_the_table_and_a_log_scale_leaves_out_zero(runs):
    table = runs.metrics(runs.find("m"))
    linear, log = (curves.losses(table, is_log=is_log, at=20) for is_log in (False, True))
    drawn = {trace.name: trace for trace in linear.data}
    assert list(drawn) == ["training", "validation", "penalty: wiring"]
    np.testing.assert_allclose(drawn["validation"].y, table["test_loss"], rtol=1e-6)
    assert log.layout.yaxis.type == "log"
    zero = table.assign(test_loss=0.0)
    assert np.isnan(curves.losses(zero, is_log=True).data[1].y).all()
    named = {annotation.text for annotation in curves.measures(table).layout.annotations}
    assert {"Modularity", "Modularity over chance", "Wiring", "R²"} <= named
    assert curves.measures(table[["step", "train_loss"]]) is None
    long = pd.DataFrame({"step": np.arange(5000), "train_loss": 1.0, "loss": 1.0})
    trace = curves.losses(long, is_log=False).data[0]
    assert len(trace.x) == curves.MAX_POINTS
    assert trace.x[-1] == 4999


def test_paths_of_the_page_are_kept_in_the_folder_that_was_given(runs, root):
    assert Path(runs.models()[0].name).parent == root


def test_what_a_visitor_may_not_run_is_not_tried_out_either(root, tmp_path):
    """The plan that is asked about comes from a browser."""
    runs = Trainings(root, reads_files=False)
    session = Session(load=Loader(), list_models=tiny_models, read_card=no_card, runs=runs)
    client = create_app(session).server.test_client()
    plan = json.loads(PRESETS["small-text"].to_json()) | {"folder": str(tmp_path)}
    body = {
        "output": "plan-estimate.children",
        "outputs": {"id": "plan-estimate", "property": "children"},
        "inputs": [{"id": "plan-ready", "property": "data", "value": {"plan": json.dumps(plan)}}],
        "changedPropIds": ["plan-ready.data"],
    }
    said = client.post("/_dash-update-component", json=body).get_data(as_text=True)
    assert "it reads no folders" in said
    assert session.estimator._process is None
    session.close()

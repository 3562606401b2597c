"""What a batch would run: each job once, nothing twice, refusals by name, costs, and settings from outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.contract import findings_table
from probes.data import ProbeData
from probes.jobs import Job, Record
from probes.plan import Asked, make_plan, merged, read_settings
from probes.requests import Request, read_request_file
from probes.schedule import next_job
from probes.sources import read_sources
from probes.store import Store
from tests.probes.planted import letters_seen, size_of_weights
from workbench.errors import CheckpointError, ConfigError, WorkbenchError

PLANTED = (size_of_weights.PROBE, letters_seen.PROBE)


def plan_of(model_folders, data, store, probes=PLANTED, settings=None, models="*/"):
    sources = read_sources([f"{model_folders}/{models}"])
    return make_plan(Asked(sources, probes, data, settings or {}), store)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def settled(model_folders, letter_data, store):
    """A store in which everything has been done."""
    plan = plan_of(model_folders, letter_data, store)
    for job in plan.jobs:
        table = findings_table([{"measure": "size", "value": 1.0}])
        store.save(Record.of(job, "ok"), table)
    return store


def test_every_probe_is_asked_of_every_model(model_folders, letter_data, store):
    plan = plan_of(model_folders, letter_data, store)
    assert [(job.model, job.probe) for job in plan.jobs] == [
        (model, probe.name) for model in ("encoder", "first", "mlp", "second") for probe in PLANTED
    ]
    refused = plan.table().query("status == 'refused'")
    assert list(refused["model"]) == ["encoder", "encoder"]
    assert "bidirectional: encoder is an encoder of 1 layers" in refused["reason"].iloc[0]
    assert (plan.table().query("status == 'to run'")["seconds"] > 0).all()


def test_what_is_settled_is_not_run_again(model_folders, letter_data, settled):
    assert plan_of(model_folders, letter_data, settled).to_run == ()


@pytest.mark.parametrize("left", [0, 4, 0.5, -1])
def test_a_table_that_was_cut_off_is_asked_again_and_no_other(
    model_folders, letter_data, settled, left
):
    job = plan_of(model_folders, letter_data, settled).jobs[0]
    path = settled.table_path(job.key)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    again = plan_of(model_folders, letter_data, settled)
    assert [one.key for one in again.to_run] == [job.key]
    settled.save(Record.of(job, "ok"), findings_table([{"measure": "size", "value": 1.0}]))
    assert plan_of(model_folders, letter_data, settled).to_run == ()
    assert path.read_bytes() == whole


def test_all_is_asked_anew_on_demand_and_what_is_there_stays(model_folders, letter_data, settled):
    sources = read_sources([str(model_folders / "first")])
    before = {path: path.read_bytes() for path in settled.folder.glob("*.*")}
    plan = make_plan(Asked(sources, PLANTED, letter_data, {}), settled, anew=True)
    assert plan.to_run == plan.jobs and len(plan.jobs) == 2
    assert {path: path.read_bytes() for path in settled.folder.glob("*.*")} == before


BROKEN = {
    "cut off": '{"format": "workbench-transformer-1", "d_model":',
    "incomplete": '{"format": "workbench-transformer-1"}',
    "of another kind": '{"model_type": "nonsense"}',
    "with odd values": '{"model_type": "gpt2", "n_layer": "many"}',
}


@pytest.mark.parametrize("config", BROKEN.values(), ids=BROKEN)
def test_a_model_that_cannot_be_read_fails_in_its_place(
    model_folders, letter_data, store, tmp_path, config
):
    for name in ("a", "b"):
        (tmp_path / "m" / name).mkdir(parents=True)
        (tmp_path / "m" / name / "config.json").write_text(config)
    broken = [str(tmp_path / "m" / name) for name in ("a", "b")]
    names = [*broken, str(model_folders / "first")]
    plan = make_plan(Asked(read_sources(names), PLANTED, letter_data, {}), store)
    assert list(plan.table()["status"]) == ["broken"] * 4 + ["to run"] * 2
    assert all(plan.table()["reason"][:4] != "")
    for job in plan.jobs[:2]:
        store.save(Record.of_refusal(job))
        assert store.record(job.key).status == "failed"
        assert store.record(job.key).error == job.refusal
    # It is asked again: its files may have been mended since.
    again = make_plan(Asked(read_sources(names), PLANTED, letter_data, {}), store)
    assert set(again.waiting) == set(plan.waiting)
    with pytest.raises(CheckpointError, match="a: "):
        make_plan(Asked(read_sources(broken), PLANTED, letter_data, {}), store)


def test_models_whose_files_cannot_be_opened_are_two(
    model_folders, letter_data, store, monkeypatch
):
    def unreadable(source):
        raise CheckpointError(f"cannot read {source.place}: Permission denied")

    good = make_plan(
        Asked(read_sources([str(model_folders / "first")]), PLANTED, letter_data, {}), store
    )
    sources = read_sources([f"{model_folders}/*/"])
    monkeypatch.setattr(
        "probes.sources.ModelSource.hash",
        property(
            lambda source: (
                good.jobs[0].model_hash if source.label == "first" else unreadable(source)
            )
        ),
    )
    plan = make_plan(Asked(sources, PLANTED, letter_data, {}), store)
    assert len(plan.to_run) == 8 and sum(job.is_broken for job in plan.jobs) == 6
    assert "Permission denied" in plan.table()["reason"][0]


def test_a_job_counts_the_documents_that_its_worker_holds(model_folders, letter_data, store):
    long = ProbeData(tuple("a" * 1_000_000 for _ in range(3)), "long")
    assert 3_000_000 <= long.nbytes < 3_001_000
    ours, theirs = (
        plan_of(model_folders, data, store, models="first/").jobs[0] for data in (letter_data, long)
    )
    assert theirs.nbytes - ours.nbytes == long.nbytes - letter_data.nbytes


def test_a_new_version_of_a_probe_recomputes_that_probe_alone(model_folders, letter_data, settled):
    class Newer(size_of_weights.SizeOfWeights):
        version = 2

    plan = plan_of(model_folders, letter_data, settled, (Newer(), letters_seen.PROBE))
    assert [job.probe for job in plan.to_run] == ["size-of-weights"] * 4


def test_other_data_recompute_only_probes_that_read_it(model_folders, letter_data, settled):
    other = letter_data.split(0).train
    plan = plan_of(model_folders, other, settled)
    assert {job.probe for job in plan.to_run} == {"letters-seen"}


def test_other_settings_recompute_only_their_probe(model_folders, letter_data, settled):
    plan = plan_of(model_folders, letter_data, settled, settings={"size-of-weights": {"digits": 3}})
    assert {job.probe for job in plan.to_run} == {"size-of-weights"}


def test_failures_are_asked_again(model_folders, letter_data, settled):
    plan = plan_of(model_folders, letter_data, settled)
    settled.save(Record.of(plan.jobs[0], "failed", error="no luck"))
    assert plan_of(model_folders, letter_data, settled).to_run == plan.jobs[:1]


def test_two_names_of_one_model_share_a_job(model_folders, letter_data, store, tmp_path):
    import shutil

    shutil.copytree(model_folders / "first", tmp_path / "copy")
    sources = read_sources([str(model_folders / "first"), str(tmp_path / "copy")])
    plan = make_plan(Asked(sources, PLANTED, letter_data, {}), store)
    assert len(plan.jobs) == 4 and len(plan.to_run) == 2


def test_a_dry_plan_writes_nothing(model_folders, letter_data, store):
    sources = read_sources([f"{model_folders}/*/"])
    make_plan(Asked(sources, PLANTED, letter_data, {}), store, keep=False)
    assert not store.folder.exists()


def test_the_shape_of_a_model_is_remembered(model_folders, letter_data, store, monkeypatch):
    first = plan_of(model_folders, letter_data, store)
    monkeypatch.setattr("probes.sources.ModelSource.facts", lambda self: pytest.fail("loaded"))
    assert plan_of(model_folders, letter_data, store) == first


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": "x"}'])
def test_a_broken_memory_of_a_shape_is_made_anew(model_folders, letter_data, store, text):
    first = plan_of(model_folders, letter_data, store)
    for path in (store.folder / "facts").iterdir():
        path.write_text(text)
    assert plan_of(model_folders, letter_data, store) == first


def test_settings_from_words():
    words = ["a-b.n=3", "a-b.name=x y", "c.list=[1, 2]"]
    assert read_settings(words) == {"a-b": {"n": 3, "name": "x y"}, "c": {"list": [1, 2]}}
    assert merged({"a": {"n": 1, "m": 2}}, {"a": {"n": 3}}) == {"a": {"n": 3, "m": 2}}
    for wrong in ("n=3", "a.n", ".n=3", "a.=3", ""):
        with pytest.raises(ConfigError, match=r"write probe\.field=value"):
            read_settings([wrong])


def test_settings_of_nobody_are_refused(model_folders, letter_data, store):
    with pytest.raises(ConfigError, match="settings for 'x', which is not asked"):
        plan_of(model_folders, letter_data, store, settings={"x": {"n": 1}})
    with pytest.raises(ConfigError, match="size-of-weights has no setting 'n'"):
        plan_of(model_folders, letter_data, store, settings={"size-of-weights": {"n": 1}})


YAML = """
models: [attn-2l, "runs/*/"]
probes: all
workers: 2
memory: 4GB
out: reports/first
settings: {residual-norms: {n_prompts: 3}}
"""
TOML = """
models = ["attn-2l", "runs/*/"]
probes = "all"
workers = 2
memory = "4GB"
out = "reports/first"
[settings.residual-norms]
n_prompts = 3
"""


def test_a_plan_in_a_file(tmp_path):
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "a.toml").write_text(TOML)
    request = Request(**read_request_file(tmp_path / "a.yaml"))
    assert request == Request(**read_request_file(tmp_path / "a.toml"))
    assert request.models == ("attn-2l", "runs/*/")
    assert request.settings == {"residual-norms": {"n_prompts": 3}}
    assert request.out == "reports/first" and Request(models=("a",)).out == "report"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", "plans are .yaml or .toml"),
        ("a.yaml", "models: [a", "cannot be read"),
        ("a.toml", "models = [", "cannot be read"),
        ("a.yaml", "- models", "must hold names and values"),
        ("a.yaml", "modles: a", "no 'modles' in a plan"),
        ("a.yaml", "models: 3", "models must be names"),
        ("a.yaml", "models: [[a]]", "models must be names"),
        ("a.yaml", "settings: {a: 1}", "settings must be fields by probe"),
        ("a.yaml", "workers: two", "workers cannot be 'two'"),
        ("a.yaml", "out: 3", "out cannot be 3"),
        ("a.yaml", "workers: true", "workers cannot be True"),
        ("a.yaml", "a: !!python/object/apply:os.system [id]", "cannot be read"),
        ("a.yaml", "[" * 1200, "cannot be read"),
        ("a.yaml", "\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_request_file(tmp_path / name)


def test_a_request_of_no_meaning_is_refused():
    with pytest.raises(ConfigError, match="no models"):
        Request(models=())
    with pytest.raises(ConfigError, match="local or ray, not 'slurm'"):
        Request(models=("a",), engine="slurm")
    with pytest.raises(ConfigError, match="needs --engine ray"):
        Request(models=("a",), address="auto")
    with pytest.raises(ConfigError, match="out must be a folder"):
        Request(models=("a",), out=" ")


def a_job(spec="a", seconds=1.0, nbytes=1.0, probe="p"):
    return Job(spec, spec, None, spec, probe, "m", 1, "weights", "{}", "", "", seconds, nbytes)


def test_a_worker_keeps_its_model_and_leaves_others_theirs():
    one, two, three = a_job("a"), a_job("b", 9), a_job("c", 5)
    assert next_job([one, two, three], "a", {"b"}, 10) == one
    assert next_job([two, three], "a", {"b"}, 10) == three
    assert next_job([two], "a", {"b"}, 10) == two


def test_long_jobs_come_first_and_what_does_not_fit_waits():
    short, long, huge = a_job(), a_job(seconds=5, probe="q"), a_job(seconds=9, nbytes=99, probe="r")
    assert next_job([short, long, huge], "", (), 10) == long
    assert next_job([huge], "", (), 10) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 9), st.floats(0, 9)), max_size=9))
def test_what_comes_next_always_fits_and_something_does_where_anything_can(rows):
    jobs = [a_job(*row) for row in rows]
    found = next_job(jobs, "a", {"b"}, 5)
    assert (found is None) == all(job.nbytes > 5 for job in jobs)
    assert found is None or found.nbytes <= 5


@pytest.mark.parametrize("given_", [{}, {"model": "a"}, {**a_job().as_dict(), "config": "{"}])
def test_what_is_no_job_is_refused(given_):
    with pytest.raises(WorkbenchError, match="no job"):
        Job.from_dict(given_)

"""The report: from stored results alone, offline, of bounded size, harmless whatever names hold."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from probes.contract import COLUMNS, findings_table
from probes.report import write_report
from probes.report.content import MOST_DRAWN, content, spread_over
from probes.report.discovery import discovered
from probes.report.figures import MAX_BYTES, MAX_BYTES_OF_ALL, Budget
from probes.report.headlines import MOST_COLUMNS
from probes.report.markdown import plain
from probes.report.results import Results
from probes.report.tables import number, shown
from tests.probes.stored import job, rows_of, store_of
from workbench.errors import WorkbenchError
from workbench.figures.theme import TEMPLATE
from workbench.results import read_table

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>|`*_[a](javascript:b)"


def own_part(html):
    """The page without plotly.js, and without the page's own script."""
    return html[: html.index("<script>")]


@pytest.fixture
def report(tmp_path):
    """`report(results)`: page, text and findings of a store of these."""

    def write(results):
        page = write_report(store_of(tmp_path, results), tmp_path / "out")
        folder = page.parent
        return page.read_text(), (folder / "report.md").read_text(), folder / "findings.parquet"

    return write


def test_q_is_benjamini_and_hochberg_over_all_probes_and_each_model_counts_once():
    p = np.array([0.001, 0.02, 0.04, 0.3, np.nan])
    table = findings_table(
        [{"measure": "m", "value": 2.0, "null_mean": 1, "null_std": 0.5, "p": x} for x in p]
    )
    twice = pd.concat(
        [table.assign(key="k", model=name, probe="x") for name in "ab"], ignore_index=True
    )
    found, told = discovered(twice)
    ranks = np.array([1, 2, 3, 4])
    raw = p[:4] * 4 / ranks
    slow = [raw[index:].min() for index in range(4)]
    assert np.allclose(found["q"][:4], slow) and np.allclose(found["q"][5:9], slow)
    assert np.isnan(found["q"][4]) and (found["effect"] == 2).all()
    assert (told.n_findings, told.n_tested, told.n_passing) == (5, 4, 2)
    assert told.n_strict == 1 and told.factor == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4)


def test_a_report_holds_every_finding_and_where_it_comes_from(report):
    jobs = [job("a"), job("b"), job("b", "composition", config='{"offset": 3}')]
    page, text, path = report(
        [(jobs[0], rows_of()), (jobs[1], rows_of()), (jobs[2], rows_of("K-composition"))]
    )
    table, made_by = read_table(path)
    assert (
        set(COLUMNS) | {"model", "probe", "effect", "q"} <= set(table.columns) and len(table) == 12
    )
    assert made_by["models"] == {one.model: one.model_hash for one in jobs}
    assert made_by["false_discovery"] == {"method": "fdr_bh", "level": 0.05, "tests": 12}
    assert "--config composition.offset=3" in made_by["command"]
    for said in (
        "12 of them have a p-value",
        jobs[0].model_hash,
        "Residual stream: length and growth",
    ):
        assert said in page and said in text
    assert text.count("## ") >= 6 and "| model | measure |" in text


def test_a_report_needs_neither_torch_nor_network(tmp_path):
    store_of(tmp_path, [(job("a"), rows_of())])
    code = (
        "import sys; from probes.report import write_report;"
        f"print(write_report({str(tmp_path / 'store')!r}, {str(tmp_path)!r}), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "report.html"), "False"]
    page = (tmp_path / "report.html").read_text()
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", own_part(page))


def test_failed_refused_and_waiting_jobs_are_told_with_their_reasons(report):
    page, text, _ = report(
        [
            (job("good"), rows_of()),
            (job("bad"), ("failed", "ValueError: it broke")),
            (job("odd"), ("refused", "odd has no stream")),
            (job("late"), None),
        ]
    )
    for said in ("ValueError: it broke", "odd has no stream", "it has not been run to its end"):
        assert said in page and said in text
    assert "4 jobs: 1 ok, 1 failed, 1 refused, 1 waiting" in page


def test_a_broken_table_takes_only_itself_with_it(tmp_path):
    bad = job("bad")
    store = store_of(tmp_path, [(job("good"), rows_of()), (bad, rows_of())])
    store.table_path(bad.key).write_bytes(b"PAR1 nothing")
    page = write_report(store, tmp_path / "out").read_text()
    assert "its table is broken" in page and "good" in page
    assert len(read_table(tmp_path / "out" / "findings.parquet")[0]) == 4


def test_figures_that_fail_are_told_of_in_their_place(report, monkeypatch):
    def figures(tables):
        raise KeyError("<b>no column</b>")

    monkeypatch.setattr("probes.pictures.residual_norms.figures", figures)
    page, text, _ = report(
        [(job("a"), rows_of()), (job("a", "copying-eigenvalues"), rows_of("copying"))]
    )
    assert "could not be drawn: KeyError: &#39;&lt;b&gt;no column" in page
    assert "could not be drawn" in text and page.count('class="plot"') >= 1


def test_results_without_any_finding_or_p_make_a_report(report):
    page, _, path = report([(job("a"), ("failed", "x"))])
    assert "0 numbers" in page and len(read_table(path)[0]) == 0


def test_no_p_means_that_nothing_is_said_of_chance(report):
    page, _, _ = report([(job("a"), rows_of(p=(float("nan"),)))])
    assert "nothing is said about chance" in page and "No finding passes." in page


def test_a_store_without_a_plan_is_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="no results in"):
        write_report(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    "given", [{"version": "1"}, {"model": 3}, {"config": "[1]"}, {"probe": "\n"}]
)
def test_a_plan_of_wrong_values_is_refused_by_name(tmp_path, given):
    store = store_of(tmp_path, [])
    listed = job().as_dict() | given
    (store.folder / "plan.json").write_text(json.dumps({"jobs": [listed]}))
    with pytest.raises(WorkbenchError, match=r"plan.json is broken"):
        write_report(store, tmp_path / "out")


def test_hostile_names_and_items_stay_text(report):
    rows = rows_of(item=HOSTILE, unit=HOSTILE) + rows_of(HOSTILE) + rows_of("norm", item="x" * 5000)
    odd = job(HOSTILE, data=HOSTILE)
    surrogate = job("\ud800\u202e\n\0")
    page, text, _ = report(
        [
            (odd, rows),
            (surrogate, rows_of()),
            (job(HOSTILE, HOSTILE), rows_of(HOSTILE)),
            (job(HOSTILE, "composition"), ("failed", HOSTILE)),
        ]
    )
    own = own_part(page)
    assert (
        own.count("<script") == own.count('<script type="application/json"') and "<img" not in own
    )
    assert "x" * 200 not in own and "\u202e" not in page and "\0" not in page
    for found in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', own, re.DOTALL):
        json.loads(found)
    from markdown_it import MarkdownIt

    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert (
        "<script" not in rendered
        and "<img" not in rendered
        and "javascript:b" not in re.findall(r'href="([^"]*)"', rendered)
    )


def test_text_is_bounded_and_shows_what_cannot_be_seen():
    assert shown("a\nb\u202e\ud800") == "a\\nb\\u202e\\ud800" and shown("y" * 99) == "y" * 79 + "…"
    assert plain("a|b<c>") == r"a\|b\<c\>"
    assert (number(float("nan")), number(3.0), number(1234.5678), number(None)) == (
        "",
        "3",
        "1235",
        "",
    )


def test_long_tables_are_cut_and_say_so(report):
    page, text, path = report([(job("a"), rows_of(n=4000))])
    assert "120 of 4,000 rows" in page and "120 of 4,000 rows" in text
    assert len(read_table(path)[0]) == 4000


def test_checkpoints_are_drawn_over_steps(report):
    results = []
    for step in (0, 500, 1000):
        label = f"attn@{step}"
        results += [
            (job(label, "head-behaviours", step=step), rows_of("induction", site="")),
            (
                job(label, "copying-eigenvalues", step=step, kind="weights"),
                rows_of("copying", site=""),
            ),
            (
                job(label, "composition", step=step, kind="weights"),
                rows_of("K-composition", item="0.0"),
            ),
        ]
    page, _, _ = report(results)
    assert '<section id="training">' in page and "induction, largest of all heads" in page
    assert "2 earlier checkpoints are left out here" in page
    drawn = re.search(r'id="training">.*?application/json">(.*?)</script>', page, re.DOTALL).group(
        1
    )
    curves = [trace for trace in json.loads(drawn)["data"] if trace["name"] == "attn"]
    assert [trace["x"] for trace in curves] == [["0", "500", "1000"]] * 3


def test_a_head_has_a_card_with_what_every_probe_says(report):
    small = (1e-6,)
    page, text, _ = report(
        [
            (job("a", "head-behaviours"), rows_of("induction", p=small, site="")),
            (job("a", "head-ablation"), rows_of("effect", p=small, site="z")),
        ]
    )
    card = page[page.index('id="heads"') :]
    assert "<summary>0.0: 2 measures pass, 2 of 2 findings; standing out most: induction 1" in card
    assert "head-ablation" in card and "**0.0**: 2 measures pass" in text


def test_figures_are_bounded_one_by_one_and_together():
    rng = np.random.default_rng(0)
    values = rng.normal(size=10_000)
    cloud = go.Figure(
        go.Scatter(x=np.arange(10_000), y=values, mode="markers", text=["a<b"] * 10_000)
    )
    cloud.update_layout(template=TEMPLATE)
    picture = Budget().pictures([cloud])[0]
    assert (
        0 < len(picture.json) <= MAX_BYTES and "at most" in picture.note and "<" not in picture.json
    )
    assert "template" not in json.loads(picture.json)["layout"]
    size = len(json.loads(picture.json)["data"][0]["text"])
    y = np.frombuffer(_bytes(json.loads(picture.json)["data"][0]["y"]), "<f4")
    assert len(y) == size and np.isclose(np.abs(y).max(), np.abs(values).max())
    grid = go.Figure(go.Heatmap(z=rng.normal(size=(400, 400))))
    assert Budget().pictures([grid])[0].json == ""
    small = go.Figure(go.Scatter(y=values))
    many = Budget().pictures([small] * 40)
    assert sum(len(one.json) for one in many) <= MAX_BYTES_OF_ALL
    assert not many[-1].json and "left out" in many[-1].note


def _bytes(packed):
    import base64

    assert packed["dtype"] == "f4"
    return base64.b64decode(packed["bdata"])


def test_ten_models_and_every_probe_stay_below_eight_megabytes(report):
    from probes.registry import probe_names

    jobs = [job(f"model-{n}", name) for n in range(10) for name in probe_names()]
    rows = rows_of("induction", n=40, item="a token, and more of it: " * 3)
    page, _, _ = report([(one, rows) for one in jobs])
    assert len(page.encode()) < 8_000_000


def test_the_same_results_give_the_same_report(tmp_path):
    store = store_of(tmp_path, [(job("a"), rows_of())])
    first, again = write_report(store, tmp_path / "1"), write_report(store.folder, tmp_path / "2")
    for name in ("report.html", "report.md", "findings.parquet"):
        assert (first.parent / name).read_bytes() == (again.parent / name).read_bytes()


def test_a_probe_that_is_not_known_runs_no_code_of_its_store(report, tmp_path):
    strange = replace(job("a"), probe="strange", module="this")
    page, _, _ = report([(strange, rows_of())])
    assert "This probe is not known here." in page and "this" not in sys.modules


def test_the_command_ends_with_the_report(workbench, model_folders, letter_data, tmp_path):
    (tmp_path / "letters.jsonl").write_text(
        "\n".join(json.dumps({"text": text}) for text in letter_data.documents)
    )
    words = ["--models", model_folders / "mlp", "--probes", "residual-norms"]
    # Refused from its shape alone: no worker is started.
    done = workbench(
        "report", *words, "--data", tmp_path / "letters.jsonl", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'out' / 'report.html'}"
    assert "it has no residual stream" in (tmp_path / "out" / "report.md").read_text()


def test_of_many_models_some_are_drawn_and_the_others_counted(tmp_path):
    names = [f"model-{number:02d}" for number in range(MOST_COLUMNS + 5)]
    store = store_of(tmp_path, [(job(name), rows_of()) for name in names])
    whole = content(Results.read(store))
    (section,) = whole.sections
    assert (
        f"Figures show {MOST_DRAWN} of {len(names)} models, spread over the list." in section.said
    )
    assert len(whole.models.columns) == 2 + MOST_COLUMNS
    assert "5 more models are in findings.parquet" in whole.models.note
    assert whole.findings["model"].nunique() == len(names)
    tables = {name: pd.DataFrame() for name in names}
    drawn = list(spread_over(tables, MOST_DRAWN))
    gaps = np.diff([names.index(name) for name in drawn])
    assert drawn[0] == names[0] and drawn[-1] == names[-1] and set(gaps) == {1, 2}
    assert spread_over(tables, len(names)) is tables

"""What a report says of chance: each test once, nulls that are too coarse, and what stands out of them."""

import json
import re
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from probes.contract import findings_table
from probes.pictures.panels import split_series
from probes.registry import get_probe, probe_names
from probes.report import write_report
from probes.report.coarseness import coarse
from probes.report.content import PER_PROBE, content
from probes.report.discovery import LEVEL, prominence
from probes.report.results import Results
from tests.probes.stored import job, rows_of, store_of
from workbench.results import read_table

FAR = (1e-6,)


def held(tmp_path, *results):
    """What a store of these holds."""
    return Results.read(store_of(tmp_path, results))


def series_of(probe, rows):
    """Two checkpoints and the model, which is the last of them again."""
    hashes = {"attn@0": "early", "attn@9": "late", "attn": "late"}
    steps = {"attn@0": 0, "attn@9": 9, "attn": None}
    return [
        (job(label, probe, model_hash=hashes[label], step=steps[label]), rows) for label in hashes
    ]


# Each test once


def test_a_model_and_its_last_checkpoint_are_told_once_and_the_series_keeps_its_end(tmp_path):
    results = held(tmp_path, *series_of("head-behaviours", rows_of("induction", p=FAR, site="")))
    assert results.side_by_side == ("attn",) and results.repeats == {"attn@9": "attn"}
    told = content(results)
    assert (told.discovery.n_findings, told.discovery.n_tested) == (8, 8)
    assert told.title.startswith("Probe report: 2 models") and "2 jobs: 2 ok" in told.said[0]
    assert [column.name for column in told.models.columns] == ["about", "what", "attn"]
    assert "attn@9 is attn under another name" in told.models.note
    assert "1 earlier checkpoints are left out" in told.models.note
    section = told.sections[0]
    assert section.said[0].startswith("8 rows of 2 models; 8 have a p-value, 8 pass")
    assert section.said[1].startswith("4 rows of earlier checkpoints")
    assert [row[0] for row in section.table.rows] == ["attn"] * 4 and set(told.cards) == {"attn"}
    drawn = json.loads(told.training[0].json)["data"]
    assert [trace["x"] for trace in drawn] == [["0", "9"]] * len(drawn) and drawn
    page = write_report(tmp_path / "store", tmp_path / "out")
    kept = read_table(page.parent / "findings.parquet")[0]
    assert kept["model"].value_counts().to_dict() == {"attn@0": 4, "attn@9": 4, "attn": 4}


def test_a_last_checkpoint_that_differs_from_the_model_is_told_beside_it(tmp_path):
    others = series_of("residual-norms", rows_of())
    others[1] = (job("attn@9", model_hash="nearly", step=9), rows_of())
    results = held(tmp_path, *others)
    assert results.side_by_side == ("attn@9", "attn") and not results.repeats


def test_two_folders_of_one_model_are_told_under_the_first(tmp_path):
    results = held(
        tmp_path, *((job(name, model_hash="same"), rows_of(p=FAR)) for name in ("here", "there"))
    )
    told = content(results)
    assert results.side_by_side == ("here",) and told.discovery.n_tested == 4
    assert len(told.provenance[0][1].rows) == 2, "both names stay on record"


def test_figures_draw_a_model_and_its_equal_last_checkpoint_once():
    table, other = findings_table(rows_of()), findings_table(rows_of(n=3))
    beside, series = split_series({"a@1": other, "a@2": table, "a": table.copy(), "b": table})
    assert list(beside) == ["a", "b"] and list(series["a"]) == [1, 2]
    assert list(split_series({"a@1": other, "a@2": table, "a": other})[0]) == ["a@2", "a"]


# Nulls that are too coarse


def p_values(p_by_probe):
    """A report's tests: p values by probe, each probe of one model."""
    parts = [
        findings_table([{"measure": "m", "value": 1.0, "p": p} for p in values]).assign(
            model="a", probe=name, key=name
        )
        for name, values in p_by_probe.items()
    ]
    return pd.concat(parts, ignore_index=True)


def passes(own, others):
    """Whether Benjamini and Hochberg's procedure itself passes any of its own."""
    p = np.concatenate([own, others])
    return bool(multipletests(p, LEVEL, method="fdr_bh")[0][: len(own)].any())


@pytest.mark.parametrize("seed", range(40))
def test_coarse_is_what_benjamini_and_hochberg_pass_in_no_case(seed):
    rng = np.random.default_rng(seed)
    probe = get_probe(rng.choice(["logit-lens", "copying-eigenvalues"]))
    n_own, n_draws = int(rng.integers(1, 30)), int(rng.integers(19, 400))
    others = rng.random(int(rng.integers(0, 400))) ** rng.choice([1, 2, 6])
    findings = p_values({probe.name: rng.random(n_own), "composition": others})
    found = coarse(probe, {probe.draws: n_draws}, findings)

    def at(n, k):
        return passes(np.full(k, probe.sides / (1 + n)), others)

    # Those of its own that do not lie at the smallest p are as far off as can be.
    def alone(n):
        own = np.concatenate([[probe.sides / (1 + n)], np.ones(n_own - 1)])
        return passes(own[:1], np.concatenate([others, own[1:]]))

    assert (found is None) == at(n_draws, n_own)
    if found is not None:
        assert at(found.needed, n_own) and not at(found.needed - 1, n_own)
        assert alone(found.alone) and not alone(found.alone - 1)


def test_tests_of_other_probes_that_pass_help_a_coarse_null():
    lens, few = get_probe("logit-lens"), {"n_draws": 199}
    own, flat = [0.5] * 2, np.linspace(0.5, 1, 98)
    found = coarse(lens, few, p_values({"logit-lens": own, "composition": flat}))
    # 2 of 100 tests: 0.05 * 2 / 100 = 1 / 1000, and half of that for one alone.
    assert (found.smallest_p, found.needed, found.alone) == (0.005, 999, 1999)
    helped = np.where(np.arange(98) < 8, 1e-9, flat)
    assert coarse(lens, few, p_values({"logit-lens": own, "composition": helped})) is None


def test_a_report_names_the_field_to_raise_in_its_page_and_its_text(tmp_path):
    many = [(job("a", "composition"), rows_of("K-composition", n=396, p=(0.9,)))]
    few = job("a", config='{"n_draws": 99, "seed": 0}')
    page = write_report(store_of(tmp_path, [(few, rows_of()), *many]), tmp_path / "out")
    text = re.sub(r"\\(.)", r"\1", (page.parent / "report.md").read_text())
    # 4 of 400 tests: 0.05 * 4 / 400 = 1 / 2000.
    for said in (
        "n_draws is 99, so that no p is below 0.01, and among the 400 tests",
        "Raise it to 1,999, and to 7,999 for one finding alone",
        "--config residual-norms.n_draws=1999",
        "Nothing that residual-norms found could have passed",
    ):
        assert said in page.read_text() and said in text


def test_more_draws_than_a_probe_takes_are_not_advised():
    found = coarse(
        get_probe("residual-norms"),
        {"n_draws": 99, "seed": 0},
        p_values({"residual-norms": [0.5], "composition": np.ones(9999)}),
    )
    assert found.needed == 199_999 and not found.allowed
    assert "ask fewer models or probes" in found.said and "--config" not in found.said


@pytest.mark.parametrize("config", [{}, {"n_draws": "199"}, {"n_draws": 0}, {"n_draws": None}])
def test_of_a_null_without_draws_nothing_is_said(config):
    tests = p_values({"logit-lens": [0.5], "composition": np.ones(999)})
    assert coarse(get_probe("logit-lens"), config, tests) is None
    assert coarse(get_probe("composition"), {"n_null": 2}, tests) is None, "its p is no rank"


@pytest.mark.parametrize("name", probe_names())
def test_the_field_of_draws_is_one_of_the_config(name):
    probe = get_probe(name)
    assert probe.draws in {"", *(field.name for field in fields(probe.Config))}


# What stands out


def qk_like(n, measure, std=1e-9):
    """Every head lies many standard deviations of its null away, all about as far."""
    return [
        row | {"value": 2.0 + 0.01 * i, "null_std": std} for i, row in enumerate(_rows(n, measure))
    ]


def _rows(n, measure):
    return rows_of(measure, n=n, p=FAR, site="")


def one_head(n, measure):
    """One head does it; the others are at chance."""
    return [
        row | {"value": 1.9 if i == 1 else 1.001 if i % 2 else 0.999, "null_std": 0.05}
        for i, row in enumerate(_rows(n, measure))
    ]


def test_no_probe_of_a_model_fills_what_stands_out_and_the_rest_is_counted(tmp_path):
    geometry = [row for at in range(5) for row in qk_like(12, f"share {at}")]
    told = content(
        held(
            tmp_path,
            (job("a", "qk-geometry", kind="weights"), geometry),
            (job("b", "qk-geometry", kind="weights"), geometry),
            (job("a", "head-behaviours"), one_head(12, "induction")),
        )
    ).standing_out
    names = [column.name for column in told.columns]
    rows = [dict(zip(names, row, strict=True)) for row in told.rows]
    counts = pd.Series([(row["model"], row["probe"]) for row in rows]).value_counts()
    assert counts.to_dict() == {
        ("a", "qk-geometry"): PER_PROBE,
        ("b", "qk-geometry"): PER_PROBE,
        ("a", "head-behaviours"): 2,
    }
    assert "57 of qk-geometry of a, 57 of qk-geometry of b, 10 of head-behaviours of a" in told.note
    # By effect the geometry would come first: its null hardly varies.
    first = rows[0]
    assert (first["probe"], first["of"]) == ("head-behaviours", "1.1")
    assert float(first["effect"]) < float(rows[1]["effect"].replace(",", ""))


def test_prominence_is_by_hand_bounded_and_no_matter_of_a_null_that_hardly_varies():
    off = np.array([3.0, -1.0, 0.0, 0.5])
    table = findings_table(
        [{"measure": "m", "value": 2 + x, "null_mean": 2, "null_std": 0.5, "p": 0.01} for x in off]
    ).assign(model="a", probe="b")
    usual = (9 + 1 + 0 + 0.25) / 4
    assert np.allclose(prominence(table), np.abs(off) / np.sqrt(0.25 + usual))
    tiny, none = (prominence(table.assign(null_std=std)) for std in (1e-12, 0.0))
    assert np.allclose(tiny, none) and none.max() <= 2, "the root of four rows"
    alike = prominence(pd.concat([table.assign(model=model) for model in "ab"], ignore_index=True))
    assert np.allclose(alike, [*prominence(table)] * 2), "each model by itself"
    assert prominence(table.assign(null_mean=np.nan)).isna().all()

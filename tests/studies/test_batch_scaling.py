"""The study of large batches: its kept numbers are quoted and follow from each other; its parts measure."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from probes.sources import read_sources
from probes.store import Store
from studies.batch_scaling import numbers
from studies.batch_scaling.batches import Batch, keeping_seconds, probe_seconds, timed
from studies.batch_scaling.growth import exponents
from studies.batch_scaling.models import letter_documents, tiny_models
from studies.batch_scaling.projection import HOUR, Sweep, projected
from studies.batch_scaling.study import HERE, SMALL, TINY, Config, Findings, slopes, sweeps
from studies.findings import read_findings, read_numbers

PARTS = Sweep(
    probes={"a": 6.0, "b": 2.0},
    loading=0.5,
    per_job=0.5,
    keeping=0.01,
    planning=0.02,
    reporting=0.01,
)


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


def test_the_kept_projection_follows_from_the_kept_parts(kept):
    config = Config()
    again = projected(sweeps(kept.kinds, kept.parts), config.sweep, config.cores)
    pd.testing.assert_frame_equal(again, kept.projection, check_dtype=False, rtol=1e-4)
    found = slopes(kept.many, 2)
    for name, value in found.items():
        assert kept.parts[name].to_numpy() == pytest.approx(value, rel=1e-3)
    fitted = exponents(kept.costs)
    pd.testing.assert_frame_equal(fitted, kept.exponents, check_dtype=False, rtol=1e-3, atol=1e-4)
    assert set(kept.many["models"]) == set(config.many) and 1000 in config.many


def test_one_core_does_everything_in_turn():
    row = PARTS.row(models=10, cores=1)
    alone = 20 * 0.02 + 10 * 0.01
    assert row["jobs"] == 20 and row["work"] * HOUR == pytest.approx(10 * 8 + 20)
    assert row["least"] * HOUR == pytest.approx(100 + alone)
    assert row["least"] == pytest.approx(row["most"])


def test_no_number_of_cores_beats_the_longest_job_or_the_process_that_gathers():
    alone = 20 * 0.02 + 10 * 0.01
    assert PARTS.row(10, 10**6)["least"] * HOUR == pytest.approx(7 + alone)
    slow = replace(PARTS, keeping=2.0)
    assert slow.row(10, 10**6)["least"] * HOUR == pytest.approx(40 + alone)


@pytest.mark.parametrize("cores", [1, 2, 3, 7])
def test_any_list_schedule_lies_between_the_two_bounds(cores):
    """Jobs in any order, each given to whoever is free first."""
    rng = np.random.default_rng(cores)
    sweep = replace(PARTS, keeping=0.0, planning=0.0, reporting=0.0)
    row = sweep.row(models=9, cores=cores)
    for _ in range(20):
        jobs = rng.permutation([7.0, 3.0] * 9)
        free = np.zeros(cores)
        for seconds in jobs:
            free[free.argmin()] += seconds
        assert row["least"] * HOUR <= free.max() + 1e-9 and free.max() <= row["most"] * HOUR + 1e-9


def test_exponents_of_a_planted_law_are_found():
    sizes = [(n, length) for n in (4, 8, 16) for length in (32, 64)]
    table = pd.DataFrame(sizes, columns=["prompts", "tokens"]).assign(probe="p")
    table["seconds"] = 3e-4 * table["prompts"] ** 0.8 * table["tokens"] ** 1.3
    found = exponents(table).set_index("size")
    assert found.loc["prompts", "exponent"] == pytest.approx(0.8)
    assert found.loc["tokens", "exponent"] == pytest.approx(1.3)
    assert (found["r2"] > 0.999).all()


def test_tiny_models_differ_and_are_small(tmp_path):
    sources = read_sources([tiny_models(3, tmp_path)])
    assert len({source.hash for source in sources}) == 3
    assert all(sum(f.stat().st_size for f in s.place.iterdir()) < 40_000 for s in sources)


@pytest.mark.slow
def test_a_batch_is_timed_and_its_records_are_what_probes_took(tmp_path):
    batch = Batch((tiny_models(2, tmp_path / "models"),), TINY, letter_documents(), SMALL)
    row = timed(batch, "local", 1, tmp_path / "out")
    assert (row["models"], row["jobs"], row["workers"]) == (2, 4, 1)
    store = Store(tmp_path / "out" / "store")
    assert row["findings"] == len(store.findings())
    rows = probe_seconds(batch, 1, tmp_path / "out")  # nothing is computed again
    assert sum(one["seconds"] for one in rows) == pytest.approx(row["in_probes"])
    assert row["in_probes"] < row["run"] and row["megabytes"] > 1
    assert 0 < keeping_seconds(store, Store(tmp_path / "again")) < 5


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.batch_scaling.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert 20_000 < (tmp_path / "figure.png").stat().st_size < 400_000

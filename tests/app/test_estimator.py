"""What a run will cost, told by another process: right, patient only so long, and gone with the server."""

import json
from dataclasses import replace

import pytest

from app.estimator import Estimator
from workbench.errors import UnsupportedError
from workbench.training.plan import presets

PLAN = replace(presets()["bimt-independence/bimt"], steps=40)


@pytest.fixture(scope="module")
def estimator():
    found = Estimator(patience=240)
    yield found
    found.close()


def test_a_plan_is_tried_in_another_process_and_its_cost_is_kept(estimator):
    found = estimator(PLAN.to_json())
    assert found.n_parameters == 562 and 0 < found.seconds_per_step < 1
    process = estimator._process
    assert estimator(PLAN.to_json()) is found
    longer = estimator(replace(PLAN, steps=4000).to_json())
    assert longer.seconds > found.seconds and estimator._process is process


def test_a_plan_that_cannot_be_run_is_refused_with_the_reason(estimator):
    broken = json.loads(PLAN.to_json()) | {"lr": -1.0}
    with pytest.raises(UnsupportedError, match="lr"):
        estimator(json.dumps(broken))
    with pytest.raises(UnsupportedError):
        estimator("no plan at all")


def test_one_that_takes_too_long_ends_its_process_and_the_next_is_answered(estimator):
    estimator(PLAN.to_json())
    process = estimator._process
    estimator.patience = 0.0
    try:
        with pytest.raises(UnsupportedError, match="over 0 seconds"):
            estimator(replace(PLAN, steps=50).to_json())
    finally:
        estimator.patience = 240
    assert process.poll() is not None
    assert estimator(replace(PLAN, steps=60).to_json()).n_parameters == 562


def test_closing_ends_the_process(estimator):
    estimator(PLAN.to_json())
    estimator(replace(PLAN, steps=70).to_json())
    process = estimator._process
    estimator.close()
    assert process.poll() is not None and estimator._process is None

"""A panel's table downloads as it was computed, with what made it; nothing else can be asked for."""

import io
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from app.analyses import Question
from app.downloads import table_file
from app.main import create_app
from workbench.errors import WorkbenchError

TABLE = pd.DataFrame(
    {"token": [" the", '=1+"2"\n', "é"], "layer": [0, 1, 2], "value": [0.1, 2, -3]}
)


@pytest.fixture
def asked(session):
    question = Question("lens", "attn-2l", 10, {"prompt": "the cat"})
    answer = session.analyses.ask(question, lambda model, asked, report: TABLE, wait=30)
    return answer.kept


def test_a_parquet_file_holds_the_table_and_what_made_it(session, asked):
    answer = (
        create_app(session).server.test_client().get(f"/api/table/{asked.question.key}.parquet")
    )
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(answer.data)), TABLE)
    made_by = json.loads(pq.read_schema(io.BytesIO(answer.data)).metadata[b"workbench"])
    assert (made_by["analysis"], made_by["model"], made_by["step"]) == ("lens", "attn-2l", 10)
    assert made_by["arguments"] == {"prompt": "the cat"}
    assert "torch" in made_by["versions"]
    assert "lens-attn-2l-step-10.parquet" in answer.headers["Content-Disposition"]


def test_a_csv_file_reads_back_as_the_table(session, asked):
    answer = create_app(session).server.test_client().get(f"/api/table/{asked.question.key}.csv")
    assert answer.mimetype == "text/csv"
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(answer.data)), TABLE)


@pytest.mark.parametrize(
    "name",
    [
        "{key}",
        "{key}.json",
        "{key}.pkl",
        "{key}.csv.exe",
        "0" * 32 + ".csv",
        "..%2f..%2fetc%2fpasswd",
        "%00.csv",
        "x" * 4000 + ".csv",
    ],
)
def test_what_is_no_table_is_not_found(session, asked, name):
    client = create_app(session).server.test_client()
    answer = client.get("/api/table/" + name.format(key=asked.question.key))
    assert answer.status_code == 404
    assert answer.json["error"]


def test_a_name_cannot_break_the_header(session):
    question = Question("lens", 'a"\r\nX-Evil: 1', None, {})
    session.analyses._model_at = lambda name, step, report: name
    answer = session.analyses.ask(question, lambda model, asked, report: TABLE, wait=30)
    found = create_app(session).server.test_client().get(f"/api/table/{answer.key}.csv")
    assert "X-Evil" not in found.headers
    assert found.headers["Content-Disposition"].count('"') == 2


def test_an_answer_without_a_table_says_so(session):
    answer = session.analyses.ask(
        Question("number", "attn-2l"), lambda model, asked, report: 3, wait=30
    )
    with pytest.raises(WorkbenchError, match="number has no table"):
        table_file(answer.kept, "csv")

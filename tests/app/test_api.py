"""The viewer's routes: exact numbers by key, and an answer in JSON to everything else."""

import gzip
import json

import numpy as np
import pytest

from app.state import View
from workbench.figures.attention_view.payload import decode_layer

PROMPT = "the cat sat on the mat"


@pytest.fixture
def shown(session):
    return session.request(View(prompt=PROMPT), wait=30).shown


def test_layers_arrive_as_they_were_computed(client, shown):
    answer = client.get(
        f"/api/attention/{shown.view.key}/layer/1", headers={"Accept-Encoding": "gzip"}
    )
    assert answer.headers["Content-Encoding"] == "gzip"
    _, values = decode_layer(answer.data)
    np.testing.assert_allclose(np.nan_to_num(values), shown.maps.layers[1], atol=0.01)


def test_a_client_without_gzip_is_served_plain(client, shown):
    answer = client.get(f"/api/attention/{shown.view.key}/meta")
    assert "Content-Encoding" not in answer.headers
    assert answer.json["query_tokens"] == PROMPT.split()


def test_a_crosshair_is_exact(client, shown):
    found = client.get(f"/api/attention/{shown.view.key}/cross/1/0/3").json
    np.testing.assert_array_equal(found["row"][:4], shown.maps.layers[1][0, 3, :4])
    assert found["row"][4:] == [None, None]


def test_what_the_browser_has_is_not_sent_again(client, shown):
    path = f"/api/attention/{shown.view.key}/layer/0"
    tag = client.get(path).headers["ETag"]
    again = client.get(path, headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert again.data == b""


@pytest.mark.parametrize(
    "path",
    [
        "/api/attention/{key}/layer/2",
        "/api/attention/{key}/layer/99999999999999999999",
        "/api/attention/{key}/layer/-1",
        "/api/attention/{key}/cross/0/2/0",
        "/api/attention/{key}/cross/0/0/6",
        "/api/attention/{key}/other",
        "/api/attention/" + "0" * 32 + "/meta",
        "/api/attention/..%2f..%2fetc/meta",
        "/api/attention/%00/meta",
        "/api/training/nothing",
        "/api/none",
        "/viewer/payload.py",
        "/viewer/__init__.py",
        "/viewer/..%2fpayload.py",
    ],
)
def test_what_is_not_there_is_said_in_json(client, shown, path):
    answer = client.get(path.format(key=shown.view.key))
    if path.startswith("/viewer/.."):
        assert b"WBA1" not in answer.data
        return
    assert answer.status_code == 404
    assert answer.json["error"]


def test_refusals_of_the_api_are_json_too(client, shown):
    path = f"/api/attention/{shown.view.key}/meta"
    assert client.get(path, headers={"Host": "evil.example"}).json["error"]
    assert client.post(path, json={}).json["error"]


def test_meta_is_plain_json_without_nan(client, shown):
    answer = client.get(
        f"/api/attention/{shown.view.key}/meta", headers={"Accept-Encoding": "gzip"}
    )
    json.loads(gzip.decompress(answer.data), parse_constant=lambda name: pytest.fail(name))


def test_the_viewers_files_are_served_with_their_types(client):
    for name, kind in (("viewer.js", "javascript"), ("viewer.css", "css")):
        with client.get(f"/viewer/{name}") as answer:
            assert kind in answer.content_type


def test_the_view_downloads_as_one_page(client, shown):
    answer = client.get(f"/api/attention/{shown.view.key}/page.html")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "cat" in answer.text


def test_a_download_names_what_it_shows_and_keeps_the_head_that_is_looked_at(client, session):
    view = View(prompt=PROMPT, step=10, kind="scores")
    session.request(view, wait=30)
    path = f"/api/attention/{view.key}/page.html"
    answer = client.get(f"{path}?head=1.1&locked=1&pos=3")
    assert (
        'filename="attention-attn-2l-step-10-scores.html"' in answer.headers["Content-Disposition"]
    )
    assert "<title>attn-2l, step 10, scores before softmax" in answer.text
    assert '{"state":{"layer":1,"head":1,"locked":true,"pos":3}}' in answer.text
    assert client.get(f"{path}?head=%00&pos=x").status_code == 200


def test_a_download_of_two_checkpoints_names_both(client, session):
    view = View(prompt=PROMPT, kind="training", step=100, before=10)
    session.request(view, wait=30)
    answer = client.get(f"/api/attention/{view.key}/page.html")
    assert "attn-2l-step-100-minus-step-10-training" in answer.headers["Content-Disposition"]
    assert "<title>attn-2l, step 100 − step 10" in answer.text

"""Other websites, other hosts and other formats are refused at every kind of route."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from app.main import create_app
from app.security import MAX_REQUEST_BYTES, host_name

CALLBACK = "/_dash-update-component"
ROUTES = ["/", CALLBACK, "/_dash-layout", "/api/attention/x/meta", "/viewer/viewer.js", "/none"]
GOOD = {"Host": "127.0.0.1:8050"}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8050",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "",
        "[::1",
        "0.0.0.0",
        "localhost.",
    ],
)
def test_a_foreign_host_is_misdirected(client, route, host):
    assert client.get(route, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8050", "localhost:9", "[::1]:8050"])
def test_local_names_are_served(client, host):
    assert client.get("/_dash-layout", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        *("{}", "[]", "null", "1", '"x"', "{x", '{"output": "a.b"}', '{"output": "page.children"}'),
        *('{"output": "page.children", "inputs": 1}', '{"output": {}, "inputs": []}'),
    ],
)
def test_junk_sent_to_a_callback_is_a_bad_request(client, body):
    assert client.post(CALLBACK, data=body, content_type="application/json").status_code == 400


@pytest.mark.parametrize("path", ["/_dash-component-suites/os/path.py", "/nowhere", "/a/b"])
def test_what_is_nowhere_is_not_found(client, path):
    assert client.get(path).status_code == 404


def test_the_page_itself_is_built_by_its_callback(client):
    wanted = {
        "output": "page.children",
        "outputs": {"id": "page", "property": "children"},
        "inputs": [
            {"id": "url", "property": "pathname", "value": "/"},
            {"id": "reopen", "property": "data", "value": None},
        ],
        "state": [{"id": "url", "property": "search", "value": "?a=1" + "&b=2" * 40}],
        "changedPropIds": ["url.pathname"],
    }
    answer = client.post(CALLBACK, json=wanted)
    assert answer.status_code == 200
    assert "prompt" in answer.text
    assert "more than 32 fields" in answer.text
    assert "internal error" not in answer.text


def test_a_host_is_named_without_its_port():
    assert host_name("LocalHost:80") == "localhost"
    assert host_name("[::1]:80") == "[::1]"
    assert host_name("[::1") == ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_a_request_from_elsewhere_is_refused(client, headers, status):
    answer = client.post(CALLBACK, json={}, headers=GOOD | headers)
    assert answer.status_code == status


def test_a_callback_from_the_page_itself_is_answered(client):
    headers = GOOD | {"Origin": "http://127.0.0.1:8050", "Sec-Fetch-Site": "same-origin"}
    assert client.post(CALLBACK, json=_page_call("/"), headers=headers).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_read(client, kind):
    answer = client.post(CALLBACK, data="{}", content_type=kind, headers=GOOD)
    assert answer.status_code == 415


def test_a_large_body_is_refused_before_it_is_read(client):
    stated = {"CONTENT_LENGTH": str(MAX_REQUEST_BYTES + 1)}
    answer = client.post(CALLBACK, content_type="application/json", environ_overrides=stated)
    assert answer.status_code == 413


def test_a_body_that_hides_its_length_is_refused_too(client):
    body = b'{"x": "' + b"a" * MAX_REQUEST_BYTES + b'"}'
    answer = client.post(CALLBACK, data=body, content_type="application/json", headers=GOOD)
    assert answer.status_code == 413


@pytest.mark.parametrize("route", ROUTES)
def test_without_the_token_nothing_is_served(session, route):
    guarded = create_app(session, token="s3cret").server.test_client()
    assert guarded.get(route).status_code == 401
    assert guarded.get(f"{route}?token=wrong").status_code == 401
    assert guarded.get(f"{route}?token=é").status_code == 401


def test_the_token_becomes_a_cookie_and_leaves_the_address(session):
    guarded = create_app(session, token="s3cret").server.test_client()
    answer = guarded.get("/?model=attn-2l&token=s3cret&head=1.0")
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/?model=attn-2l&head=1.0"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert guarded.get("/").status_code == 200


def test_a_token_never_redirects_to_another_site(session):
    guarded = create_app(session, token="s3cret").server.test_client()
    answer = guarded.get("//evil.example/x?token=s3cret")
    assert not answer.headers.get("Location", "").startswith("//")


@pytest.mark.parametrize(
    ("host", "status"),
    [("192.168.1.7:8050", 200), ("[fe80::1]", 200), ("evil.example", 421), ("me", 200)],
)
def test_behind_a_token_numeric_addresses_and_named_hosts_are_served(session, host, status):
    guarded = create_app(session, hosts=("Me",), token="s3cret").server.test_client()
    headers = {"Host": host, "Authorization": "Bearer s3cret"}
    assert guarded.get("/", headers=headers).status_code == status


def test_a_bearer_header_serves_scripts(session):
    guarded = create_app(session, token="s3cret").server.test_client()
    assert guarded.get("/", headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert guarded.post(CALLBACK, json={}).status_code == 401


@pytest.mark.parametrize("route", ["/", "/api/attention/x/meta", "/viewer/viewer.js", "/none"])
def test_every_answer_carries_the_policies(client, route):
    with client.get(route) as answer:
        headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in re.search(r"script-src[^;]*", policy)[0]
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"


def test_the_policy_allows_the_inline_scripts_of_the_index_and_no_other(client):
    answer = client.get("/")
    index = re.sub(r"<!--.*?-->", "", answer.text, flags=re.DOTALL)
    inline = re.findall(r"<script(?![^>]*(?:src=|/json))[^>]*>(.*?)</script>", index, re.DOTALL)
    allowed = re.findall(r"'sha256-([^']+)'", answer.headers["Content-Security-Policy"])
    assert [b64encode(sha256(code.encode()).digest()).decode() for code in inline] == allowed


def test_the_index_names_no_other_site(client):
    assert not re.findall(r"(?:src|href)=.?(?:https?:)?//", client.get("/").text)


@pytest.mark.parametrize("variable", ["DASH_DEBUG", "DASH_MCP_ENABLED", "DASH_HOT_RELOAD"])
def test_the_environment_cannot_open_the_app(session, monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("DASH_REQUESTS_PATHNAME_PREFIX", "/elsewhere/")
    client = create_app(session).server.test_client()
    assert "/elsewhere/" not in client.get("/").text
    assert client.post("/_mcp", json={}).status_code in (404, 405)
    assert b"dash-debug-menu" not in client.get("/").data
    assert b'"hot_reload"' not in client.get("/").data


def _page_call(path: str) -> dict:
    return {
        "output": "page.children",
        "outputs": {"id": "page", "property": "children"},
        "inputs": [
            {"id": "url", "property": "pathname", "value": path},
            {"id": "reopen", "property": "data", "value": None},
        ],
        "state": [{"id": "url", "property": "search", "value": ""}],
        "changedPropIds": ["url.pathname"],
    }

"""Serving: local by default, a taken port explained, a public address only with a token."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from app.server import ServeError, address, make_server
from tests.serving import running


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_named_with_what_to_do(session, taken):
    with pytest.raises(ServeError, match=f"port {taken} on 127.0.0.1 is taken.*--port {taken + 1}"):
        make_server(session, "127.0.0.1", taken, token=None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7"])
def test_a_public_address_demands_a_token(session, host):
    with pytest.raises(ServeError, match="token"):
        make_server(session, host, 0, token=None)


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 70000), ("127.0.0.1", -1), ("no.such", 0)]
)
def test_what_cannot_be_bound_is_a_clear_error(session, host, port):
    with pytest.raises(ServeError, match=str(port)):
        make_server(session, host, port, token="t")


def test_the_address_names_the_token_once():
    assert address("127.0.0.1", 8050, None) == "http://127.0.0.1:8050/"
    assert address("0.0.0.0", 8050, "t") == "http://127.0.0.1:8050/?token=t"
    assert address("::1", 8050, None) == "http://[::1]:8050/"


def test_the_server_answers_over_a_real_socket(session):
    with (
        running(session) as address,
        urllib.request.urlopen(f"{address}/", timeout=10) as answer,
    ):
        assert answer.status == 200
        assert "Server" not in answer.headers


@pytest.mark.slow
def test_the_environment_neither_binds_publicly_nor_debugs_and_ctrl_c_ends_cleanly(monkeypatch):
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("DASH_DEBUG", "true")
    code = (
        "from app.server import serve; serve(port=0, announce=lambda line: print(line, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = process.stdout.readline()
    assert first.startswith("Interpretability workbench: http://127.0.0.1:")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Stopped" in out
    assert "Traceback" not in err

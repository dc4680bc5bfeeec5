# A fresh machine needs two commands: make demo, make test. Each makes what it needs.
PYTHON ?= python3
BIN := .venv/bin
# Two processes: what needs Ray shares one, so that there is one Ray.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --durations 30
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: demo test test-all test-isa lint picture

demo: .venv/installed
	$(BIN)/python jobs/demo.py

test: .venv/yolo
	$(PYTEST) -m "not slow"

test-all: .venv/yolo
	command -v chromium > /dev/null || { apt-get -q update && apt-get -qy install chromium; } || true # else the report is not tried in a browser
	$(PYTEST)

test-isa: .venv/installed
	$(BIN)/python tests/isa.py

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy affect jobs

# docs/report.png of README.md, from the report that `make demo` leaves.
picture: .venv/installed
	$(BIN)/python tests/report/picture.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[test]'
	touch $@

.venv/yolo: .venv/installed
	$(BIN)/pip install -q -e '.[yolo]'
	touch $@

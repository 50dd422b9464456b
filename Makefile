# The two commands of the README, and what CI runs beside them. PYTHON, VENV and JOBS can be given: make VENV=/some/where test
PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs/demo
SITE ?= site
JOBS ?= auto
BIN := $(VENV)/bin

.PHONY: install figures demo test slow oldest gpu lint types bench site

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/divkd simulate multiview --preset quick --out $(RUNS)/theory --overwrite
	$(BIN)/divkd train digits --preset smoke --device cpu --out $(RUNS)/practice --overwrite
	$(BIN)/divkd analyse $(RUNS)/practice --images 100 --device cpu --out $(RUNS)/analysis --overwrite
	$(BIN)/divkd figures $(RUNS)/theory $(RUNS)/practice $(RUNS)/analysis --out $(RUNS)/figures
	@echo
	@$(BIN)/divkd report $(RUNS)/theory $(RUNS)/practice $(RUNS)/analysis --out $(RUNS)/report.html --overwrite
	@echo "$(RUNS)/figures: theory beside practice; captions.md says what each figure shows"

figures: install
	$(BIN)/divkd figures docs/results/multiview-default docs/results/plane docs/results/cifar10-cpu-long docs/results/cifar10-cpu-analysis docs/results/mysteries docs/results/ensemble-over-kd --out docs/figures

# A process a core, of one compute thread each (tests/conftest.py); a file's tests share what they train, in one.
test: install
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadscope --no-loadscope-reorder

slow: install
	$(BIN)/python -m pytest -m slow

# The fast tests with the oldest versions that pyproject.toml admits, in an environment of their own; what these say of newer
# libraries below them is no error.
oldest:
	$(PYTHON) -m venv $(VENV)-oldest
	$(PYTHON) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	print(*[d.replace('>=', '==').split('[')[0] for d in p['dependencies'] + p['optional-dependencies']['dev']], sep='\n')" >$(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)-oldest/constraints.txt --editable '.[dev]'
	$(VENV)-oldest/bin/python -m pytest --numprocesses $(JOBS) --dist loadscope --no-loadscope-reorder -W ignore::DeprecationWarning

# Tests, forms of a step, step times and a CIFAR-10 table on a CUDA device, at most 30 minutes a call: docs/gpu.md
gpu: install
	$(BIN)/python benchmarks/gpu/run.py $(GPU)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

bench: install
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# The manual as pages, in site/. Nothing is fetched but what pip installs.
site: install $(VENV)/documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir $(SITE)

$(VENV)/documented: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

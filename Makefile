# Needs only GNU make and Python >= 3.11; every target installs its dependencies, and a second run is fast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# The tests start a thousand processes: without compiled files each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: actionlint setup demo test test-tools compiled-tests check budget lint promtool fault-tools alert-tools lock chart engines clients page fhir-server hl7-server temporal-server otelcol peers audit bench docs faults fuzz release release-sign release-tools mutants simulate simulate-consumers test-docker test-postgres cluster cluster-tools

# A line for each step: pip is silent, and takes minutes on a slow line.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
@echo "1/3  Python environment in $(VENV)"
@$(PYTHON) -m venv $(VENV)
@echo "2/3  packages of $(1), $(2) MB to fetch"
@$(PIP) --require-hashes --requirement $(1)
@echo "3/3  drx-bridge itself"
@$(PIP) --no-deps --no-build-isolation --editable .
@touch $@
endef

$(INSTALLED): requirements-dev.lock pyproject.toml
	$(call install,requirements-dev.lock,327)

# The dependencies of `dev` and `demo`, less than half of all.
$(VENV)/.demo: requirements-demo.lock pyproject.toml
	$(call install,requirements-demo.lock,144)

setup: $(INSTALLED)
	$(BIN)/drx-bridge dev --fetch-only

# Ctrl-C is the normal end, not an error: the shell waits for the end of the tour, which also gets the signal.
demo: $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(VENV)/.demo)
	@trap : INT; $(BIN)/drx-bridge demo $(DEMO) || test $$? -eq 130

lint: $(INSTALLED)
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --quiet --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/drx-bridge schemas check
	if test -x build/tools/actionlint; then build/tools/actionlint; fi

check: $(INSTALLED)
	$(MAKE) --no-print-directory --jobs 2 lint budget
	$(BIN)/pytest --quiet --numprocesses 3 --dist loadfile tests/unit tests/component tests/fuzz

# Size and cost of the project, compared with its limits: lines, settings, verbs, paging alerts, memory and CPU.
budget: $(INSTALLED)
	$(BIN)/python -m tests.budget

# Programs that some faults need and that are not on a Python index; without them these rows are skipped.
fault-tools:
	@export PATH="$$PATH:/usr/sbin"; command -v haproxy >/dev/null && command -v nginx >/dev/null && \
	    command -v slowhttptest >/dev/null || test "$$(id -u)" -ne 0 || ! command -v apt-get >/dev/null || \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends haproxy nginx-light slowhttptest; }

# Programs from Debian and Maven, and Kafka's classes loaded once; tests of missing ones are skipped, with the reason.
test-tools: setup fault-tools
	-$(BIN)/python -m tests.debian promtool
	-$(BIN)/python -m tests.java_cache
	-$(BIN)/python -m tests.temporal.server
	-$(BIN)/python -m tests.hl7v2.hapi

# Three workers for tests with servers, one more than the smallest machine of CI has processors. The fault matrix of the
# ingress comes first, in two of them, and waits for much of its time. With more, some of them starve. A fourth,
# with less priority, has the tests without servers, for the time that the others leave (tests/by_servers.py).
test:
	$(MAKE) --no-print-directory --jobs 2 setup lint fault-tools test-tools compiled-tests
	$(MAKE) --no-print-directory budget
	$(BIN)/pytest --numprocesses 4 --dist loadscope --no-loadscope-reorder --durations 60 $(TESTED)

TESTED := tests/integration tests/faults tests/chart tests/monitoring tests/contract tests/docker tests/unit \
    tests/component tests/fuzz tests/simulation

# Once, in parallel with the linters, and not in each of the four workers.
compiled-tests: $(INSTALLED)
	-$(BIN)/pytest --collect-only -qq $(TESTED) > /dev/null

# promtool, if the PATH has none: unpacked from Debian's package, not installed.
promtool: $(INSTALLED)
	$(BIN)/python -m tests.debian promtool

# Prometheus and Alertmanager for the tests of alerts, fetched the same way; without them these tests are skipped.
alert-tools: $(INSTALLED)
	-$(BIN)/python -m tests.debian prometheus alertmanager

# The chart; part of `test`.
chart: setup
	$(BIN)/pytest tests/chart

# Flink, Spark and Kafka Connect on the topics, as docs/engines.md shows them; 1.7 GB, and not part of `test`.
engines: setup
	$(BIN)/python -m tests.engines.engines
	$(BIN)/pytest tests/engines

# The page of a local stack in a real Chromium, which is the system's; Playwright goes below build/. Not part of `test`.
page: setup
	$(BIN)/python -m tests.page.browser
	$(BIN)/pytest tests/page

# The consumers of docs/examples/clients in Java, Go and Node, with what they need from Maven, the Go proxy and npm by locks;
# not part of `test`.
clients: setup
	$(BIN)/pytest tests/clients

# A HAPI FHIR server for the tests of the consumer `fhir`: jars by the lock, and one compiled file. `test` uses it if it is
# there.
fhir-server: $(INSTALLED)
	$(BIN)/python -m tests.fhir.hapi

# HAPI's HL7 v2 server for the tests of the consumer `hl7v2`, 7 MB by the lock; part of `test`, which skips these tests
# if it cannot be downloaded.
hl7-server: $(INSTALLED)
	$(BIN)/python -m tests.hl7v2.hapi

# A Temporal server for the tests of the consumer `workflow`, 33 MB by the lock; part of `test`, which skips these tests
# if it cannot be downloaded.
temporal-server: $(INSTALLED)
	$(BIN)/python -m tests.temporal.server

# Benthos and the load generator vegeta, with Go and its module proxy: two minutes. Then `python -m tests.bench ingress`.
peers:
	cd tests/peers && CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$(CURDIR)/build/tools/" . github.com/tsenart/vegeta/v12

# The OpenTelemetry Collector for the test of traces, compiled into build/tools; `test` uses it if it is there. Needs Go.
otelcol:
	cd tests/otelcol && CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$(CURDIR)/build/tools/otelcol"

# The whole fault matrix; its short tier is part of `test`. Writes its results into docs/reliability.md.
faults: setup fault-tools alert-tools
	$(BIN)/pytest tests/faults -m "faults or not faults"
	$(BIN)/python -m tests.faults.report

# Simulated worlds of the ingress or of consumers, each defined by its seed: N of them, starting with seed FIRST, or one:
# SIMULATE="--seed 7".
N ?= 1000
FIRST ?= 1
simulate simulate-consumers: $(INSTALLED)
	$(BIN)/python -m tests.simulation $(and $(findstring consumers,$@),--consumers) $(or $(SIMULATE),--seeds $(N) --first $(FIRST))

# Thousands of small changes of the pure modules, each of which the tests must find; takes hours. Some modules:
# MUTANTS="bridge.spool.* consumers.conditions".
mutants: $(INSTALLED)
	$(PIP) --require-hashes --requirement requirements-mutants.lock
	$(BIN)/python -m tests.mutants $(MUTANTS)

# Coverage-guided fuzzing, this many executions over all targets; a short run is part of `check`. Linux only.
FUZZ_EXECUTIONS ?= 1000000
fuzz: $(INSTALLED)
	$(PIP) --require-hashes --requirement requirements-fuzz.lock
	$(BIN)/python -m tests.fuzz --executions $(FUZZ_EXECUTIONS)

# The documentation as a site in build/site; fails on broken links.
docs: $(INSTALLED)
	$(PIP) --require-hashes --requirement requirements-docs.lock
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Known vulnerabilities of the locked packages, from PyPI's advisories (fails without access), and licences.
audit: $(INSTALLED)
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement requirements-audit.lock
	build/audit/bin/pip-licenses --python $(BIN)/python --from mixed --order license
	build/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

# Rewrites all locks, with hashes and without URLs, after a change of pyproject.toml; versions that still fit are kept.
# One after the other: later locks use the versions of the first.
LOCK := build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement requirements-lock.lock
	$(LOCK) pyproject.toml --extra workflow --extra xml -o requirements.lock
	$(LOCK) pyproject.toml --extra archive --extra xml -c requirements.lock -o requirements-archive.lock
	$(LOCK) pyproject.toml --extra workflow --extra xml --extra otel -c requirements.lock -o requirements-otel.lock
	$(LOCK) pyproject.toml --extra dev --extra archive --extra workflow --extra xml --extra otel --group dev -c requirements.lock \
	    -o requirements-dev.lock
	$(LOCK) pyproject.toml --extra dev --group demo -c requirements-dev.lock -o requirements-demo.lock
	$(LOCK) --group docs -c requirements-dev.lock -o requirements-docs.lock
	$(LOCK) --group mutants -c requirements-dev.lock -o requirements-mutants.lock
	for group in build fuzz chart audit lock; do $(LOCK) --group $$group -o requirements-$$group.lock || exit 1; done

bench: setup
	$(BIN)/python -m tests.bench

# Needs a Docker engine, which pulls Kafka and builds the image; for a private registry: DRX_TEST_KAFKA_IMAGE, DRX_TEST_IMAGE_BASE.
test-docker: setup
	$(BIN)/pytest --kafka=docker -m kafka tests

# The chart on a real Kubernetes, under load and faults: the cluster of KUBECONFIG, with images pushed to IMAGE_REPOSITORY,
# else one node that is compiled and started here, as root and with Go, and ends with the tests. Not part of `test`.
# Writes its results into docs/reliability.md.
cluster: setup cluster-tools
	-$(BIN)/python -m tests.debian prometheus
	rm -f build/faults/kubernetes.ndjson
	$(BIN)/pytest tests/kubernetes
	$(BIN)/python -m tests.faults.report

cluster-tools:
	@test -n "$$KUBECONFIG" || { export PATH="$$PATH:/usr/sbin"; \
	    for each in containerd runc iptables ipset dockerd debootstrap; do command -v $$each >/dev/null || missing=1; done; \
	    test -z "$$missing" -a -x /usr/lib/cni/ptp || test "$$(id -u)" -ne 0 || ! command -v apt-get >/dev/null || \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      containerd containernetworking-plugins debootstrap docker.io ipset iptables runc; }; }

# The tests of the database on PostgreSQL 16, 17 and 18.
test-postgres: setup
	$(BIN)/python -m tests.postgres_versions

# The files of a release, from the checked-out commit (see .ci/release.py), without network access.
RELEASE ?= build/release
release: $(INSTALLED)
	$(BIN)/python .ci/release.py "$(VERSION)" $(RELEASE)

# Keyless: the identity comes from a browser or the workflow. With a key: SIGN="--key cosign.key".
release-sign:
	cd $(RELEASE) && cosign sign-blob --yes $(SIGN) --bundle SHA256SUMS.sigstore.json SHA256SUMS
	cd $(RELEASE) && cosign attest-blob --yes $(SIGN) --bundle provenance.sigstore.json --statement provenance.json

# Checks the workflows; `lint` runs it if it is installed. Needs Go.
actionlint:
	GOBIN="$(CURDIR)/build/tools" CGO_ENABLED=0 go install -trimpath github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# Signs a release; without it its test is skipped. Needs Go.
release-tools:
	GOBIN="$(CURDIR)/build/tools" CGO_ENABLED=0 go install -trimpath github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3

# Everything a developer runs. Plain cargo works too; these targets add what the tests need around it.
SHELL := /bin/bash
VENV := .venv
TOOLS := .tools
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: test test-long fault-matrix mixed-load chaos soak fuzz demo bench bench-history lint packages sdk-venv sdk-node page-node prometheus clean

## make test: formatting, lints, unit, integration and SDK tests, documentation
test: packages sdk-venv sdk-node page-node prometheus lint
	CUTOVER_SDK_PYTHON=$(CURDIR)/$(VENV)/bin/python CUTOVER_SDK_NODE=$$(command -v node) \
	CUTOVER_CHROMIUM=$$(command -v chromium) CUTOVER_PROMETHEUS=$(CURDIR)/$(TOOLS)/usr/bin \
	  cargo test --quiet
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items

## make test-long: the statistical promises at their full size, some minutes
test-long:
	cargo test --config profile.test.opt-level=3 --test long -- --ignored --nocapture --test-threads=1

## make fault-matrix: plays every way to fail, and prints what the client gets and what is counted
fault-matrix:
	cargo test --quiet --test it fault_matrix -- --nocapture

## make mixed-load: ten minutes of load while the canary fails in another way every few seconds
mixed-load:
	CUTOVER_MIXED_LOAD_S=600 cargo test --test it mixed_load -- --nocapture

## make chaos: everything breaks at once, under load, some six minutes (CHAOS_S=360, CHAOS_SEED, CHAOS_ROUND)
chaos: packages faketime
	CUTOVER_FAKETIME=$(CURDIR)/$(FAKETIME) cargo test --test chaos -- --ignored --nocapture --exact \
	  storm::whatever_breaks_clients_are_answered_and_nothing_is_forgotten

## make soak: half an hour at 1,000 requests a second; nothing may grow but the store (SOAK_S=1800, SOAK_RATE=1000)
soak: packages
	cargo build --release
	CUTOVER_BIN=$(CURDIR)/target/release/cutover cargo test --test chaos -- --ignored --nocapture --exact \
	  soak::half_an_hour_of_load_leaves_nothing_behind_but_rows

## make fuzz: every parser of bytes from outside, five minutes each (FUZZ_S=300); needs a nightly compiler and cargo-fuzz
FUZZ_S ?= 300
FUZZ_TARGETS ?= sse chat completions embeddings responses messages request config head inflate
fuzz:
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { \
	  echo "make fuzz needs: rustup toolchain install nightly && cargo install cargo-fuzz" >&2; exit 2; }
	cargo +nightly fuzz build --sanitizer none
	cd fuzz && for target in $(FUZZ_TARGETS); do \
	  mkdir -p corpus/$$target && echo "$$target, $(FUZZ_S) s" && \
	  cargo +nightly fuzz run --sanitizer none $$target corpus/$$target seeds/$$target -- \
	    -max_total_time=$(FUZZ_S) -dict=words.dict -verbosity=0 -print_final_stats=1 || exit 1; \
	done

lint:
	cargo fmt --check
	cargo clippy --quiet --all-targets --profile test -- -D warnings

## make demo: a whole migration on this machine
demo:
	cargo run --release -- demo

## make bench: time of a look; CPU per request and per chunk against nginx and HAProxy
bench: bench-packages
	cargo build --release
	cargo bench --bench controller
	cargo bench --bench proxy

## make bench-history: the page and the proxy with 30 days in the store (needs 8 GB of disk)
bench-history:
	cargo bench --bench history

# What the tests need beside the Rust toolchain. Packages that are there already cost nothing.
packages:
	@need=""; \
	command -v sqlite3 >/dev/null || need="$$need sqlite3"; \
	command -v cc >/dev/null || need="$$need gcc libc6-dev"; \
	command -v python3 >/dev/null || need="$$need python3 python3-venv"; \
	python3 -c 'import venv, ensurepip' 2>/dev/null || need="$$need python3-venv"; \
	command -v node >/dev/null || need="$$need nodejs"; \
	command -v npm >/dev/null || need="$$need npm"; \
	command -v chromium >/dev/null || need="$$need chromium"; \
	if [ -n "$$need" ]; then scripts=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  $$scripts apt-get update -qq && $$scripts apt-get install -y -qq --no-install-recommends $$need; fi

bench-packages:
	@need=""; \
	command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || need="$$need nginx"; \
	command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || need="$$need haproxy"; \
	if [ -n "$$need" ]; then scripts=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  $$scripts apt-get update -qq && $$scripts apt-get install -y -qq --no-install-recommends $$need; fi

# The real SDKs of the providers, in a folder of their own.
sdk-venv: $(VENV)/.installed

$(VENV)/.installed: tests/sdk/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/sdk/requirements.txt
	touch $@

sdk-node: tests/sdk/node_modules/.installed

tests/sdk/node_modules/.installed: tests/sdk/package.json
	cd tests/sdk && npm install --silent --no-package-lock --no-audit --no-fund
	touch $@

# Drives the dashboard in Chromium.
page-node: tests/page/node_modules/.installed

tests/page/node_modules/.installed: tests/page/package.json
	cd tests/page && npm install --silent --no-package-lock --no-audit --no-fund
	touch $@

# Prometheus and promtool, unpacked and not installed: nobody wants a server on port 9090 from a test.
prometheus: $(TOOLS)/usr/bin/promtool

$(TOOLS)/usr/bin/promtool: | packages
	@mkdir -p $(TOOLS)
	@cd $(TOOLS) && { apt-get download -qq prometheus || { \
	  scripts=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  $$scripts apt-get update -qq && apt-get download -qq prometheus; }; }
	@dpkg -x $(TOOLS)/prometheus_*.deb $(TOOLS)
	@rm $(TOOLS)/prometheus_*.deb
	touch $@

# Sets the clock of one process. Unpacked and not installed.
FAKETIME := $(TOOLS)/usr/lib/$(shell uname -m)-linux-gnu/faketime/libfaketimeMT.so.1

.PHONY: faketime
faketime: $(FAKETIME)

$(FAKETIME): | packages
	@mkdir -p $(TOOLS)
	@cd $(TOOLS) && { apt-get download -qq libfaketime || { \
	  scripts=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  $$scripts apt-get update -qq && apt-get download -qq libfaketime; }; }
	@dpkg -x $(TOOLS)/libfaketime_*.deb $(TOOLS)
	@rm $(TOOLS)/libfaketime_*.deb
	@touch $@

clean:
	cargo clean
	rm -rf $(VENV) $(TOOLS) tests/sdk/node_modules tests/page/node_modules

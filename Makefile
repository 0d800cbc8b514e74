# The targets a newcomer needs; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: test-http-fuzz examples help setup setup-bench setup-test build run test crash test-clients conformance lint bench bench-http bench-reads bench-writes fuzz clean clean-data

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Arguments for `dsproxy dev`, as in: make run ARGS="--help"
ARGS ?=
# Arguments for the test runner, as in: make test TESTS=embedded
TESTS ?=
# Folder of the public compatibility suite (run.py, cts.json).
CONFORMANCE ?= ../shared/conformance
# Rounds of the crash test.
ROUNDS ?= 4
# Seconds of schemathesis per example, and the seed of what it sends.
HTTP_FUZZ_SECONDS ?= 30
HTTP_FUZZ_SEED ?= $(shell date +%s)
# Seconds per fuzz target.
FUZZ_SECONDS ?= 60

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing (redis-server, postgresql); starts no service
	@scripts/setup.sh

setup-bench: ## Install what the comparison needs, too (haproxy, nutcracker)
	@scripts/setup.sh --bench

setup-test: ## Install what the tests need, too (node, npm, python3-venv)
	@scripts/setup.sh --test

build: ## Build in release mode
	cargo build --release --locked

run: setup build ## Run everything: a Redis Cluster, a Postgres, the proxy (Ctrl-C stops it all)
	@exec "$(TARGET_DIR)/release/dsproxy" dev $(ARGS)

test: setup-test ## Run all tests against real servers
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; cargo nextest run --locked $(TESTS); \
	else \
		set -x; cargo test --locked --lib --bins --tests $(TESTS); \
	fi
	cargo test --locked --doc --quiet

test-clients: setup-test ## Run redis-py, ioredis, node-redis, redis-rs and fred against the proxy
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; cargo nextest run --locked -E 'binary(clients)'; \
	else \
		set -x; cargo test --locked --test clients; \
	fi

examples: setup-test ## Run the five example systems' acceptance tests
	cargo test --locked --test examples

test-http-fuzz: setup-test ## Run schemathesis against the five examples, HTTP_FUZZ_SECONDS each (HTTP_FUZZ_SEED repeats a run)
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; HTTP_FUZZ_SECONDS=$(HTTP_FUZZ_SECONDS) HTTP_FUZZ_SEED=$(HTTP_FUZZ_SEED) \
			cargo nextest run --locked -E 'binary(examples) & test(/^fuzzed::/)'; \
	else \
		set -x; HTTP_FUZZ_SECONDS=$(HTTP_FUZZ_SECONDS) HTTP_FUZZ_SEED=$(HTTP_FUZZ_SEED) \
			cargo test --locked --test examples fuzzed; \
	fi

crash: setup ## Kill proxies, Postgres and Redis under load, ROUNDS times (CRASH_SEED repeats a run)
	ROUNDS="$(ROUNDS)" cargo test --locked --test crash -- --nocapture

conformance: setup ## Run the public compatibility suite, where CONFORMANCE is its folder
	@if [ -f "$(CONFORMANCE)/run.py" ]; then \
		CONFORMANCE="$(abspath $(CONFORMANCE))" cargo test --locked --test conformance -- --nocapture; \
	else \
		echo "conformance: no suite in $(CONFORMANCE); skipped (set CONFORMANCE to its folder)"; \
	fi

lint: ## Check the format and all lints
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings

bench: setup-bench build ## Compare with a direct cluster, HAProxy and nutcracker
	loadtest/bench.py --write
	loadtest/bench.py --append --generators 3 --targets haproxy,nutcracker,dsproxy --scenarios get,get16,set,get500,mget,get10k

bench-writes: setup build ## Measure the writing side: rows/s into Postgres, acknowledged writes/s, restart, an outage
	loadtest/writes.py

bench-reads: setup build ## Measure reads of mapped keys: fills, hits beside slow queries, hits against plain keys
	loadtest/reads.py

bench-http: setup-bench build ## Measure the HTTP side beside a bare hyper server
	cargo build --release --locked --example http_hello
	loadtest/bench_http.py --append

fuzz: ## Fuzz every target for FUZZ_SECONDS (needs cargo-fuzz and a nightly toolchain)
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { \
		echo "fuzz: needs \`rustup toolchain install nightly\` and \`cargo install cargo-fuzz\`" >&2; exit 1; }
	@targets=$$(cargo +nightly fuzz list) && for target in $$targets; do \
		echo "fuzz: $$target for $(FUZZ_SECONDS) s"; \
		mkdir -p "fuzz/corpus/$$target" && \
		cargo +nightly fuzz run "$$target" "fuzz/corpus/$$target" "fuzz/seeds/$$target" -- \
			-max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

clean: ## Remove what the build made (not the data of `make run`)
	cargo clean

clean-data: ## Remove the data of `make run` (.dsproxy)
	@if [ -e .dsproxy/lock ] && ! flock -n .dsproxy/lock true; then \
		echo "clean-data: dsproxy runs (pid $$(cat .dsproxy/lock)); stop it first" >&2; exit 1; \
	fi
	@if [ -L .dsproxy/postgres ]; then rm -rf -- "$$(readlink .dsproxy/postgres)"; fi
	rm -rf .dsproxy

# `make` lists the targets. Each target installs what it needs.

.DEFAULT_GOAL := help
.PHONY: help demo dev demo-build test torture model lint fmt build release dist api-check bench bench-events bench-risk platform-check container-check audit doc clean

CARGO ?= cargo
LEDGER := target/demo/ledger
# What `ledger --version` says about the source. Empty in an archive without git.
# The ceiling keeps git from finding a repository around an unpacked archive.
GIT = GIT_CEILING_DIRECTORIES="$(dir $(CURDIR))" git
BUILD = LEDGER_BUILD_COMMIT="$$($(GIT) describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)" \
  LEDGER_BUILD_DATE="$$($(GIT) log -1 --format=%cs 2>/dev/null)"

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: demo-build ## Run transactions through all roles and verify the result (needs no Kafka)
	@$(LEDGER) demo

dev: demo-build ## Run everything on this machine until Ctrl-C
	@$(LEDGER) dev

# Optimised, but without the slow steps of a release: the profile `demo` of Cargo.toml.
demo-build:
	@scripts/setup.sh build
	@[ -e $(LEDGER) ] || echo "The first build compiles several hundred crates, which takes about 7 minutes on two free cores."
	@$(CARGO) build --locked --profile demo

SECONDS ?= 120
SEED ?=

test: ## Run all tests, on a real PostgreSQL and a real Kafka
	@scripts/setup.sh test
	$(CARGO) test --locked --no-fail-fast

torture: ## Inject random faults under load, then verify: make torture SECONDS=120 SEED=7, or mostly kills with KILLS=2900 (ms)
	@scripts/setup.sh test
	LEDGER_TORTURE_SECONDS=$(SECONDS) LEDGER_TORTURE_SEED=$(SEED) LEDGER_TORTURE_KILLS=$(KILLS) \
	  $(CARGO) test --locked --test integration torture::nothing -- --ignored --nocapture

model: ## Explore leases, outbox and positions with more faults at once than `make test` (minutes, several GB)
	@scripts/setup.sh build
	CARGO_PROFILE_TEST_OPT_LEVEL=2 $(CARGO) test --locked --test integration model::more_faults -- --ignored --nocapture

lint: ## Check formatting, lints, unused dependencies, docs and deployment files
	@scripts/setup.sh build
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	PATH="$$(scripts/platform-tools.sh machete)/bin:$$PATH" $(CARGO) machete --skip-target-dir
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --quiet
	$(CARGO) build --locked
	scripts/lint-platform-quick.sh

fmt: ## Format the code
	$(CARGO) fmt

build: ## Build the development binary, target/debug/ledger
	@scripts/setup.sh build
	@[ -e target/debug/ledger ] || echo "The first build compiles several hundred crates, which takes several minutes on two cores."
	$(CARGO) build --locked

release: ## Build the release binary, target/release/ledger
	@scripts/setup.sh build
	$(BUILD) $(CARGO) build --locked --release

dist: ## Build the release archive with completions, man pages and checksums, target/dist
	@scripts/setup.sh build
	scripts/dist.sh

bench: release ## Measure serve and its reference programs on a private PostgreSQL (about 15 minutes)
	@scripts/setup.sh bench
	bench/bench.py

bench-events: release ## Measure relay and consume-risk on a private Kafka (about 15 minutes)
	@scripts/setup.sh bench
	bench/bench_events.py

bench-risk: release ## Measure consume-risk on accounts with few and many transactions (about 10 minutes)
	@scripts/setup.sh bench
	bench/bench_risk.py

api-check: build ## Test the running API against its OpenAPI description (schemathesis)
	@scripts/setup.sh checks
	scripts/api-check.sh

platform-check: build ## Check chart, compose file, playbook, units and dashboards (minutes; builds tools)
	scripts/platform-check.sh

container-check: build ## Build and run the image, and the playbook on a host with systemd (root; no registry)
	scripts/container-check.sh

audit: ## Check licences and advisories of the dependencies (builds cargo-deny once)
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check

doc: ## Build the documentation of the code, target/doc/ledger/index.html
	$(CARGO) doc --locked --no-deps --document-private-items

clean: ## Remove the build directory
	$(CARGO) clean

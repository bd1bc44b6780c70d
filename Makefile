# Thin on purpose: a line or two for each target; the commands behind them are cargo's and those of scripts/.
# Every cargo command selects the whole workspace and the release profile, so that RocksDB is compiled once for all of them.
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help dev build test check setup sim clean

help: ## List these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

dev: build ## Set up, build, and run a cluster of three nodes on this machine
	@$(TARGET)/release/quorate dev $(ARGS)

build: setup ## Set up, and leave the binaries in target/release
	$(CARGO) build --release --locked --workspace --bins

test: setup ## Set up, and run every test that this machine can run
	@scripts/test

check: setup ## Formatting, lints and documentation
	@scripts/check

sim: ## Run the simulator on 2,000 seeds (more: make sim SEEDS=100000)
	$(CARGO) run --release --locked -p quorate-sim -- run --seeds $(or $(SEEDS),2000)

setup: ## Find out what the build needs, and install it where that is possible
	@scripts/setup

clean: ## Remove what was built (RocksDB takes ten minutes to come back)
	$(CARGO) clean

# What one does with this repository. Needs Rust, and a C and C++ toolchain with cmake; tests and benchmarks need
# Python 3.11 besides.

# One folder for everything built, outside the checkout, so that fresh checkouts build only what changed.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/watershed/target
export WATERSHED ?= $(CARGO_TARGET_DIR)/release/watershed

# How often `make chaos` kills a job or its store, and how many keyed tables `make keyed` holds against a map.
CHAOS ?= 2000
KEYED ?= 3000

# How many seconds `make soak` lasts.
SOAK ?= 1800

# How many queries `make random` draws, and from which seed on.
QUERIES ?= 2000
SEED ?= $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help build demo clean-demo test test-s3 fmt lint features bench chaos keyed random soak

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the watershed binary (the first build takes half an hour on two cores)
	cargo build --release --bin watershed

demo: build ## Stream half a year of real flights out of a lake table (FULL=1: all three million)
	examples/flights/demo.sh

clean-demo: ## Remove what the demo wrote
	rm -rf .demo

test: lint ## Check formatting and lints, and run every test
	WATERSHED_PYTHON="$$(tools/python.sh)" WATERSHED_SPARK="$$(tools/delta.sh)" WATERSHED_DUCKDB="$$(tools/duckdb.sh)" \
		WATERSHED_MINIO="$$(tools/minio.sh)" WATERSHED_AZURITE="$$(tools/azurite.sh)" WATERSHED_KAFKA="$$(tools/kafka.sh)" \
		cargo test --release --workspace

test-s3: ## Run every .slt record with facts, home and results on MinIO
	WATERSHED_ON=minio WATERSHED_PYTHON="$$(tools/python.sh)" WATERSHED_MINIO="$$(tools/minio.sh)" \
		cargo test --release --package watershed --test it every_record_holds

fmt: ## Format the code
	cargo fmt --all

lint: ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- --deny warnings

# Which stores a build can open is up to whoever builds: none of them, or any.
features: ## Lint the library with each object store alone, and with none
	for package in watershed-lake watershed; do for stores in '' aws azure gcp; do \
		echo "$$package with '$$stores'"; \
		cargo clippy --release --package $$package --no-default-features --features "$$stores" -- --deny warnings \
			|| exit 1; \
	done; done

chaos: ## Kill jobs and fail stores CHAOS times (2000), and look for anything lost or done twice
	WATERSHED_CHAOS=$(CHAOS) cargo test --release --package watershed chaos -- --nocapture

keyed: ## Hold KEYED keyed tables (3000) against a map, with writers, upkeep and readers interleaved at random
	WATERSHED_KEYED=$(KEYED) cargo test --release --package watershed-lake --test it keyed:: -- --nocapture

soak: ## Half an hour (SOAK seconds) of live load over Kafka, with kills: nothing lost, nothing twice, memory flat
	WATERSHED_SOAK=$(SOAK) WATERSHED_KAFKA="$$(tools/kafka.sh)" \
		cargo test --release --package watershed --test it kafka::soak -- --nocapture

random: ## Draw QUERIES queries (2000) from SEED on, and hold each against DataFusion's batch answer
	WATERSHED_QUERIES=$(QUERIES) WATERSHED_SEED=$(SEED) \
		cargo test --release --package watershed drawn_queries_hold -- --nocapture

bench: ## Measure against DataFusion, DuckDB and Spark (ARGS='--help' for choices)
	cargo build --release --workspace --bins
	"$$(tools/python.sh)" benchmarks/run.py $(ARGS)

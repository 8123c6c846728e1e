# The one way to build, test and lint this crate; CI (.ci/run) goes through it as well.
.DEFAULT_GOAL := help
# Most tests wait for something: for servers to start, for limits to pass. So more of them than processors run at once.
export RUST_TEST_THREADS ?= $(shell echo $$((3 * $$(getconf _NPROCESSORS_ONLN))))
# Tests of random inputs begin at this seed, so that a red run tells of the change and can be repeated. `make search` takes fresh ones.
export PROPTEST_RNG_SEED ?= 20261130
.PHONY: help search public-items external-types package setup demo tour test test-features test-frameworks test-custom test-fuzz test-servers lint fmt doc bench faults soak bench-report scale count count-renew

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs what tests need beside Rust, where it is missing: Redis, OpenSSL headers, a C compiler
	@scripts/setup

demo: ## Starts the reference server, with everything in memory, and says what to try
	@scripts/demo

tour: setup ## Shows two reference servers on one Redis, and what a revocation at one means at the other
	@scripts/tour

test: setup ## Runs all tests, doctests and examples, then the tests of each feature on its own, then other frameworks, a store from outside, the fuzz targets and other servers
	cargo test --all-features
	scripts/test-features
	scripts/test-frameworks
	scripts/test-custom
	scripts/test-fuzz
	scripts/test-servers

test-features: setup ## Checks the tests of each feature on its own, and of none, and runs them where it matters; with FULL=1 everywhere
	scripts/test-features

test-frameworks: setup ## Runs the examples in other frameworks and beside other verifiers
	scripts/test-frameworks

test-custom: ## Runs the tests of what is plugged in from outside, such as a store in SQLite
	scripts/test-custom

test-fuzz: ## Builds the fuzz targets and runs each for a moment; how to search is in the head of each in fuzz/fuzz_targets
	scripts/test-fuzz

test-servers: setup ## Runs the tests of the Redis store on Redis 6.2, Valkey 8 and Valkey 9; with FULL=1 all that use Redis
	scripts/test-servers

search: setup ## Searches with fresh seeds where `make test` always takes the same: many more random inputs, and HISTORIES of failovers (2000)
	env -u PROPTEST_RNG_SEED PROPTEST_CASES=2000 FAILOVER_HISTORIES=$(or $(HISTORIES),2000) cargo test --all-features --lib

lint: ## Checks formatting and lints; warnings are errors
	cargo fmt --all --check
	cargo fmt --manifest-path examples/frameworks/Cargo.toml --check
	cargo fmt --manifest-path examples/custom/Cargo.toml --check
	cargo fmt --manifest-path benches/report/Cargo.toml --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --all-targets --all-features -- -D warnings
	cargo clippy --lib -- -D warnings
	cargo clippy --lib --no-default-features -- -D warnings
	scripts/check-msrv

fmt: ## Formats the code
	cargo fmt --all
	cargo fmt --manifest-path examples/frameworks/Cargo.toml
	cargo fmt --manifest-path examples/custom/Cargo.toml
	cargo fmt --manifest-path benches/report/Cargo.toml
	cargo fmt --manifest-path fuzz/Cargo.toml

doc: ## Builds the documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

public-items: ## Names and counts the public items; more than there are now are an error
	@scripts/public-items

external-types: ## Names the types of other crates in the public API; one of a further crate is an error
	@scripts/external-types

package: ## Checks what would be published: no private keys, links that work, compiles by itself
	@scripts/check-package

faults: setup ## Breaks Redis and fails it over in every way, attacks a server, and writes into docs/faults.md what was seen
	FAULTS_REPORT=1 cargo test --all-features --test faults
	FAULTS_REPORT=1 FAULTS_ATTACKS=$(or $(ATTACKS),3) cargo test --all-features --test faults
	FAULTS_REPORT=1 FAILOVER=all cargo test --all-features --test failover

soak: setup ## Lets Redis fail for SOAK seconds (200), twice: nothing may grow. Writes the numbers into docs/faults.md
	FAULTS_REPORT=1 FAULTS_SOAK=$(or $(SOAK),200) cargo test --all-features --test faults

bench-report: setup ## Measures all that docs/performance.md says and writes it, after `make scale`; with FULL=1 for ten million revocations too
	cargo run --release --manifest-path benches/report/Cargo.toml --features peers --bin report

scale: setup ## Measures how one Redis carries many mirrors and writes docs/scale.md; with FULL=1 beside ten million revocations
	cargo run --release --manifest-path benches/report/Cargo.toml --features scale --bin scale

count: ## Counts the instructions of the hot paths (valgrind): none may grow by more than 5 %
	scripts/count

count-renew: ## Writes down how many instructions the hot paths take now
	scripts/count --renew

bench: setup ## Runs the benchmarks
	cargo bench --all-features

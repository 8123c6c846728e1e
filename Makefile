# The one way to build, test and lint this crate; CI (.ci/run) goes through it as well.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-features lint fmt doc bench

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs what tests need beside Rust, where it is missing: Redis, OpenSSL headers, a C compiler
	@scripts/setup

demo: setup ## Shows the reference server: two processes, one Redis, and what a revocation means
	@scripts/demo

test: setup ## Runs all tests, doctests and examples, then the tests of each feature on its own
	cargo test --all-features
	scripts/test-features

test-features: setup ## Runs the tests of each feature on its own, and of none
	scripts/test-features

lint: ## Checks formatting and lints; warnings are errors
	cargo fmt --all --check
	cargo clippy --all-targets --all-features -- -D warnings
	cargo clippy --lib -- -D warnings
	cargo clippy --lib --no-default-features -- -D warnings
	scripts/check-msrv

fmt: ## Formats the code
	cargo fmt --all

doc: ## Builds the documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

bench: setup ## Runs the benchmarks
	cargo bench --all-features

//! Mints tokens.

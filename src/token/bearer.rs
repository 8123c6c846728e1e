//! Finds the one token of a request.

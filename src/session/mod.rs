//! Sessions.

mod family;
mod token;

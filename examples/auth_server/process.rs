//! How a server of the examples runs as a process: its logs, and how it ends.

use std::error::Error;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

/// Logs to standard error, and runs until the end: with success, or with the error told.
pub(crate) fn exit_code(
    name: &str,
    run: impl Future<Output = Result<(), Box<dyn Error>>>,
) -> ExitCode {
    // What the Redis client warns of, the store says too: once, and in words.
    let logs =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,fred=error"));
    tracing_subscriber::fmt()
        .with_env_filter(logs)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let result = Builder::new_multi_thread().enable_all().build().map_err(Into::into);
    let result = result.and_then(|runtime| {
        // On the heap: it holds everything that the servers hold.
        let result = runtime.block_on(Box::pin(run));
        // Not to wait for a name that is being resolved: that may take long.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `jwt-revocation`: what an operator does by hand. Revokes and reinstates, says what is revoked
//! and why, follows the log, examines the Redis, and settles what is in doubt after a loss of data.
//!
//! It uses the public API of the crate and nothing else. `docs/cli.md` says how to use it.
//!
//! | file | what it does |
//! | --- | --- |
//! | `args` | the arguments |
//! | `time` | times and durations, as people write them |
//! | `failure` | why a command failed, and with which status it ends |
//! | `output` | a table or a line for people, JSON for programs |
//! | `open` | from the environment and the options to a store and a revoker |
//! | `commands` | one file for each command |

mod args;
mod commands;
mod failure;
mod open;
mod output;
mod time;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};
use crate::failure::{Failure, Status};
use crate::output::{Output, without_tokens};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return misused(&error, &args),
    };
    let output = Output { json: cli.common.json };
    let result = match cli.command {
        Command::Completions { shell } => completions(shell),
        Command::Man { directory } => man(directory.as_deref()),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| Failure::usage(format!("no runtime: {error}"))).and_then(
                |runtime| {
                    let result = runtime.block_on(commands::run(&cli.common, command, output));
                    // Not to wait for a name that is being resolved: that may take long.
                    runtime.shutdown_background();
                    result
                },
            )
        }
    };
    match result {
        Ok(status) => status.into(),
        Err(failure) => output.failure(failure).into(),
    }
}

/// Shows what is wrong with the arguments, and the usage. A token that was given as an argument is
/// not repeated.
fn misused(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let status = error.exit_code();
    if status == 0 {
        // Help, or the version.
        return output::write(error.render().to_string().as_bytes())
            .map_or_else(|failure| Output { json: false }.failure(failure), |()| Status::Done)
            .into();
    }
    let mut text = error.render().to_string();
    if !text.contains("Usage:") {
        text = text.replacen("\nFor more", &format!("\n{}\n\nFor more", usage(args)), 1);
    }
    text = without_tokens(&text);
    if args.iter().any(|arg| arg == "--json") {
        let _ = Output { json: true }.failure(Failure::usage(in_one_line(&text)));
    }
    output::complain(text.trim_end());
    Status::Unacceptable.into()
}

/// What is wrong, without the usage: what is missing, or could have been meant, stands on lines of
/// its own.
fn in_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines =
        lines.take_while(|line| !["Usage:", "For more"].iter().any(|end| line.starts_with(end)));
    let line = lines.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// The usage of the command that was meant.
fn usage(args: &[OsString]) -> String {
    let mut meant = Cli::command();
    meant.build();
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        if let Some(command) = meant.find_subcommand(arg).cloned() {
            meant = command;
        }
    }
    meant.render_usage().to_string()
}

fn completions(shell: clap_complete::Shell) -> Result<Status, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "jwt-revocation", &mut text);
    output::write(&text)?;
    Ok(Status::Done)
}

fn man(directory: Option<&std::path::Path>) -> Result<Status, Failure> {
    let Some(directory) = directory else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut text)
            .map_err(|error| Failure::of_file(&error))?;
        output::write(&text)?;
        return Ok(Status::Done);
    };
    clap_mangen::generate_to(Cli::command(), directory)
        .map_err(|error| Failure::of_file(&error))?;
    Ok(Status::Done)
}

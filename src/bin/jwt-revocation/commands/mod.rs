//! One file for each command.

mod confirm;
mod doctor;
mod doubt;
mod find;
mod import;
mod list;
mod revoke;
mod token;
mod watch;

use crate::args::{Command, Common};
use crate::failure::{Failure, Status};
use crate::output::Output;

/// Runs a command. In boxes, as their futures are large.
pub(crate) async fn run(
    common: &Common,
    command: Command,
    output: Output,
) -> Result<Status, Failure> {
    match command {
        Command::Revoke(args) => Box::pin(revoke::revoke(common, &args, output)).await,
        Command::Reinstate(args) => Box::pin(revoke::reinstate(common, &args, output)).await,
        Command::Find(args) => Box::pin(find::find(common, &args, output)).await,
        Command::Token => Box::pin(token::token(common, output)).await,
        Command::List(args) => Box::pin(list::list(common, &args, output)).await,
        Command::Count => Box::pin(list::count(common, output)).await,
        Command::Doctor => Box::pin(doctor::doctor(common, output)).await,
        Command::Watch => Box::pin(watch::watch(common, output)).await,
        Command::Doubt { command } => Box::pin(doubt::doubt(common, command, output)).await,
        Command::Import(args) => Box::pin(import::import(common, args, output)).await,
        // Need no store, and were done before.
        Command::Completions { .. } | Command::Man { .. } => Ok(Status::Done),
    }
}

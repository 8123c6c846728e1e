//! `import`: takes over what another program has revoked in the same Redis.

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tower_jwt_revocation::store::redis::foreign::ForeignList;
use tower_jwt_revocation::store::redis::{self, ImportReport};

use crate::args::{Common, ImportArgs, KnownList};
use crate::failure::{Failure, Status};
use crate::open::{self, Writing};
use crate::output::Output;

pub(super) async fn import(
    common: &Common,
    args: ImportArgs,
    output: Output,
) -> Result<Status, Failure> {
    let config = open::verifier_config(args.iss.as_deref(), false)?;
    let profile = config.profile()?;
    let lifetime = open::refresh_lifetime(args.lifetime)?;
    let list = list(&args)?;
    let writing = Writing::open_with(common, &list).await?;
    let revoker = writing.revoker(profile, lifetime)?;
    let mut import = redis::Import::new(revoker, &writing.store, &list)?.with_pace(args.pace.get());
    if holds_tokens(&args) {
        import = import.with_verifier(open::verifier(&config).await?);
    }
    if let Some(cursor) = &args.cursor {
        import = import.with_cursor(cursor)?;
    }
    let result = run(&mut import, output).await;
    writing.close().await;
    result
}

/// Page after page, until the end, an error or a signal. What was done is done, and the cursor says
/// where to go on.
async fn run(import: &mut redis::Import, output: Output) -> Result<Status, Failure> {
    let mut term = signal(SignalKind::terminate()).map_err(|error| Failure::of_file(&error))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| Failure::of_file(&error))?;
    // Shows itself on a terminal only. How many entries there are nobody knows.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let stopped = loop {
        let step = tokio::select! {
            step = import.step() => step,
            _ = term.recv() => break Some("it was stopped".into()),
            _ = interrupt.recv() => break Some("it was stopped".into()),
        };
        bar.set_message(sentence(import.report()));
        match step {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => {
                bar.finish_and_clear();
                return Err(at(import, Failure::of_write(&error)));
            }
        }
    };
    bar.finish_and_clear();
    if let Some(error) = stopped {
        let also = serde_json::Map::new();
        return Err(at(import, Failure::Store { error, repeatable: true, also }));
    }
    let report = import.report();
    output.answer(&document(report), || sentence(report))?;
    Ok(Status::Done)
}

/// The failure, with where to go on.
fn at(import: &redis::Import, failure: Failure) -> Failure {
    let failure = match document(import.report()) {
        Value::Object(members) => {
            members.into_iter().fold(failure, |failure, (name, value)| failure.with(&name, value))
        }
        _ => failure,
    };
    match import.cursor() {
        Some(cursor) => failure.with("cursor", (&*cursor).into()),
        None => failure,
    }
}

fn list(args: &ImportArgs) -> Result<ForeignList, Failure> {
    let mut list = match (args.list.list, &args.list.keys, &args.list.set) {
        (Some(KnownList::PlainJti), _, _) => ForeignList::plain_jti(),
        (Some(KnownList::BlacklistedToken), _, _) => ForeignList::blacklisted_token(),
        (Some(KnownList::BlacklistedJtiJson), _, _) => ForeignList::blacklisted_jti_json(),
        (Some(KnownList::TokenFamilyJson), _, _) => ForeignList::token_family_json(),
        (Some(KnownList::RevokedFamilies), _, _) => ForeignList::revoked_families(),
        (None, Some(keys), _) => ForeignList::keys(keys.as_str()),
        (None, None, Some(set)) => ForeignList::set(set.as_str(), args.member.as_str()),
        (None, None, None) => return Err(Failure::usage("which list is missing: --list, --keys")),
    };
    if !args.revoked_values.is_empty() {
        list = list.with_revoked_values(args.revoked_values.iter().map(String::as_str));
    }
    if !args.live_values.is_empty() {
        list = list.with_live_values(args.live_values.iter().map(String::as_str));
    }
    if let Some(kind) = args.kind {
        list = list.with_kind(kind);
    }
    if let Some(issuer) = &args.iss {
        list = list.with_issuer(issuer.as_str());
    }
    Ok(list)
}

/// Whether the entries are tokens, whose ids only a verifier can tell.
fn holds_tokens(args: &ImportArgs) -> bool {
    let template = args.list.keys.as_ref().unwrap_or(&args.member);
    matches!(args.list.list, Some(KnownList::BlacklistedToken)) || template.contains("{token}")
}

fn document(report: ImportReport) -> Value {
    json!({
        "imported": report.imported,
        "known": report.known,
        "live": report.live,
        "unreadable": report.unreadable,
    })
}

fn sentence(report: ImportReport) -> String {
    let ImportReport { imported, known, live, unreadable, .. } = report;
    format!(
        "{imported} imported, {known} known already, {live} without effect, {unreadable} unreadable"
    )
}

//! `revoke` and `reinstate`.

use serde_json::{Map, Value};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Outcome, Record, TargetKind};
use tower_jwt_revocation::revoker::{ReinstateRequest, RevokeRequest};
use tower_jwt_revocation::store::{Receipt, StoreErrorKind};
use tower_jwt_revocation::{Extent, Revoker, Target, TokenProfile};

use super::confirm::{Mirrors, wait_for_mirrors};
use crate::args::{ChangeArgs, Common, NamedArgs, NoteArgs, RevokeArgs};
use crate::failure::{Failure, Status};
use crate::open::{self, Writing};
use crate::output::{
    Output, complain, escaped, holds_token, record_document, shown_record, shown_target,
    target_document,
};

/// The rules by which a target is named, and the target.
pub(super) fn named(args: &NamedArgs) -> Result<(TokenProfile, Target), Failure> {
    let NamedArgs { target, issuer } = args;
    let target = target
        .target(issuer.iss.as_deref())
        .ok_or_else(|| Failure::usage("what is meant is missing: --jti, --user, …"))?;
    let names = [Some(target.id()), target.claim_name(), target.issuer_name()];
    if names.into_iter().flatten().any(holds_token) {
        return Err(Failure::usage(
            "this is a token and not an id, and is written nowhere; the command `token` reads it \
             from standard input and says what its ids are",
        ));
    }
    let owner = match target.kind() {
        TargetKind::Issuer => Some(target.id()),
        _ => issuer.iss.as_deref(),
    };
    Ok((open::profile(owner, issuer.allow_unknown_issuer)?, target))
}

pub(super) async fn revoke(
    common: &Common,
    args: &RevokeArgs,
    output: Output,
) -> Result<Status, Failure> {
    let (profile, target) = named(&args.change.named)?;
    let lifetime = open::refresh_lifetime(args.lifetime)?;
    // What is wrong with the request is found without the store.
    request(&open::trial(&profile)?, args, &target)?.await?;
    let writing = Writing::open(common).await?;
    let revoker = writing.revoker(profile, lifetime)?;
    let written = match expect_match(&revoker, &args.change.named, &target, output).await {
        Ok(()) => {
            let written = request(&revoker, args, &target)?.await;
            written.map_err(|error| Failure::of_write(&error))
        }
        Err(failure) => Err(failure),
    };
    let confirm = args.change.confirm;
    let result = finish(&writing, &revoker, &target, written, confirm, output).await;
    writing.close().await;
    result
}

/// Refuses what no service on the store accepts, unless it is insisted on. Whatever is not known is
/// no reason to.
async fn expect_match(
    revoker: &Revoker,
    named: &NamedArgs,
    target: &Target,
    output: Output,
) -> Result<(), Failure> {
    if named.issuer.allow_unknown_issuer {
        return Ok(());
    }
    match revoker.could_match(target.clone()).await {
        Err(error) if error.kind() == StoreErrorKind::Unmatched => Err(Failure::usage(format!(
            "nothing was written: {error}; if you know better, add \
             --allow-unknown-issuer"
        ))),
        Ok(false) if !output.json => {
            complain(
                "note: no service has said on this store which tokens it accepts, so it is not \
                 known whether any looks for this",
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

fn request(
    revoker: &Revoker,
    args: &RevokeArgs,
    target: &Target,
) -> Result<RevokeRequest, Failure> {
    let mut request = annotated(revoker.revoke(target.clone()), &args.change.note);
    let ends = matches!(
        target.kind(),
        TargetKind::Token | TargetKind::SigningInput | TargetKind::Session | TargetKind::Family
    );
    if args.all {
        request = request.extent(Extent::All);
    }
    match args.until {
        Some(expires_at) if target.kind() == TargetKind::Token => {
            request = request.until(expires_at);
        }
        Some(_) if args.all && !ends => {
            return Err(Failure::usage(format!(
                "--until has no effect beside --all: all tokens of a {} are refused until it is \
                 reinstated",
                target.kind()
            )));
        }
        Some(until) => {
            let now = Timestamp::now();
            if until <= now {
                return Err(Failure::usage(
                    "--until is over; only a token can have expired already",
                ));
            }
            request = request.lifetime(until.saturating_duration_since(now));
        }
        None => {}
    }
    Ok(request)
}

fn annotated(mut request: RevokeRequest, note: &NoteArgs) -> RevokeRequest {
    if let Some(reason) = &note.reason {
        request = request.reason(reason.as_str());
    }
    if let Some(actor) = &note.actor {
        request = request.actor(actor.as_str());
    }
    request
}

pub(super) async fn reinstate(
    common: &Common,
    args: &ChangeArgs,
    output: Output,
) -> Result<Status, Failure> {
    let (profile, target) = named(&args.named)?;
    reinstatement(&open::trial(&profile)?, &args.note, &target).await?;
    let writing = Writing::open(common).await?;
    let revoker = writing.revoker(profile, open::refresh_lifetime(None)?)?;
    let written = reinstatement(&revoker, &args.note, &target).await;
    let written = written.map_err(|error| Failure::of_write(&error));
    let result = finish(&writing, &revoker, &target, written, args.confirm, output).await;
    writing.close().await;
    result
}

fn reinstatement(revoker: &Revoker, note: &NoteArgs, target: &Target) -> ReinstateRequest {
    let mut request = revoker.reinstate(target.clone());
    if let Some(reason) = &note.reason {
        request = request.reason(reason.as_str());
    }
    if let Some(actor) = &note.actor {
        request = request.actor(actor.as_str());
    }
    request
}

/// Waits for the mirrors if that was asked for, and says what was written.
async fn finish(
    writing: &Writing,
    revoker: &Revoker,
    target: &Target,
    written: Result<Receipt, Failure>,
    confirm: Option<std::time::Duration>,
    output: Output,
) -> Result<Status, Failure> {
    let receipt = written?;
    let mirrors = match confirm {
        Some(limit) => Some(wait_for_mirrors(&writing.store, &receipt, limit).await),
        None => None,
    };
    // The write is done; how the record looks now is a courtesy.
    let record = revoker.find(target.clone()).await.ok().flatten();
    let mut document = match &record {
        Some(record) => record_document(record),
        None => absent(target, &receipt),
    };
    let effect = effect(receipt.outcome);
    document.insert("effect".into(), effect.into());
    if let Some(reissue_at) = receipt.reissue_at {
        document.insert("reissue_at".into(), reissue_at.as_millis().into());
    }
    let unconfirmed = mirrors.as_ref().and_then(|mirrors| tell(mirrors, &mut document));
    let text = || {
        let mut text = summary(effect, record.as_ref(), target);
        if let (Some(mirrors), None) = (&mirrors, &unconfirmed) {
            text = format!("{text}\nin effect everywhere, also at {} mirrors", mirrors.applied);
        }
        text
    };
    match &unconfirmed {
        None => output.answer(&document.into(), text).map(|()| Status::Done),
        Some(error) if output.json => {
            document.insert("error".into(), error.as_str().into());
            document.insert("repeatable".into(), true.into());
            output.answer(&document.into(), String::new).map(|()| Status::Unknown)
        }
        Some(error) => {
            output.answer(&document.into(), text)?;
            Err(Failure::Store { error: error.clone(), repeatable: true, also: Map::new() })
        }
    }
}

fn absent(target: &Target, receipt: &Receipt) -> Map<String, Value> {
    let mut document = target_document(target);
    document.insert("at".into(), receipt.at.as_millis().into());
    document
}

/// Notes what the mirrors have said. Why it is not confirmed by all of them, if it is not.
fn tell(mirrors: &Mirrors, document: &mut Map<String, Value>) -> Option<String> {
    document.insert("mirrors".into(), mirrors.applied.into());
    let behind = mirrors.behind.iter().map(|name| Value::from(&**name)).collect();
    document.insert("behind".into(), Value::Array(behind));
    if let Some(error) = &mirrors.error {
        return Some(format!(
            "the write is in force, but whether all mirrors have it is not known; it may be \
             repeated: {error}"
        ));
    }
    let names: Vec<_> = mirrors.behind.iter().map(|name| escaped(name)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the write is in force, but these mirrors have not applied it yet: {}; they do, or \
             stop to answer from memory, within their maximal staleness; it may be repeated",
            names.join(", ")
        )
    })
}

fn effect(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Extended => "extended",
        Outcome::Already => "already",
        Outcome::AlreadyExpired => "already_expired",
        _ => "new",
    }
}

fn summary(effect: &str, record: Option<&Record>, target: &Target) -> String {
    match (effect, record) {
        ("already_expired", _) => {
            format!("{}: already over, so there is nothing to do", shown_target(target))
        }
        ("already", Some(record)) => format!("{} (it was so already)", shown_record(record)),
        ("already", None) => format!("{}: not revoked (it was so already)", shown_target(target)),
        ("extended", Some(record)) => format!("{} (more than before)", shown_record(record)),
        (_, Some(record)) => shown_record(record),
        (_, None) => format!("{}: done", shown_target(target)),
    }
}

//! `token`: whether a token is refused, and why.

use std::io::{IsTerminal as _, Read as _};
use std::sync::Arc;

use serde_json::{Map, Value};
use tower_jwt_revocation::revocation::Record;
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::token::{TokenErrorKind, TokenVerifier as _};
use tower_jwt_revocation::{Revoker, VerifiedToken};

use crate::args::Common;
use crate::failure::{Failure, Status, with_causes};
use crate::open;
use crate::output::{Output, complain, escaped, record_document, shown_record};

/// More than any token that a profile can accept.
const MAX_BYTES: u64 = 1024 * 1024;

pub(super) async fn token(common: &Common, output: Output) -> Result<Status, Failure> {
    let config = open::verifier_config(None, false)?;
    // A setting that cannot work is found before the token is read.
    config.profile()?;
    let redis = open::redis_config(common)?;
    let text = read()?;
    let verifier = open::verifier(&config).await?;
    // Who has written this line is of no interest; what they meant is the token.
    let text = text.trim();
    let text = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        _ => text,
    };
    let token = match verifier.verify(text) {
        Ok(token) => token,
        Err(error) if error.kind() == TokenErrorKind::NoKeys => {
            return Err(Failure::Store {
                error: with_causes(&error),
                repeatable: true,
                also: Map::new(),
            });
        }
        Err(error) => {
            let known = verifier.verify_for_revocation(text).ok();
            return unacceptable(output, known.as_deref(), &with_causes(&error));
        }
    };
    let store = Box::pin(redis.connect()).await?;
    let revoker = Revoker::new(store.clone(), verifier.profile().clone())?;
    let standing = store.check(&token).answer().await;
    // Why, if that can be told. Who refuses it has decided already.
    let by = revoker.explain(&token).await;
    match standing {
        Ok(Standing::Live) => {
            let by = by?;
            // Revoked since.
            if by.is_empty() { live(output, &token) } else { revoked(output, &token, &by, None) }
        }
        Ok(Standing::Revoked(cause)) => {
            revoked(output, &token, &by.unwrap_or_default(), Some(cause.kind.as_str()))
        }
        Ok(_) => Err(Failure::usage("the store gave an answer that this version does not know")),
        Err(error) => match error.kind() {
            StoreErrorKind::DataLoss => {
                let why = format!("in doubt: {}", with_causes(&error));
                unacceptable(output, Some(&token), &why)
            }
            _ => Err(error.into()),
        },
    }
}

/// The token, from standard input.
fn read() -> Result<String, Failure> {
    let input = std::io::stdin();
    if input.is_terminal() {
        complain("the token, then Ctrl-D:");
    }
    let mut bytes = Vec::new();
    input
        .lock()
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::of_file(&error))?;
    // What is no text is no token, which the verifier says.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn document(token: Option<&VerifiedToken>, valid: bool, by: &[Record]) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("valid".into(), valid.into());
    document.insert("revoked".into(), false.into());
    let by = by.iter().map(|record| record_document(record).into()).collect();
    document.insert("by".into(), Value::Array(by));
    let Some(token) = token else { return document };
    for (name, text) in [("iss", token.issuer()), ("sub", token.subject()), ("jti", token.id())] {
        if let Some(text) = text {
            document.insert(name.into(), text.into());
        }
    }
    document
}

fn named(token: &VerifiedToken) -> String {
    let names = [("token", token.id()), ("of user", token.subject()), ("by", token.issuer())];
    let names = names.into_iter().filter_map(|(name, text)| Some((name, text?)));
    names.map(|(name, text)| format!("{name} {}", escaped(text))).collect::<Vec<_>>().join(" ")
}

fn live(output: Output, token: &Arc<VerifiedToken>) -> Result<Status, Failure> {
    let document = document(Some(token), true, &[]);
    output.answer(&document.into(), || format!("live: {}", named(token)))?;
    Ok(Status::Done)
}

fn revoked(
    output: Output,
    token: &VerifiedToken,
    by: &[Record],
    kind: Option<&str>,
) -> Result<Status, Failure> {
    let mut document = document(Some(token), true, by);
    document.insert("revoked".into(), true.into());
    if let (true, Some(kind)) = (by.is_empty(), kind) {
        document.insert("by".into(), serde_json::json!([{ "kind": kind }]));
    }
    output.answer(&document.into(), || {
        let mut text = format!("revoked: {}", named(token));
        for record in by {
            text = format!("{text}\n  {}", shown_record(record));
        }
        if let (true, Some(kind)) = (by.is_empty(), kind) {
            text = format!("{text}\n  by its {kind}");
        }
        text
    })?;
    Ok(Status::Refused)
}

fn unacceptable(
    output: Output,
    token: Option<&VerifiedToken>,
    error: &str,
) -> Result<Status, Failure> {
    let mut document = document(token, false, &[]);
    document.insert("error".into(), error.into());
    document.insert("repeatable".into(), false.into());
    output.answer(&document.into(), || {
        let token = token.map(|token| format!(" ({})", named(token))).unwrap_or_default();
        format!("not acceptable{token}: {}", escaped(error))
    })?;
    Ok(Status::Unacceptable)
}

//! `find`: whether a target is revoked.

use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::Record;
use tower_jwt_revocation::{Revoker, Target};

use super::revoke::named;
use crate::args::{Common, NamedArgs};
use crate::failure::{Failure, Status};
use crate::open;
use crate::output::{Output, record_document, shown_record, shown_target, target_document};

pub(super) async fn find(
    common: &Common,
    args: &NamedArgs,
    output: Output,
) -> Result<Status, Failure> {
    let (profile, target) = named(args)?;
    // What is wrong with the target is found without the store.
    open::trial(&profile)?.find(target.clone()).await?;
    let store = open::store(common).await?;
    let record = Revoker::new(store, profile)?.find(target.clone()).await?;
    let record = record.filter(|record| record.until() > Timestamp::now());
    let is_revoked = record.as_ref().is_some_and(Record::is_in_effect);
    let mut document = match &record {
        Some(record) => record_document(record),
        None => target_document(&target),
    };
    document.insert("revoked".into(), is_revoked.into());
    output.answer(&document.into(), || match &record {
        Some(record) => shown_record(record),
        None => not_revoked(&target),
    })?;
    Ok(if is_revoked { Status::Refused } else { Status::Done })
}

fn not_revoked(target: &Target) -> String {
    format!("{}: not revoked", shown_target(target))
}

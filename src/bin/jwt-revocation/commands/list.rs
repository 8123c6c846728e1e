//! `list` and `count`.

use std::collections::HashSet;
use std::num::NonZeroUsize;

use serde_json::json;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::Record;
use tower_jwt_revocation::store::{ListQuery, RevocationStore as _};

use crate::args::{Common, ListArgs};
use crate::failure::{Failure, Status};
use crate::open;
use crate::output::{self, Output, escaped, record_document, table};
use crate::time::shown;

/// How many records are looked at in one round trip.
const PAGE: NonZeroUsize = NonZeroUsize::new(1000).expect("not zero");

const HEADER: [&str; 6] = ["SINCE", "KIND", "REVOKED", "UNTIL", "BY", "ID"];

pub(super) async fn list(
    common: &Common,
    args: &ListArgs,
    output: Output,
) -> Result<Status, Failure> {
    let store = open::store(common).await?;
    let mut query = ListQuery::default();
    query.kind = args.kind;
    query.limit = Some(PAGE);
    let mut left = args.limit.map_or(usize::MAX, NonZeroUsize::get);
    // A record may come twice.
    let mut seen = HashSet::new();
    let mut header = Some(HEADER);
    loop {
        let page = store.list(query.clone()).await?;
        let now = Timestamp::now();
        let records: Vec<_> = page
            .records
            .into_iter()
            .filter(|record| record.is_in_effect() && record.until() > now)
            .filter(|record| seen.insert(record.target().fingerprint()))
            .take(left)
            .collect();
        left -= records.len();
        if output.json {
            for record in &records {
                output::document(&record_document(record).into())?;
            }
        } else if !records.is_empty() {
            let rows: Vec<_> = records.iter().map(row).collect();
            output::text(&table(header.take(), &rows))?;
        }
        query.cursor = page.next;
        if query.cursor.is_none() || left == 0 {
            if seen.is_empty() && !output.json {
                output::complain("nothing of this is revoked under this prefix");
            }
            return Ok(Status::Done);
        }
    }
}

fn row(record: &Record) -> [String; 6] {
    let target = record.target();
    let what = match record.cutoff() {
        Some(cutoff) if !record.revokes_all() => format!("issued until {}", shown(cutoff)),
        _ => "all".into(),
    };
    let mut id = match target.claim_name() {
        Some(claim) => format!("{}={}", escaped(claim), escaped(target.id())),
        None => escaped(target.id()),
    };
    if let Some(issuer) = target.issuer_name().filter(|issuer| !issuer.is_empty()) {
        id = format!("{id} of {}", escaped(issuer));
    }
    if let Some(reason) = record.reason() {
        id = format!("{id} ({})", escaped(reason));
    }
    [
        shown(record.changed_at()),
        target.kind().to_string(),
        what,
        shown(record.until()),
        record.actor().map_or_else(|| "-".into(), |actor| escaped(actor)),
        id,
    ]
}

pub(super) async fn count(common: &Common, output: Output) -> Result<Status, Failure> {
    let count = open::store(common).await?.count().await?;
    output.print(&json!({ "count": count }), || count.to_string())?;
    Ok(Status::Done)
}

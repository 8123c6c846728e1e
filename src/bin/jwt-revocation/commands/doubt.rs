//! `doubt`: which tokens are in doubt after a loss of data, and what an operator decides about it.

use serde_json::{Value, json};
use tower_jwt_revocation::RedisStore;
use tower_jwt_revocation::audit::{AuditEvent, AuditKind};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::{self, StoreError};

use crate::args::{Common, DoubtCommand, NoteArgs};
use crate::failure::{Failure, Status};
use crate::open::{self, Writing};
use crate::output::Output;
use crate::time::shown;

pub(super) async fn doubt(
    common: &Common,
    command: DoubtCommand,
    output: Output,
) -> Result<Status, Failure> {
    match command {
        DoubtCommand::Show => {
            let doubt = open::store(common).await?.read_doubt().await?;
            output.print(&document(doubt), || sentence(doubt))?;
        }
        DoubtCommand::Declare { since, until, note } => {
            let now = Timestamp::now();
            let until = until.unwrap_or(now).min(now);
            if since > until {
                return Err(Failure::usage(
                    "--since is later than until when revocations are missing, which is now unless \
                     --until says otherwise",
                ));
            }
            let writing = Writing::open(common).await?;
            let answer = writing.store.declare_doubt(until).await;
            let event = event(AuditKind::DeclareDoubt, &note);
            tell(writing, event, answer, output).await?;
        }
        DoubtCommand::Accept { note } => {
            let writing = Writing::open(common).await?;
            let answer = accept(&writing.store).await;
            let event = event(AuditKind::AcceptDoubt, &note);
            tell(writing, event, answer, output).await?;
        }
    }
    Ok(Status::Done)
}

async fn accept(store: &RedisStore) -> Result<store::Doubt, StoreError> {
    match store.read_doubt().await? {
        store::Doubt::Lasting { issued_until, .. } => {
            store.accept_tokens_in_doubt(issued_until).await
        }
        // There is nothing to accept, or it ends by itself.
        other => Ok(other),
    }
}

/// Audits what was decided, and says what is in doubt now.
async fn tell(
    writing: Writing,
    event: AuditEvent,
    answer: Result<store::Doubt, StoreError>,
    output: Output,
) -> Result<(), Failure> {
    writing.record(&if answer.is_ok() { event } else { event.failed() });
    let told = match answer {
        Ok(doubt) => output.answer(&document(doubt), || sentence(doubt)),
        Err(error) => Err(Failure::of_write(&error)),
    };
    writing.close().await;
    told
}

fn event(kind: AuditKind, note: &NoteArgs) -> AuditEvent {
    AuditEvent::new(kind).with_reason(note.reason.as_deref()).with_actor(note.actor.as_deref())
}

fn document(doubt: store::Doubt) -> Value {
    match doubt {
        store::Doubt::None => json!({ "doubt": "none" }),
        store::Doubt::Settling => json!({ "doubt": "settling" }),
        store::Doubt::Lasting { issued_until, ends_at } => json!({
            "doubt": "lasting",
            "issued_until": issued_until,
            "ends_at": ends_at,
        }),
        _ => json!({ "doubt": "unknown" }),
    }
}

fn sentence(doubt: store::Doubt) -> String {
    match doubt {
        store::Doubt::None => "no token is in doubt".into(),
        store::Doubt::Settling => {
            "settling: the data is at another server than before, and what this one does not have \
             is being put back; it ends by itself, within half a minute"
                .into()
        }
        store::Doubt::Lasting { issued_until, ends_at } => format!(
            "tokens issued until {} are in doubt, until {}: they are refused, unless the service \
             fails open",
            shown(issued_until),
            shown(ends_at)
        ),
        _ => "a doubt that this version does not know".into(),
    }
}

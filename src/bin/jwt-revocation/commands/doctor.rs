//! `doctor`: whether this Redis is fit to keep revocations.

use std::time::Duration;

use serde_json::{Value, json};
use tower_jwt_revocation::store::redis::{ConnectError, Finding, Report, ServerFigures, Start};
use tower_jwt_revocation::store::{StoreError, StoreErrorKind};
use tower_jwt_revocation::{RedisConfig, RedisStore};

use crate::args::Common;
use crate::failure::{Failure, Status};
use crate::open;
use crate::output::Output;

/// Longer than a connection is being replaced.
const REPLACING: Duration = Duration::from_secs(2);

pub(super) async fn doctor(common: &Common, output: Output) -> Result<Status, Failure> {
    let mut config = open::redis_config(common)?;
    let store = match Box::pin(connect(&config)).await {
        Ok(store) => store,
        // It answers, and cannot be used: what it lacks is to be found out.
        Err(ConnectError::Store(error)) if !is_out_of_reach(&error) => {
            // They are not examined, and some cannot be had without their server.
            config.foreign_lists.clear();
            Box::pin(config.builder()?.with_start(Start::Anyway).connect()).await?
        }
        Err(error) => return Err(error.into()),
    };
    let report = Box::pin(store.doctor()).await;
    if let Some(error) = lost(&store, &report).await {
        return Err(error.into());
    }
    let findings: Vec<_> = report.findings.iter().map(document).collect();
    let is_fit = report.is_fit();
    output.answer(&whole(&report, is_fit, findings), || {
        let lines = report.findings.iter().map(ToString::to_string);
        let servers = report.servers.iter().map(|server| format!("server: {}", escaped(server)));
        let verdict = if is_fit { "this Redis is fit" } else { "this Redis is not fit" };
        lines
            .chain(servers)
            .chain(kept(&report))
            .chain([verdict.into()])
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    Ok(if is_fit { Status::Done } else { Status::Refused })
}

/// Connects. A server that is away is waited for, as by any command. One that is there and a
/// replica is told at once: it becomes the primary for a reason, and not by waiting.
async fn connect(config: &RedisConfig) -> Result<RedisStore, ConnectError> {
    let mut at_once = config.clone();
    (at_once.start, at_once.start_limit_secs) = (Some(Start::AtOnce), None);
    let at_once = async {
        match Box::pin(at_once.connect()).await {
            Ok(store) => Ok(store),
            Err(ConnectError::Store(error)) if error.kind() == StoreErrorKind::NotPrimary => {
                Err(ConnectError::Store(error))
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        connected = Box::pin(config.connect()) => connected,
        connected = at_once => connected,
    }
}

/// The report for programs, with whether the server is fit.
fn whole(report: &Report, is_fit: bool, findings: Vec<Value>) -> Value {
    // What is not known is left out of it.
    let mut document = serde_json::to_value(report).unwrap_or_else(|_| json!({}));
    if let Value::Object(members) = &mut document {
        members.insert("fit".into(), is_fit.into());
        members.insert("findings".into(), findings.into());
    }
    document
}

/// What a server says of itself, without what a terminal would take for a command.
fn escaped(server: &ServerFigures) -> String {
    crate::output::escaped(&server.to_string())
}

/// How much is kept.
fn kept(report: &Report) -> Option<String> {
    let number = |number: Option<u64>, what: &str| {
        number.map(|number| format!("{number} {what}{}", if number == 1 { "" } else { "s" }))
    };
    let kept = [number(report.revocations, "revocation"), number(report.sessions, "session")];
    let kept: Vec<_> = kept.into_iter().flatten().collect();
    (!kept.is_empty()).then(|| format!("kept: {}", kept.join(", ")))
}

/// Whether the server could not be asked, or did not let us in. That of a right that is missing is
/// for the report.
fn is_out_of_reach(error: &StoreError) -> bool {
    match error.kind() {
        StoreErrorKind::Unreachable | StoreErrorKind::Timeout | StoreErrorKind::Loading => true,
        StoreErrorKind::Denied => !error.to_string().contains("NOPERM"),
        _ => false,
    }
}

/// Why the server was lost during the examination, if it was. A connection that is being replaced
/// is not said to be down, so that is waited for.
async fn lost(store: &RedisStore, report: &Report) -> Option<StoreError> {
    let mut health = store.watch_health();
    if report.findings.iter().any(|finding| finding.is_error() && finding.subject == "reachable") {
        let told = health.wait_for(|health| health.error().is_some());
        let _ = tokio::time::timeout(REPLACING, told).await;
    }
    store.health().error().filter(|error| is_out_of_reach(error)).cloned()
}

fn document(finding: &Finding) -> Value {
    let severity = match (finding.is_error(), finding.is_warning()) {
        (true, _) => "error",
        (false, true) => "warning",
        (false, false) => "info",
    };
    let mut document = json!({
        "severity": severity,
        "subject": finding.subject,
        "sentence": finding.sentence,
    });
    if let (Value::Object(members), false) = (&mut document, finding.remedy.is_empty()) {
        members.insert("remedy".into(), finding.remedy.as_str().into());
    }
    document
}

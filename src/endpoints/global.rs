//! Global Token Revocation (draft-parecki-oauth-global-token-revocation): Okta calls it Universal
//! Logout.

use std::sync::Arc;

use futures::FutureExt as _;
use http::StatusCode;
use http::request::Parts;
use serde_json::json;

use super::answer::{Answer, ErrorFormat};
use super::bearer_secret::{SecretDigest, unauthorized};
use super::endpoint::Endpoint;
use super::request::json_object;
use super::subject::{Subject, SubjectOutcome, SubjectRevoker};

impl Endpoint {
    /// The endpoint that ends everything of a user, for a `POST` of `{"sub_id":{…}}` with a subject
    /// identifier (RFC 9493), or `subject` as in earlier drafts. Callers send `secret` in
    /// `Authorization: Bearer`.
    ///
    /// | answer | when |
    /// | --- | --- |
    /// | 204 | the revocation is confirmed |
    /// | 400 | the request is malformed, or the subject is not a user of a format that is understood |
    /// | 401 | the caller is not known |
    /// | 404 | there is no such user: the issuer is none of ours, or the [resolver](SubjectRevoker::with_resolver) says so |
    ///
    /// # Security
    /// With a resolver, callers can find out which users exist.
    #[doc(alias = "universal logout")]
    pub fn global_token_revocation(subjects: SubjectRevoker, secret: impl AsRef<str>) -> Self {
        let secret = SecretDigest::of(secret.as_ref());
        Self::global(subjects, move |head| secret.expect_bearer(head))
    }

    /// As [`global_token_revocation`](Self::global_token_revocation), for callers that `admits`
    /// accepts by the head of the request, such as by a token that they have signed (Okta).
    pub fn global_token_revocation_for(
        subjects: SubjectRevoker,
        admits: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::global(subjects, move |head| if admits(head) { Ok(()) } else { Err(unauthorized()) })
    }

    fn global(
        subjects: SubjectRevoker,
        admits: impl Fn(&Parts) -> Result<(), Answer> + Send + Sync + 'static,
    ) -> Self {
        let subjects = Arc::new(subjects);
        Self::guarded_post("application/json", ErrorFormat::OAuth, admits, move |_, body| {
            let subjects = Arc::clone(&subjects);
            async move { revoke(&subjects, &body).await }.boxed()
        })
    }
}

async fn revoke(subjects: &SubjectRevoker, body: &[u8]) -> Answer {
    let format = ErrorFormat::OAuth;
    let Some(members) = json_object(body) else {
        return format
            .invalid_request("the body is not a JSON object, each member of which is once");
    };
    let subject = match (members.get("sub_id"), members.get("subject")) {
        (Some(_), Some(_)) => return format.invalid_request("two subjects are named"),
        (Some(subject), None) | (None, Some(subject)) => Subject::parse(subject),
        (None, None) => return format.invalid_request("`sub_id` is missing"),
    };
    let subject = match subject {
        Some(subject @ (Subject::Id { .. } | Subject::Other(_) | Subject::Aliases(_))) => subject,
        Some(_) => return format.invalid_request("the subject is not a user"),
        None => return format.invalid_request("the subject is malformed"),
    };
    match subjects.revoke(&subject, None, "all tokens of the user were revoked").await {
        Ok(SubjectOutcome::Revoked) => Answer::empty(StatusCode::NO_CONTENT),
        Ok(SubjectOutcome::Unknown) => {
            Answer::json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }))
        }
        Ok(SubjectOutcome::NotUnderstood) => {
            format.invalid_request("the format of the subject is not understood")
        }
        Err(error) => format.store_error(&error),
    }
}

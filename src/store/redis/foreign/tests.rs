use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::cluster::layout_of;
use super::list::{CompiledLists, ForeignList, ListEntry};
use super::template::{FillError, KeyTemplate};
use super::{ForeignLists, UnsentQuestions};
use crate::clock::Timestamp;
use crate::revocation::{Action, Extent, Revocation, RevocationOrigin, Target, TargetKind};
use crate::store::StoreErrorKind;
use crate::token::TokenProfile;
use crate::token::profile::SignedClaims;
use crate::verified::{Needs, VerifiedToken};

/// The SHA-256 of `abc`.
const ABC_HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ABC_BASE64: &str = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";

fn token(more: &Json) -> VerifiedToken {
    let mut claims = json!({"iss": "i", "sub": "alice", "jti": "t1", "iat": 1000, "exp": 2000});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let profile = TokenProfile::new().without_claim_target("fid").without_claim_target("sid");
    let claims = claims.to_string();
    profile.assert_verified_for_revocation(SignedClaims::new(claims.as_bytes())).unwrap()
}

fn entry(list: &ForeignList, token: &VerifiedToken) -> Result<Option<ListEntry>, StoreErrorKind> {
    let lists = CompiledLists::compile(std::slice::from_ref(list)).unwrap();
    let values = lists.placeholder_values(token);
    lists.all[0].entry_of(&values).map_err(|error| error.kind())
}

fn key(template: &str, token: &VerifiedToken) -> Result<Option<String>, StoreErrorKind> {
    entry(&ForeignList::keys(template), token).map(|entry| entry.map(|entry| entry.key))
}

// === Templates ===

#[test]
fn placeholders_are_filled_in_as_they_are() {
    let token = token(&json!({"fid": "{x}:*?[", "n": 42, "minus": -5, "nul": "a\0\r\nb"}));
    for (template, expected) in [
        ("{jti}", "t1"),
        ("token:blacklist:{jti}", "token:blacklist:t1"),
        ("{sub}:{jti}:end", "alice:t1:end"),
        ("{{{claim:fid}}}", "{{x}:*?[}"),
        ("{{a}}b", ""),
        ("{claim:n}{claim:minus}", "42-5"),
        ("{claim:nul}", "a\0\r\nb"),
        ("é{claim:iss}", "éi"),
    ] {
        if expected.is_empty() {
            ForeignList::keys(template).compile().unwrap_err();
        } else {
            assert_eq!(key(template, &token).unwrap().unwrap(), expected, "{template}");
        }
    }
}

#[test]
fn a_pointer_leads_into_a_claim() {
    let token = token(&json!({
        "user": {"id": 42, "name": "alice", "a/b": {"c": "deep"}},
        "/user/id": "a name of its own",
        "e~f": {"g": "h"},
        "text": "no object",
    }));
    for (template, expected) in [
        ("u:{claim:/user/id}", Some("u:42")),
        ("{claim:/user/id}:{claim:/user/name}", Some("42:alice")),
        ("{claim:/user/a~1b/c}", Some("deep")),
        ("{claim:/e~0f/g}", Some("h")),
        ("{claim:/text/id}", None),
        ("{claim:/user/none}", None),
        ("{claim:/nobody/id}", None),
    ] {
        let found = key(template, &token).ok().flatten();
        assert_eq!(found.as_deref(), expected, "{template}");
    }
    key("{claim:user}", &token).unwrap_err();
}

#[test]
fn a_template_that_cannot_work_is_refused_with_the_reason() {
    let long = "x".repeat(513);
    for (template, word) in [
        ("", "1 to 512 bytes"),
        (&*long, "1 to 512 bytes"),
        ("blacklist", "no placeholder"),
        ("{{jti}}", "no placeholder"),
        ("a{jti", "other half"),
        ("a}jti", "other half"),
        ("{jti}}", "other half"),
        ("{}", "{jti}"),
        ("{JTI}", "{token_sha256:base64url}"),
        ("{claim:}", "{claim:name}"),
        ("{a{jti}", "{claim:name}"),
        ("{token_md5}", "{token_sha256}"),
    ] {
        let error = ForeignList::keys(template).compile().unwrap_err();
        assert_eq!(error.setting(), "foreign_list");
        assert!(error.to_string().contains(word), "{template}: {error}");
    }
    for (list, word) in [
        (ForeignList::set("s", "{jti}").with_revoked_values(["1"]), "no values"),
        (ForeignList::set("s", "x"), "no placeholder"),
        (ForeignList::keys("{jti}").with_live_values(["1"]), "with_revoked_values"),
        (ForeignList::keys("{jti}").with_revoked_values(["1"]).with_live_values(["1"]), "both"),
        (ForeignList::keys("{jti}").with_json_flag(""), "flag"),
    ] {
        assert!(list.compile().unwrap_err().to_string().contains(word));
    }
}

#[test]
fn a_claim_that_makes_no_key_is_an_error_unless_it_may_be_missing() {
    let missing = [json!({}), json!({"fid": null}), json!({"fid": ""})];
    let odd = [
        json!({"fid": true}),
        json!({"fid": 1.5}),
        json!({"fid": ["a"]}),
        json!({"fid": {"a": 1}}),
        json!({"fid": "x".repeat(1025)}),
    ];
    let strict = ForeignList::keys("f:{claim:fid}");
    let lenient = strict.clone().allow_missing_claims();
    for claims in &missing {
        assert!(entry(&strict, &token(claims)) == Err(StoreErrorKind::InvalidInput), "{claims}");
        assert!(entry(&lenient, &token(claims)) == Ok(None), "{claims}");
    }
    // What is there and cannot be looked up is never taken for something that is not listed.
    for claims in &odd {
        assert!(entry(&lenient, &token(claims)) == Err(StoreErrorKind::InvalidInput), "{claims}");
    }
    let payload = br#"{"jti":"1","iat":1000,"exp":2000,"big":1e999}"#;
    let read = TokenProfile::new().assert_verified_for_revocation(SignedClaims::new(payload));
    if let Ok(token) = read {
        let list = ForeignList::keys("{claim:big}").allow_missing_claims();
        assert!(entry(&list, &token) == Err(StoreErrorKind::InvalidInput));
    }
}

#[test]
fn the_token_is_kept_only_as_far_as_it_is_needed() {
    let bare = token(&json!({}));
    let digest = bare.presented_as("abc", Needs::Digest);
    let whole = bare.presented_as("abc", Needs::Text);
    for (template, needs) in [
        ("{jti}", Needs::Claims),
        ("{token_sha256}", Needs::Digest),
        ("{token_sha256:base64url}", Needs::Digest),
        ("{token}", Needs::Text),
        ("{token}{token_sha256}", Needs::Text),
    ] {
        assert_eq!(
            CompiledLists::compile(&[ForeignList::keys(template)]).unwrap().needs(),
            needs,
            "{template}"
        );
        assert_eq!(key(template, &bare).is_ok(), needs == Needs::Claims, "{template}");
        assert_eq!(key(template, &digest).is_ok(), needs <= Needs::Digest, "{template}");
        assert!(key(template, &whole).is_ok(), "{template}");
    }
    for token in [&digest, &whole] {
        assert_eq!(key("r:{token_sha256}", token).unwrap().unwrap(), format!("r:{ABC_HEX}"));
        assert_eq!(key("{token_sha256:base64url}", token).unwrap().unwrap(), ABC_BASE64);
    }
    assert_eq!(key("blacklist:{token}", &whole).unwrap().unwrap(), "blacklist:abc");
    assert!(bare.presented_as("abc", Needs::Claims).text_sha256().is_none());
    assert!(!format!("{whole:?}").contains("abc"));
}

#[test]
fn names_are_read_back_and_patterns_escape_what_a_glob_would_take() {
    for (template, name, read) in [
        ("token:{jti}", "token:t1", Some("t1")),
        ("token:{jti}", "token:", None),
        ("token:{jti}", "tokem:t1", None),
        ("{jti}:x", "a:b:x", Some("a:b")),
        ("{jti}", "t1", Some("t1")),
        ("{{a}}:{jti}:z", "{a}:t1:z", Some("t1")),
        ("{sub}:{jti}", "a:b", None),
    ] {
        assert_eq!(KeyTemplate::parse(template).unwrap().read(name), read, "{template} {name}");
    }
    for (template, pattern) in [
        ("token:blacklist:{jti}", "token:blacklist:*"),
        ("a*b?[c]\\{jti}^", r"a\*b\?\[c\]\\*^"),
        ("{jti}", "*"),
    ] {
        assert_eq!(KeyTemplate::parse(template).unwrap().pattern(), pattern);
    }
}

proptest! {
    #[test]
    fn whatever_an_id_is_it_is_read_back_as_it_was(
        id in ".{1,60}", before in "[^{}]{0,8}", after in "[^{}]{0,8}",
    ) {
        let template = KeyTemplate::parse(&format!("{before}{{jti}}{after}")).unwrap();
        let name = template.render(|_| Ok::<_, FillError>(id.clone().into())).unwrap();
        prop_assert_eq!(template.read(&name), Some(&*id));
    }

    #[test]
    fn no_template_makes_it_panic(source in "[{}a:]{0,12}|.{0,40}") {
        if let Ok(template) = KeyTemplate::parse(&source) {
            let _ = (template.pattern(), template.read(&source));
        }
    }
}

// === What is asked ===

#[test]
fn each_list_asks_with_the_command_that_sees_what_it_means() {
    let asked = |list: ForeignList| {
        let lists = CompiledLists::compile(&[list]).unwrap();
        let foreign = ForeignLists { lists, unsent: UnsentQuestions::default(), nodes: None };
        let token = token(&json!({"fid": "f1"})).presented_as("abc", Needs::Text);
        let (questions, failure) = foreign.questions(&token);
        assert!(failure.is_none());
        let words: Vec<_> = questions
            .iter()
            .map(|question| {
                let arguments: Vec<_> =
                    question.arguments.iter().map(|word| word.as_str().unwrap()).collect();
                format!("{} {}", question.command, arguments.join(" "))
            })
            .collect();
        words.join("; ")
    };
    assert_eq!(asked(ForeignList::plain_jti()), "EXISTS t1");
    assert_eq!(asked(ForeignList::blacklisted_token()), "EXISTS blacklist:abc");
    assert_eq!(asked(ForeignList::revoked_token_sha256()), format!("EXISTS revoked:{ABC_HEX}"));
    assert_eq!(asked(ForeignList::blacklisted_jti_json()), "GET token:blacklist:t1");
    assert_eq!(asked(ForeignList::token_family_json()), "GET token:family:f1");
    assert_eq!(asked(ForeignList::revoked_families()), "SISMEMBER token:revoked_families f1");
    assert_eq!(asked(ForeignList::keys("{jti}").with_revoked_values(["1"])), "GET t1");
    assert_eq!(asked(ForeignList::plain_jti().with_issuer("i")), "EXISTS t1");
    assert_eq!(asked(ForeignList::plain_jti().with_issuer("else")), "");
}

#[test]
fn a_list_names_the_kind_that_its_placeholders_name() {
    let kind = |list: ForeignList| list.compile().unwrap().kind;
    for (template, expected) in [
        ("{jti}", TargetKind::Token),
        ("{claim:tenant}:{jti}:{sub}", TargetKind::Token),
        ("{token_sha256}", TargetKind::Token),
        ("{sub}", TargetKind::User),
        ("{sid}", TargetKind::Session),
        ("{claim:fid}", TargetKind::Family),
        ("{claim:tenant}:{sub}", TargetKind::User),
        ("{claim:tenant}", TargetKind::Claim),
    ] {
        assert_eq!(kind(ForeignList::keys(template)), expected, "{template}");
    }
    assert_eq!(kind(ForeignList::revoked_families()), TargetKind::Family);
    assert_eq!(
        kind(ForeignList::keys("{claim:uti}").with_kind(TargetKind::Token)),
        TargetKind::Token
    );
}

// === What is written ===

fn written_for(list: ForeignList, change: &Revocation) -> usize {
    CompiledLists::compile(&[list]).unwrap().writes_for(std::slice::from_ref(change)).len()
}

fn revocation(target: Target, action: Action) -> Revocation {
    let mut change = Revocation::new(target, std::time::Duration::from_secs(60));
    change.action = action;
    change
}

#[test]
fn only_what_a_list_can_express_is_written_to_it() {
    let all = Action::Revoke(Extent::All);
    let so_far = Action::Revoke(Extent::IssuedSoFar);
    let jti = || ForeignList::keys("b:{jti}").with_writes();
    assert_eq!(written_for(jti(), &revocation(Target::token("t"), all)), 1);
    assert_eq!(written_for(jti(), &revocation(Target::token("t"), Action::Reinstate)), 1);
    assert_eq!(written_for(ForeignList::keys("b:{jti}"), &revocation(Target::token("t"), all)), 0);
    assert_eq!(written_for(jti(), &revocation(Target::session("t"), all)), 0);
    let user = || ForeignList::keys("u:{sub}").with_writes();
    assert_eq!(written_for(user(), &revocation(Target::user("a"), all)), 1);
    assert_eq!(written_for(user(), &revocation(Target::user("a"), so_far)), 0);
    let tenant = || ForeignList::keys("x:{claim:tenant}").with_writes();
    assert_eq!(written_for(tenant(), &revocation(Target::claim("tenant", "acme"), all)), 1);
    assert_eq!(written_for(tenant(), &revocation(Target::claim("role", "acme"), all)), 0);
    // Another claim than the id would have to be made up.
    let two = || ForeignList::keys("x:{claim:tenant}:{jti}").with_writes();
    assert_eq!(written_for(two(), &revocation(Target::token("t"), all)), 0);
    let of = |issuer: &str| jti().with_issuer(issuer);
    assert_eq!(written_for(of("i"), &revocation(Target::token("t").issued_by("i"), all)), 1);
    assert_eq!(written_for(of("i"), &revocation(Target::token("t").issued_by("j"), all)), 0);

    // Of more than a token, a list of tokens can say the one that asked for it, and no more.
    let mut session = revocation(Target::session("s"), all);
    session.origin = RevocationOrigin::Token(token(&json!({"sid": "s"})));
    assert_eq!(written_for(jti(), &session), 1);
    assert_eq!(written_for(user(), &session), 0);
    session.action = Action::Revoke(Extent::IssuedUntil(Timestamp::from_secs(1)));
    assert_eq!(written_for(jti(), &session), 0, "the token was issued later");
    session.action = Action::Reinstate;
    assert_eq!(written_for(jti(), &session), 0);

    let mut change = revocation(Target::token("t1"), all);
    change.origin = RevocationOrigin::Token(token(&json!({"tenant": "acme"})));
    assert_eq!(written_for(two(), &change), 1);
    let by_token = || ForeignList::blacklisted_token().with_writes();
    assert_eq!(written_for(by_token(), &change), 0);
    change.origin = RevocationOrigin::Token(token(&json!({})).presented_as("abc", Needs::Text));
    assert_eq!(written_for(by_token(), &change), 1);
    change.origin = RevocationOrigin::List;
    assert_eq!(written_for(jti(), &change), 0);
}

#[test]
fn a_write_says_which_lists_cannot_say_it() {
    let lists = [
        ForeignList::keys("b:{jti}").with_writes(),
        ForeignList::keys("f:{claim:fid}").with_writes(),
        ForeignList::keys("read:{jti}"),
        ForeignList::keys("theirs:{jti}").with_issuer("theirs").with_writes(),
    ];
    let lists = CompiledLists::compile(&lists).unwrap();
    let unlisted = |target, action| lists.unlisted(&revocation(target, action), &[]).join(" ");
    let (all, so_far) = (Action::Revoke(Extent::All), Action::Revoke(Extent::IssuedSoFar));
    assert_eq!(unlisted(Target::user("a"), so_far), "b:{jti} f:{claim:fid}");
    assert_eq!(unlisted(Target::session("s"), all), "b:{jti} f:{claim:fid}");
    assert_eq!(unlisted(Target::token("t"), all), "", "one of them says it");
    assert_eq!(unlisted(Target::family("f"), all), "");
    assert_eq!(unlisted(Target::user("a"), Action::Reinstate), "");
    let theirs = Target::user("a").issued_by("theirs");
    assert_eq!(unlisted(theirs, so_far), "b:{jti} f:{claim:fid} theirs:{jti}");
    let mut session = revocation(Target::session("s"), all);
    session.origin = RevocationOrigin::Token(token(&json!({"sid": "s"})));
    assert_eq!(lists.unlisted(&session, &[]).len(), 2, "one token is not all of the session");
    #[cfg(feature = "sessions")]
    {
        let family = || Target::family("f1");
        session.origin = RevocationOrigin::Ends([family()].into());
        assert!(lists.unlisted(&session, &[]).is_empty(), "its family is");
        assert_eq!(lists.writes_for(&[session.clone()]).len(), 1);
        session.action = Action::Reinstate;
        assert_eq!(lists.writes_for(&[session.clone()]).len(), 0);
        session.action = all;
        session.origin = RevocationOrigin::Ends([Target::device("d")].into());
        assert_eq!(lists.unlisted(&session, &[]).len(), 2);
    }
}

#[test]
fn a_list_of_the_live_keeps_the_entry_of_a_user_of_whom_a_session_is_spared() {
    let list = ForeignList::keys("live:{sub}").absent_means_revoked_even_if_lost().with_writes();
    let lists = CompiledLists::compile(&[list]).unwrap();
    let mut change = revocation(Target::user("a"), Action::Revoke(Extent::IssuedSoFar));
    assert_eq!(
        (lists.writes_for(&[change.clone()]).len(), lists.unlisted(&change, &[]).len()),
        (1, 0)
    );
    change.sparing = Some(Target::session("s"));
    assert_eq!(
        (lists.writes_for(&[change.clone()]).len(), lists.unlisted(&change, &[]).len()),
        (0, 1)
    );
    change.sparing = None;
    change.action = Action::Revoke(Extent::IssuedUntil(Timestamp::from_secs(1)));
    assert_eq!(
        (lists.writes_for(&[change.clone()]).len(), lists.unlisted(&change, &[]).len()),
        (0, 1)
    );
}

#[test]
fn a_layout_is_which_slots_belong_together() {
    let layout = layout_of(&[Some(0), Some(1), None]);
    assert_eq!(layout, layout_of(&[Some(7), Some(2), None]));
    for other in [[Some(0), Some(0), None], [Some(0), Some(1), Some(0)], [None, Some(1), None]] {
        assert_ne!(layout, layout_of(&other));
    }
}

#[test]
fn no_error_and_no_debug_shows_what_was_filled_in() {
    let lists = CompiledLists::compile(&[ForeignList::blacklisted_token()]).unwrap();
    let secret = token(&json!({})).presented_as("secret-token", Needs::Text);
    let list = Arc::clone(&lists.all[0]);
    let values = lists.placeholder_values(&secret);
    let entry = list.entry_of(&values).unwrap().unwrap();
    assert!(entry.key.contains("secret-token"));
    let error = list.decide(&fred::types::Value::Null).unwrap_err();
    assert!(!format!("{error} {error:?} {lists:?} {list:?}").contains("secret-token"));
}

use proptest::prelude::*;

use super::*;
use crate::revocation::{Spared, SparedTime, TargetKind};

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![Just(0), 1..5u64, 1_700_000_000_000..1_900_000_000_000u64, Just(MAX_INTEGER)]
        .prop_map(Timestamp::from_millis)
}

/// A doubt, or when one has ended, or neither.
fn doubt() -> impl Strategy<Value = (Doubt, Option<Timestamp>)> {
    let later = || time().prop_map(|time| time.max(Timestamp::from_millis(1)));
    prop_oneof![
        Just((Doubt::None, None)),
        later().prop_map(|ended_at| (Doubt::None, Some(ended_at))),
        (later(), time())
            .prop_map(|(issued_until, ends_at)| (Doubt::Lasting { issued_until, ends_at }, None)),
    ]
}

fn words() -> impl Strategy<Value = Option<Arc<str>>> {
    proptest::option::of(".{0,20}".prop_map(Arc::from))
}

fn target() -> impl Strategy<Value = Target> {
    let id = prop_oneof![".{0,40}", Just("a}{b:\n\0\"\\ \u{7f}\u{202e}".to_owned())];
    (0..TargetKind::ALL.len(), id, ".{1,20}", ".{0,20}").prop_map(|(kind, id, claim, issuer)| {
        let target = match TargetKind::ALL[kind] {
            TargetKind::Claim => Target::claim(claim, id),
            kind => Target::new(kind, id),
        };
        target.issued_by(issuer)
    })
}

fn spared() -> impl Strategy<Value = Spared> {
    let one = || {
        (any::<[u8; 16]>(), time())
            .prop_map(|(id, time)| SparedTime { session: Fingerprint::from_bytes(id), time })
    };
    [prop::option::of(one()), prop::option::of(one())].prop_map(Spared::of_times)
}

prop_compose! {
    fn record()(
        all_revoked_at in time(), cutoff in time(), cutoff_set_at in time(),
        reinstated_at in time(), until in time(),
        at in time(), spared in spared(),
        target in target(), reason in words(), actor in words(),
    ) -> Record {
        let mut fact = Fact { all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until, spared };
        if [cutoff_set_at, reinstated_at].contains(&Timestamp::ZERO) {
            fact.all_revoked_at = all_revoked_at.max(Timestamp::from_millis(1));
        }
        if !fact.spares_rightly() {
            fact.spared = Spared::default();
        }
        Record { fact, note: RecordNote { target, at, reason, actor } }
    }
}

proptest! {
    #[test]
    fn a_record_that_is_printed_and_parsed_is_the_same(record in record()) {
        let text = print_record(&record);
        prop_assert!(!text.contains(|c: char| c < ' '), "{text:?} is not printable");
        prop_assert_eq!(parse_record(text.as_bytes()), Ok(record));
    }

    #[test]
    fn an_epoch_that_is_printed_and_parsed_is_the_same(
        id in 1u64.., others: (u64, u64), started_at in time(), since in time(), awaited: u32,
        doubt in doubt(), seq in 0..=MAX_INTEGER, entry: (u64, u64),
    ) {
        let (parent, server) = others;
        let settling =
            (since != Timestamp::ZERO).then_some(SettlingState { since, awaited });
        let ((doubt, doubt_ended_at), last_entry) = (doubt, EntryId(entry.0, entry.1));
        let epoch = Epoch {
            id, parent, server, started_at, settling, doubt, doubt_ended_at, seq, last_entry,
        };
        prop_assert_eq!(Epoch::parse(epoch.print().as_bytes()), Ok(epoch));
    }

    #[test]
    fn a_member_that_is_printed_and_parsed_is_the_same(bytes: [u8; 16], all: bool) {
        let class = if all { IndexClass::All } else { IndexClass::Read };
        let member = IndexMember { class, fingerprint: Fingerprint::from_bytes(bytes) };
        prop_assert_eq!(IndexMember::parse(&member.print()), Ok(member));
    }

    #[test]
    fn junk_is_never_a_record_nor_an_epoch(junk in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(parse_record(&junk), Err(Unreadable));
        prop_assert_eq!(Epoch::parse(&junk), Err(Unreadable));
    }

    #[test]
    fn a_damaged_record_is_unreadable_or_another_record_but_never_a_crash(
        record in record(), at in any::<prop::sample::Index>(), byte: u8,
    ) {
        let mut text = print_record(&record).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let _ = parse_record(&text);
        text.truncate(at);
        prop_assert_eq!(parse_record(&text), Err(Unreadable));
    }

    #[test]
    fn every_fingerprint_has_its_shard_and_its_key_carries_the_tag(
        bytes: [u8; 16], shards in 1..=MAX_SHARDS,
    ) {
        let keys = RedisKeys::new("app", shards);
        let fingerprint = Fingerprint::from_bytes(bytes);
        let shard = keys.shard_of(&fingerprint);
        prop_assert!(shard < keys.shards());
        let key = keys.shard(shard).record(&fingerprint);
        prop_assert_eq!(key, format!("app:{{{shard}}}:r:{fingerprint}").into_bytes());
    }
}

#[test]
fn what_this_version_does_not_write_is_unreadable() {
    let words = r#"{"kind":"user","id":"alice"}"#;
    assert!(parse_record(format!("3 5 0 0 0 9 - 5 {words}").as_bytes()).is_ok());
    for odd in [
        String::new(),
        format!("2 5 0 0 0 9 - 5 {words}"),
        format!("3 5 0 0 0 9 5 {words}"),
        format!("3 5 0 0 0 9 -,- 5 {words}"),
        // For the session the cutoff is a later one.
        format!("3 0 5 5 0 9 {0}{0}:5,- 5 {words}", "00000000000000aa"),
        format!("3 05 0 0 0 9 - 5 {words}"),
        format!("3 +5 0 0 0 9 - 5 {words}"),
        format!("3 -5 0 0 0 9 - 5 {words}"),
        format!("3 5  0 0 0 9 - 5 {words}"),
        format!("3 5 0 0 0 9 - {words}"),
        format!("3 0 0 0 0 9 - 5 {words}"),
        format!("3 99999999999999999999 0 0 0 9 - 5 {words}"),
        "3 5 0 0 0 9 - 5 ".into(),
        r#"3 5 0 0 0 9 - 5 {"kind":"planet","id":"x"}"#.into(),
        r#"3 5 0 0 0 9 - 5 {"kind":"claim","id":"x"}"#.into(),
        r#"3 5 0 0 0 9 - 5 {"kind":"user","claim":"y","id":"x"}"#.into(),
        r#"3 5 0 0 0 9 - 5 {"kind":"user"}"#.into(),
    ] {
        assert_eq!(parse_record(odd.as_bytes()), Err(Unreadable), "{odd}");
    }
    for odd in [
        "3 0000000000000000 00000000000000bb 00000000000000cc 1 0 0 0 0 0 0-0",
        "3 00000000000000AA 00000000000000bb 00000000000000cc 1 0 0 0 0 0 0-0",
        "3 00000000000000aa bb 00000000000000cc 1 0 0 0 0 0 0-0",
        "3 00000000000000aa 00000000000000bb 00000000000000cc 1 0 0 0 0 0",
        "3 00000000000000aa 00000000000000bb 00000000000000cc 1 0 0 0 0 0 0",
        "3 00000000000000aa 00000000000000bb 00000000000000cc 1 0 0 0 0 0 0-0 7",
        "3 00000000000000aa 00000000000000bb 00000000000000cc 1 9 4294967296 0 0 0 0-0",
    ] {
        assert_eq!(Epoch::parse(odd.as_bytes()), Err(Unreadable), "{odd}");
    }
}

#[cfg(feature = "sessions")]
#[test]
fn a_document_is_read_without_what_the_store_notes_beside_it() {
    let text = |value: &'static str| parse_document(&Bytes::from_static(value.as_bytes()));
    assert_eq!(text("7 00000000000000aa {\"a\": 1}"), Ok(Some("{\"a\": 1}".into())));
    assert_eq!(text("7 0 "), Ok(Some("".into())));
    assert_eq!(text("7 0"), Ok(None), "it was deleted");
    for odd in ["", "7", "x 0 {}", "{\"a\":1}", "-1 0 {}"] {
        assert_eq!(text(odd), Err(Unreadable), "{odd}");
    }
}

/// What other versions of this crate write: a loss, and one that is over.
#[test]
fn the_two_times_of_a_doubt_are_read_as_a_doubt() {
    let parse = |times: &str| {
        let value =
            format!("3 00000000000000aa 00000000000000bb 00000000000000cc 5 0 0 {times} 7 8-9");
        let epoch = Epoch::parse(value.as_bytes()).unwrap();
        assert_eq!(epoch.print(), value);
        (epoch.doubt, epoch.doubt_ended_at)
    };
    let ms = Timestamp::from_millis;
    assert_eq!(parse("0 0"), (Doubt::None, None));
    assert_eq!(parse("0 60"), (Doubt::None, Some(ms(60))));
    let lasting = Doubt::Lasting { issued_until: ms(50), ends_at: ms(90) };
    assert_eq!(parse("50 90"), (lasting, None));
}

#[test]
fn a_prefix_holds_nothing_that_keys_or_access_rules_would_misread() {
    for good in ["jwt-revocation", "a", "app:prod/eu_1.x"] {
        assert!(is_prefix(good), "{good}");
    }
    for odd in
        ["", "a{b", "a}b", "a b", "a*", "a?", "[a]", "a\\b", "a\n", "a\0", "ä", &"x".repeat(65)]
    {
        assert!(!is_prefix(odd), "{odd:?}");
    }
}

#[test]
fn leases_are_read_as_they_were_printed() {
    for name in ["", "api-3:17", "with spaces and ünicode"] {
        let lease = MirrorLease { epoch: 7, seq: 12, name: name.into() };
        assert_eq!(MirrorLease::parse(&lease.print()), Ok(lease), "{name}");
    }
    for odd in ["", "1 0000000000000007 12 x", "3 x 12 x", "3 7 -1 x", "3 7"] {
        assert_eq!(MirrorLease::parse(odd.as_bytes()), Err(Unreadable), "{odd}");
    }
    let id = MirrorId(0x0123_4567_89ab_cdef);
    assert_eq!(MirrorId::parse(&id.print()), Ok(id));
    assert_eq!(MirrorId::parse(b"seven.."), Err(Unreadable));
    assert_eq!(&*RedisKeys::new("p", 2).shard(1).lease(id), b"p:{1}:w:0123456789abcdef");
}

//! What is left of a user who was erased: nothing with a name, and everything that was revoked.

use std::num::NonZeroU32;

use tower_jwt_revocation::store::redis::RedisAuditSink;
use tower_jwt_revocation::store::{ListQuery, RevocationStore as _};

use super::hold::{HoldingProxy, Where};
use super::on_redis::{Redis, connect};
use super::*;

/// All that Redis holds, a line for each key.
fn all_that_is_kept(ground: &Redis) -> String {
    const DUMP: &str = "
        local function flat(value, parts)
          if type(value) ~= 'table' then parts[#parts + 1] = tostring(value) return parts end
          for _, part in ipairs(value) do flat(part, parts) end
          return parts
        end
        local read = {
          string = { 'GET' }, hash = { 'HGETALL' }, zset = { 'ZRANGE', '0', '-1' },
          stream = { 'XRANGE', '-', '+' },
        }
        local lines = {}
        for _, key in ipairs(redis.call('KEYS', '*')) do
          local command = read[redis.call('TYPE', key).ok]
          local value = redis.call(command[1], key, unpack(command, 2))
          local line = key .. ': ' .. table.concat(flat(value, {}), ' ')
          lines[#lines + 1] = string.gsub(line, '[\\r\\n]', ' ')
        end
        return table.concat(lines, '\\n')";
    ground.cli(&["EVAL", DUMP, "0"])
}

/// The lines in which any of these words stands.
fn lines_with(everything: &str, words: &[&str]) -> Vec<String> {
    let names = |line: &&str| words.iter().any(|word| line.contains(word));
    everything.lines().filter(names).map(Into::into).collect()
}

fn details() -> SessionDetails {
    SessionDetails::new()
        .on_device("shared phone")
        .through_client("app")
        .with_user_agent("browser of alice")
        .with_fingerprint("print of alice")
        .with_data(json!({ "name": "alice" }))
}

async fn login_alice(sessions: &Sessions) -> Grant {
    granted_login(sessions.login("alice", details()).await.unwrap())
}

async fn refresh_alice(sessions: &Sessions, grant: &Grant) -> Refresh {
    sessions.refresh(grant.token.expose(), Some("app")).await.unwrap()
}

/// Sessions of alice that have ended in all the ways there are, and some that have not; and one of
/// bob. Everything that was ever granted to alice.
async fn live_through<S: SessionStore + Clone>(sessions: &Sessions, store: &S) -> Vec<Grant> {
    let mut grants = Vec::new();
    for _ in 0..7 {
        let first = login_alice(sessions).await;
        grants.extend([granted(refresh_alice(sessions, &first).await), first]);
    }
    let id = |n: usize| grants[2 * n].session.clone().unwrap();
    // The first two have made room.
    let by_alice = sessions.because("alice wanted it").acting_as("alice");
    assert_eq!(by_alice.end_of("alice", &id(2)).await.unwrap(), Ended::Done);
    sessions.logout(&access_token(&grants[2 * 3])).await.unwrap();
    sessions.end(&id(4)).await.unwrap();
    // A thief is noticed.
    refused(refresh_alice(sessions, &grants[2 * 5 + 1]).await);
    sessions.trust_device("alice", "shared phone", Duration::from_secs(600)).await.unwrap();
    let laptop = TrustedDevice::new("laptop of alice").with_name("the best of alice");
    sessions.trust_device("alice", laptop, Duration::from_secs(600)).await.unwrap();
    // By a program that keeps no journal: an event of a device names no user.
    let elsewhere = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let laptop = elsewhere.revoke(Target::device("laptop of alice"));
    laptop.reason("alice has lost it").actor("alice").await.unwrap();
    granted_login(
        sessions.login("bob", SessionDetails::new().on_device("shared phone")).await.unwrap(),
    );
    grants
}

fn five_sessions(sessions: Sessions) -> Sessions {
    sessions.with_max_per_user(NonZeroUsize::new(5).unwrap(), EvictionPolicy::Oldest)
}

/// Nothing of what alice had works, and bob has what he had.
async fn assert_ended(store: &impl SessionStore, sessions: &Sessions, grants: &[Grant]) {
    for grant in grants {
        assert!(!is_live(store, grant).await, "an access token was accepted again");
        refused(refresh_alice(sessions, grant).await);
    }
    assert!(sessions.list("alice").await.unwrap().is_empty());
    assert!(sessions.trusted_devices("alice").await.unwrap().is_empty());
    assert_eq!(sessions.list_device("shared phone").await.unwrap().len(), 1, "that of bob");
    assert_eq!(sessions.count().await.unwrap(), 1);
}

#[tokio::test]
async fn of_an_erased_user_nothing_is_left_with_a_name_and_nothing_comes_back_to_life() {
    super::support::redis_or_skip!();
    for shards in [1, 3] {
        let ground = Redis::start(shards).await;
        let audit = RedisAuditSink::new(ground.store());
        let revoker = Revoker::new(ground.store(), TokenProfile::new()).unwrap();
        let revoker = revoker.with_audit(audit.clone());
        let sessions = five_sessions(Sessions::new(ground.store(), revoker, strict()).unwrap());
        let grants = live_through(&sessions, &ground.store()).await;
        audit.flush().await;
        let named = lines_with(&all_that_is_kept(&ground), &["alice"]);
        // Families, places, a list, a journal, records.
        assert!(named.len() > 10, "{named:#?}");

        // Again, as after an error.
        for _ in 0..2 {
            sessions.forget("alice").await.unwrap();
            audit.forget("alice").await.unwrap();
            let ids = grants.iter().flat_map(|grant| {
                [&*grant.family, grant.session.as_deref().unwrap(), &*grant.access_token_id]
            });
            let everything = all_that_is_kept(&ground);
            assert_eq!(lines_with(&everything, &["alice"]), [""; 0]);
            // Ids stand in the journal of events that name no user, and nowhere else.
            let of_nobody = lines_with(&everything, &ids.collect::<Vec<_>>());
            assert!(of_nobody.len() <= 1, "{of_nobody:#?}");
            assert!(everything.contains("bob"));
            assert_ended(&ground.store(), &sessions, &grants).await;
            audit.forget("alice").await.unwrap();
        }
        let most = NonZeroU32::new(100).unwrap();
        // An event of a refresh that was refused says no more than that the token is unknown.
        assert_eq!(lines_with(&all_that_is_kept(&ground), &["alice"]), [""; 0]);
        assert!(audit.events_of("alice", most).await.unwrap().is_empty());
        assert!(!audit.events_of("bob", most).await.unwrap().is_empty());

        // Who comes again begins anew.
        let anew = login_alice(&sessions).await;
        assert!(is_live(&ground.store(), &anew).await);
        assert_eq!(sessions.list("alice").await.unwrap().len(), 1);
        granted(refresh_alice(&sessions, &anew).await);
    }
}

#[tokio::test]
async fn in_memory_nothing_is_left_either() {
    let store = MemoryStore::new();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let sessions = five_sessions(Sessions::new(store.clone(), revoker, strict()).unwrap());
    let grants = live_through(&sessions, &store).await;
    let targets = grants.iter().flat_map(|grant| {
        [Target::session(grant.session.as_deref().unwrap()), Target::family(&*grant.family)]
    });
    let more = [Target::user("alice"), Target::device("shared phone")];
    let documents: Vec<_> = targets.chain(more).map(|target| target.issued_by("")).collect();
    let names = async || {
        let kept = store.load(documents.clone(), Vec::new()).await.unwrap().documents;
        let records = store.list(ListQuery::default()).await.unwrap().records;
        let texts =
            kept.into_iter().flatten().map(|text| String::from_utf8_lossy(&text).into_owned());
        let texts = texts.chain(records.iter().map(|record| format!("{record:?}")));
        texts.filter(|text: &String| text.contains("alice")).collect::<Vec<_>>()
    };
    assert!(names().await.len() > 10);
    for _ in 0..2 {
        sessions.forget("alice").await.unwrap();
        assert_eq!(names().await, [""; 0]);
        assert_ended(&store, &sessions, &grants).await;
    }
}

#[tokio::test]
async fn what_is_revoked_for_ever_stays_so_when_its_name_is_erased() {
    super::support::redis_or_skip!();
    let ground = Redis::start(1).await;
    let sessions = sessions(&ground, policy());
    let revoker = sessions.revoker();
    let grant = login_alice(&sessions).await;
    revoker.revoke(Target::user("alice")).extent(Extent::All).reason("banned").await.unwrap();
    let before = revoker.find(Target::user("alice")).await.unwrap().unwrap();
    sessions.forget("alice").await.unwrap();
    let after = revoker.find(Target::user("alice")).await.unwrap().unwrap();
    assert!(after.revokes_all() && after.until() >= before.until());
    assert!(after.reason().is_none() && after.actor().is_none());
    assert!(matches!(sessions.login("alice", details()).await.unwrap(), Login::Revoked(_)));
    assert!(!is_live(&ground.store(), &grant).await);
    // And can be reinstated.
    revoker.reinstate(Target::user("alice")).await.unwrap();
    login_alice(&sessions).await;
}

#[tokio::test]
async fn a_family_without_a_session_is_erased_by_its_id() {
    super::support::redis_or_skip!();
    let ground = Redis::start(1).await;
    let sessions = sessions(&ground, policy());
    let families = sessions.families();
    let grant = granted(families.start(NewFamily::of_user("alice")).await.unwrap());
    assert_eq!(lines_with(&all_that_is_kept(&ground), &["alice"]).len(), 1);
    for _ in 0..2 {
        families.forget(&grant.family).await.unwrap();
        assert_eq!(lines_with(&all_that_is_kept(&ground), &["alice", &grant.family]), [""; 0]);
    }
    refused(families.refresh(grant.token.expose(), None).await.unwrap());
    assert!(!is_live(&ground.store(), &grant).await);
}

/// A login that was refused leaves nothing that an erasure would not find.
#[tokio::test]
async fn a_login_that_is_one_too_many_leaves_nothing() {
    super::support::redis_or_skip!();
    let ground = Redis::start(1).await;
    let sessions = sessions(&ground, policy())
        .with_max_per_user(NonZeroUsize::new(1).unwrap(), EvictionPolicy::RefuseLogin);
    login_alice(&sessions).await;
    let kept = lines_with(&all_that_is_kept(&ground), &["alice"]).len();
    for _ in 0..3 {
        assert!(matches!(sessions.login("alice", details()).await.unwrap(), Login::TooMany));
    }
    assert_eq!(lines_with(&all_that_is_kept(&ground), &["alice"]).len(), kept);
    sessions.forget("alice").await.unwrap();
    assert_eq!(lines_with(&all_that_is_kept(&ground), &["alice"]), [""; 0]);
}

/// Wherever it stops: nothing that was revoked is accepted again, and the next one finishes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_was_interrupted_is_finished_by_the_next() {
    super::support::redis_or_skip!();
    let ground = Redis::start(1).await;
    let proxy = HoldingProxy::start(ground.addr()).await;
    let store = connect(&proxy.url(), 1).await;
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let behind = Sessions::new(store, revoker, policy()).unwrap();
    let sessions = sessions(&ground, policy());
    for (n, place) in (0..).step_by(3).zip([Where::Before, Where::After].into_iter().cycle()) {
        let first = login_alice(&sessions).await;
        let ended = login_alice(&sessions).await;
        sessions.end(ended.session.as_deref().unwrap()).await.unwrap();
        sessions.trust_device("alice", "of alice", Duration::from_secs(600)).await.unwrap();
        proxy.hold(n, place);
        let is_over = tokio::select! {
            biased;
            () = proxy.held() => false,
            erased = behind.forget("alice") => {
                erased.unwrap();
                true
            }
        };
        proxy.release();
        if is_over {
            assert!(n > 10, "it has only {n} scripts");
            break;
        }
        sessions.forget("alice").await.unwrap();
        let left = || lines_with(&all_that_is_kept(&ground), &["alice"]);
        // What was held is done after all, and later than it was wanted: once more.
        behind.list("nobody").await.unwrap();
        if !left().is_empty() {
            sessions.forget("alice").await.unwrap();
        }
        assert_eq!(left(), [""; 0], "held at script {n}");
        for grant in [first, ended] {
            assert!(!is_live(&ground.store(), &grant).await, "held at script {n}");
            refused(refresh_alice(&sessions, &grant).await);
        }
    }
}

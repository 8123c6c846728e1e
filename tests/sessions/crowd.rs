//! Many logins of one user at once: all of them succeed, in one process and in several, and what
//! they cost does not grow with how many come at once.

use std::sync::atomic::{AtomicBool, Ordering};

use super::hold::{HoldingProxy, Where};
use super::on_redis::{Redis, connect};
use super::support;
use super::*;

const MANY: usize = 200;

/// How many scripts Redis has run.
fn scripts(ground: &Redis) -> u64 {
    let stats = ground.cli(&["INFO", "commandstats"]);
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
    };
    calls("cmdstat_evalsha:calls=") + calls("cmdstat_eval:calls=")
}

fn allowing(sessions: &Sessions, most: usize) -> Sessions {
    let most = NonZeroUsize::new(most).unwrap();
    sessions.clone().with_max_per_user(most, EvictionPolicy::Oldest)
}

/// That many logins at once, of one user on one device, spread over these.
async fn at_once(sessions: &[Sessions]) -> Vec<Grant> {
    let logins: Vec<_> = sessions
        .iter()
        .cycle()
        .take(MANY)
        .cloned()
        .map(|sessions| tokio::spawn(async move { login(&sessions, "alice").await }))
        .collect();
    join_all(logins).await.into_iter().map(Result::unwrap).collect()
}

/// What is listed is what lives, and is as much as is allowed.
async fn assert_kept(ground: &Redis, sessions: &Sessions, grants: &[Grant], most: usize) {
    let listed: BTreeSet<_> =
        sessions.list("alice").await.unwrap().into_iter().map(|session| session.id).collect();
    assert_eq!(listed.len(), most.min(grants.len()));
    let store = ground.store();
    for grant in grants {
        let is_listed = listed.contains(grant.session.as_ref().unwrap());
        assert_eq!(is_live(&store, grant).await, is_listed);
    }
}

/// Also where each of them takes the place of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_sign_in_at_once_get_in_at_the_cost_of_one_after_the_other() {
    support::redis_or_skip!();
    for most in [1000, 5] {
        let ground = Redis::start(1).await;
        let sessions = allowing(&sessions(&ground, policy()), most);
        for _ in 0..10 {
            login(&sessions, "bob").await;
        }
        let before = scripts(&ground);
        for _ in 0..10 {
            login(&sessions, "bob").await;
        }
        let of_ten = scripts(&ground) - before;
        // Somebody who has nothing to do with it.
        let bystander = login(&sessions, "carol").await;
        let checks = connect(&ground.url(), 1).await;
        let ends = Arc::new(AtomicBool::new(false));
        let (token, has_ended) = (access_token(&bystander), Arc::clone(&ends));
        let checking = tokio::spawn(async move {
            let mut checked = 0;
            while !has_ended.load(Ordering::SeqCst) {
                assert!(is_live_token(&checks, &token).await);
                checked += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            checked
        });
        let before = scripts(&ground);
        let grants = at_once(std::slice::from_ref(&sessions)).await;
        let took = scripts(&ground) - before;
        ends.store(true, Ordering::SeqCst);
        assert!(checking.await.unwrap() > 0);
        let (many, ten) = (u64::try_from(MANY).unwrap(), 10);
        // One more look at the list of the user, and at that of the device: they have changed.
        assert!(
            took <= of_ten * many / ten + 3 * many,
            "{took} scripts for {MANY}, and {of_ten} for ten; at most {most}"
        );
        assert_kept(&ground, &sessions, &grants, most).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_sign_in_at_once_with_several_processes_get_in() {
    support::redis_or_skip!();
    for most in [1000, 5] {
        let ground = Redis::start(1).await;
        let mut processes = Vec::new();
        for _ in 0..4 {
            let store = connect(&ground.url(), 1).await;
            let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
            processes.push(allowing(&Sessions::new(store, revoker, policy()).unwrap(), most));
        }
        let before = scripts(&ground);
        let grants = at_once(&processes).await;
        let took = scripts(&ground) - before;
        assert!(took < 25 * u64::try_from(MANY).unwrap(), "{took} scripts for {MANY}");
        assert_kept(&ground, &processes[0], &grants, most).await;
    }
}

/// Held before each of its scripts in turn, a login has revoked nobody as long as it is not listed;
/// and if it goes no further, what had to go for it goes with the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_to_go_goes_when_the_login_is_committed_and_not_before() {
    support::redis_or_skip!();
    let ground = Redis::start(1).await;
    let proxy = HoldingProxy::start(ground.addr()).await;
    let store = connect(&proxy.url(), 1).await;
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let slow = allowing(&Sessions::new(store, revoker, policy()).unwrap(), 1);
    let direct = allowing(&sessions(&ground, policy()), 1);
    login(&slow, "someone").await;
    login(&slow, "someone").await;
    let (mut held, mut outgoing) = (0, 0);
    for n in 0..16 {
        let user = format!("user {n}");
        let first = login(&direct, &user).await;
        proxy.hold(n, Where::Before);
        tokio::select! {
            biased;
            () = proxy.held() => {}
            _ = login(&slow, &user) => {
                proxy.release();
                break;
            }
        }
        held += 1;
        let listed = direct.list(&user).await.unwrap();
        let is_listed = listed.iter().any(|session| Some(&session.id) == first.session.as_ref());
        let is_first_live = is_live(&ground.store(), &first).await;
        if is_listed {
            assert!(is_first_live, "script {n}: revoked, and nobody has come in its place");
        } else {
            outgoing += u32::from(is_first_live);
        }
        // The caller has hung up; what is held arrives all the same.
        assert!(proxy.release());
        slow.list("nobody").await.unwrap();
        let next = login(&direct, &user).await;
        assert!(!is_live(&ground.store(), &first).await, "script {n}: it had to go");
        assert!(!is_live_family(&direct, &first, None).await);
        assert!(is_live(&ground.store(), &next).await);
        let listed = direct.list(&user).await.unwrap();
        assert_eq!(listed.into_iter().map(|it| it.id).collect::<Vec<_>>(), [next.session.unwrap()]);
    }
    assert!((6..16).contains(&held), "{held} scripts were held");
    assert_eq!(outgoing, 1, "it is revoked right after the list was written");
}

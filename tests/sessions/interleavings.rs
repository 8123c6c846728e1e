//! A revocation comes in at every place of a refresh and of a login: the proxy between their store
//! and Redis holds each of their scripts in turn, before Redis has it and before its reply is
//! known, while somebody else revokes.

use super::hold::{HoldingProxy, Where};
use super::on_redis::{Redis, connect};
use super::support;
use super::*;

/// More scripts than a login has. How many that are depends on how its keys fall to the shards.
const MOST: u32 = 16;

/// What comes in between.
#[derive(Clone, Copy, Debug)]
enum Act {
    User,
    Session,
    Family,
    EndAll,
    EndSession,
    Reuse,
}

struct Scene {
    ground: Redis,
    proxy: HoldingProxy,
    /// Behind the proxy.
    slow: Sessions,
    /// Beside it.
    direct: Sessions,
}

impl Scene {
    async fn set(shards: u16) -> Self {
        let ground = Redis::start(shards).await;
        let proxy = HoldingProxy::start(ground.addr()).await;
        let store = connect(&proxy.url(), shards).await;
        let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
        let slow = Sessions::new(store, revoker, policy()).unwrap();
        let direct = sessions(&ground, policy());
        // The scripts are known from here on, so that each takes one command.
        login(&slow, "someone").await;
        Self { ground, proxy, slow, direct }
    }

    async fn act(&self, act: Act, user: &str, grant: &Grant, spent: &Grant) {
        let (session, family) = (grant.session.clone().unwrap(), grant.family.clone());
        match act {
            Act::User => drop(self.direct.revoker().revoke(Target::user(user)).await.unwrap()),
            Act::Session => {
                _ = self.direct.revoker().revoke(Target::session(session)).await.unwrap();
            }
            Act::Family => {
                _ = self.direct.revoker().revoke(Target::family(family)).await.unwrap();
            }
            Act::EndAll => self.direct.end_all(user, None).await.unwrap(),
            Act::EndSession => self.direct.end(&session).await.unwrap(),
            Act::Reuse => {
                assert!(refused(refresh(&self.direct, spent).await).is_reuse());
            }
        }
    }

    async fn assert_dead(&self, grant: &Grant, context: &str) {
        let store = self.ground.store();
        assert!(!is_live(&store, grant).await, "{context}: the access token lives");
        for sessions in [&self.slow, &self.direct] {
            assert!(
                !is_live_family(sessions, grant, None).await,
                "{context}: the refresh token lives"
            );
        }
    }
}

/// Lets `slow` run until its `n`th script is held, then `between` from beginning to end, then the
/// rest of `slow`. `None` if `slow` has fewer scripts.
async fn interleaved<T>(
    proxy: &HoldingProxy,
    (n, place): (u32, Where),
    slow: impl Future<Output = T>,
    between: impl Future<Output = ()>,
) -> Option<T> {
    proxy.hold(n, place);
    tokio::pin!(slow);
    tokio::select! {
        biased;
        () = proxy.held() => {}
        _ = &mut slow => {
            proxy.release();
            return None;
        }
    }
    // It goes on as far as it can without what is held.
    tokio::select! {
        () = between => {}
        _ = &mut slow => panic!("it did not wait for script {n}"),
    }
    assert!(proxy.release());
    Some(slow.await)
}

/// Whatever is revoked while a refresh is under way: afterwards neither what was presented nor what
/// was granted is of use.
async fn no_refresh_escapes(shards: u16, act: Act) {
    let scene = Scene::set(shards).await;
    for place in [Where::Before, Where::After] {
        let (mut held, mut handed_out) = (0, 0);
        for n in 0..MOST {
            let context = format!("{act:?} while script {n} is held {place:?}");
            let user = format!("{place:?} {n}");
            let spent = login(&scene.direct, &user).await;
            let grant = granted(refresh(&scene.direct, &spent).await);
            let grant = granted(refresh(&scene.direct, &grant).await);
            let bystander = login(&scene.direct, "bystander").await;
            let slow = refresh(&scene.slow, &grant);
            let answer =
                interleaved(&scene.proxy, (n, place), slow, scene.act(act, &user, &grant, &spent))
                    .await;
            let Some(answer) = answer else { continue };
            held += 1;
            for dead in [&spent, &grant] {
                scene.assert_dead(dead, &context).await;
            }
            if let Refresh::Granted(next) = &answer {
                handed_out += 1;
                scene.assert_dead(next, &context).await;
            }
            assert!(is_live(&scene.ground.store(), &bystander).await, "{context}");
            granted(refresh(&scene.slow, &bystander).await);
        }
        // A token that is dead already is handed out only if it was written before, and its reply
        // was under way.
        if shards == 1 {
            assert_eq!(
                handed_out,
                u32::from(place == Where::After),
                "{act:?}, {place:?}: {handed_out} of {held}"
            );
        }
        // The family is read, its records are read, and it is written.
        assert!(held >= 3, "only {held} scripts were held");
        assert!(held < MOST, "there may be more");
    }
}

/// Whatever is revoked while a login is under way: it counts as before the revocation, in all that
/// came out of it, or as after it, in all of it. One that begins afterwards works.
async fn no_login_escapes(shards: u16, act: Act) {
    let scene = Scene::set(shards).await;
    let store = scene.ground.store();
    for place in [Where::Before, Where::After] {
        let (mut held, mut dead) = (0, 0);
        for n in 0..MOST {
            let context = format!("{act:?} while script {n} is held {place:?}");
            let user = format!("{place:?} {n}");
            let old = login(&scene.direct, &user).await;
            let slow = login(&scene.slow, &user);
            let new =
                interleaved(&scene.proxy, (n, place), slow, scene.act(act, &user, &old, &old))
                    .await;
            let Some(new) = new else { continue };
            held += 1;
            scene.assert_dead(&old, &context).await;
            let is_live = is_live(&store, &new).await;
            let listed = scene.direct.list(&user).await.unwrap();
            let is_listed = listed.iter().any(|session| Some(&session.id) == new.session.as_ref());
            let is_refreshed = is_live_family(&scene.direct, &new, None).await;
            assert_eq!((is_listed, is_refreshed), (is_live, is_live), "{context}: half dead");
            dead += u32::from(!is_live);
            let next = login(&scene.slow, &user).await;
            assert!(super::is_live(&store, &next).await, "{context}: a login afterwards");
            granted(refresh(&scene.slow, &next).await);
            scene.direct.end_all(&user, None).await.unwrap();
            scene.assert_dead(&new, &context).await;
            scene.assert_dead(&next, &context).await;
        }
        assert!(held >= 6, "only {held} scripts were held");
        assert!(held < MOST, "there may be more");
        // With one shard, all of it was written before the revocation if the reply to the last
        // script is held, and only then.
        if shards == 1 {
            assert_eq!(
                dead,
                u32::from(place == Where::After),
                "{act:?}, {place:?}: {dead} of {held}"
            );
        }
    }
}

macro_rules! at_every_place {
    ($($name:ident: $check:ident($act:expr);)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            support::redis_or_skip!();
            for shards in [1, 3] {
                $check(shards, $act).await;
            }
        }
    )*};
}

at_every_place! {
    a_user_is_revoked_during_a_refresh: no_refresh_escapes(Act::User);
    a_session_is_revoked_during_a_refresh: no_refresh_escapes(Act::Session);
    a_family_is_revoked_during_a_refresh: no_refresh_escapes(Act::Family);
    all_sessions_are_ended_during_a_refresh: no_refresh_escapes(Act::EndAll);
    a_session_is_ended_during_a_refresh: no_refresh_escapes(Act::EndSession);
    a_used_token_is_presented_during_a_refresh: no_refresh_escapes(Act::Reuse);
    a_user_is_revoked_during_a_login: no_login_escapes(Act::User);
    all_sessions_are_ended_during_a_login: no_login_escapes(Act::EndAll);
}

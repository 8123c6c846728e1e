//! The rules for claims, shared by every verifier and by the write side: who may have issued a
//! token and for whom, when it is valid, and by which of its claims it can be revoked.
//!
//! Pure but for its clock: bytes in, a [`VerifiedToken`](crate::VerifiedToken) or a
//! [`TokenError`](super::TokenError) out.

// | module | what it does |
// | --- | --- |
// | `claims` | reads a claims set |
// | `combined` | several profiles as one, each for its own issuers |
// | `issuer` | the accepted issuers, and whose an id is |
// | `check` | checks claims and times against the rules, and makes the token |
// | `kind` | tells access tokens from tokens of other kinds by their claims |
// | `path` | where a claim is, also inside of another one |
// | `rules` | what the user demands of claims |
// | `usage` | whether tokens have the claims by which the user wants to revoke |
// | `validate` | whether the rules can work |
// | `value` | reads names and values of claims |
//
// This file is the rules themselves, and what others ask of them.

mod check;
mod claims;
mod combined;
mod issuer;
mod kind;
mod path;
mod rules;
mod usage;
mod validate;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

pub use self::check::SignedClaims;
pub(crate) use self::claims::issuer_of;
use self::issuer::{AcceptedIssuers, IssuerPattern};
use self::kind::KindClaim;
use self::path::ClaimPath;
use self::rules::ClaimRule;
use self::usage::ClaimUsage;
use crate::clock::{Clock, CoarseClock, Timestamp};
use crate::revocation::{AcceptedTargets, Extent, TargetKind};
use crate::verified::ProfileId;

/// Default of [`TokenProfile::with_leeway`].
pub(crate) const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
/// [`TokenProfile::MAX_LEEWAY`].
pub(crate) const MAX_LEEWAY: Duration = Duration::from_secs(300);
/// Default of [`TokenProfile::with_max_lifetime`].
pub(crate) const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Default of [`TokenProfile::with_max_token_bytes`].
pub(crate) const DEFAULT_MAX_TOKEN_BYTES: usize = 8192;

/// How far an `iat` may lead on top of the leeway. After a user-wide revocation, an issuer that
/// knows only whole seconds stamps the next one, and its token must be accepted at once.
const IAT_LEAD: Duration = Duration::from_secs(1);

/// How much longer than the tokens it covers a record is kept: the largest leeway that any verifier
/// may grant, the rounding of a whole second, and clocks that are a minute apart.
const RETENTION_MARGIN: Duration = Duration::from_secs(MAX_LEEWAY.as_secs() + 1 + 60);

/// The claims that feed targets unless the profile says otherwise. Each that is present becomes a
/// target of its own.
const DEFAULT_CLAIM_TARGETS: [(&str, TargetKind); 12] = [
    ("sub", TargetKind::User),
    ("sid", TargetKind::Session),
    ("session_state", TargetKind::Session),
    ("session_id", TargetKind::Session),
    ("device_id", TargetKind::Device),
    ("fid", TargetKind::Family),
    ("family_id", TargetKind::Family),
    ("origin_jti", TargetKind::Family),
    ("client_id", TargetKind::Client),
    ("azp", TargetKind::Client),
    ("cid", TargetKind::Client),
    ("appid", TargetKind::Client),
];

/// What kind of target this claim feeds where no profile says otherwise.
#[cfg(feature = "redis")]
pub(crate) fn usual_target_of(claim: &str) -> Option<TargetKind> {
    DEFAULT_CLAIM_TARGETS.iter().find(|(known, _)| *known == claim).map(|(_, kind)| *kind)
}

/// Claims with a meaning of their own, which feed no target.
const NOT_IDS: [&str; 5] = ["iss", "aud", "exp", "nbf", "iat"];

/// What happens to a token without an id, see [`TokenProfile::with_missing_id`].
///
/// In configurations: `refuse`, `signing-input` or `other-targets-only`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MissingId {
    /// The token is refused. The default, because a token without an id cannot be revoked by id.
    #[default]
    Refuse,
    /// The token is identified by the SHA-256 of its signing input (header and payload, never the
    /// signature). To revoke it, one needs the token itself.
    SigningInput,
    /// The token is accepted and can be revoked only through its other targets: its session, its
    /// user, …
    OtherTargetsOnly,
}

/// Who may issue tokens, for whom, for how long, and by which claims they can be revoked.
///
/// Give verifier and [`Revoker`](crate::Revoker) the same profile, so that the check finds what the
/// revoker writes: ids are kept apart by issuer, and a revocation is kept as long as an accepted
/// token can be valid.
///
/// ```
/// use tower_jwt_revocation::TokenProfile;
///
/// let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
/// ```
#[derive(Clone)]
pub struct TokenProfile {
    issuers: AcceptedIssuers,
    audiences: Vec<Box<str>>,
    leeway: Duration,
    max_lifetime: Duration,
    max_token_bytes: usize,
    id_claim: ClaimPath,
    missing_id: MissingId,
    require_iat: bool,
    require_subject: bool,
    claim_targets: Vec<ClaimTarget>,
    claim_rules: Vec<ClaimRule>,
    /// How many paths were set that lead into claims; zero for most profiles.
    nested_paths: usize,
    /// How many targets were set that are looked for in tokens; zero for most profiles.
    watched_targets: usize,
    /// How much of a session is revoked unless the request says otherwise.
    session_extent: Extent,
    /// Claims by which a token may say that it is of another kind.
    ignored_kinds: Vec<Box<str>>,
    /// Whether the tenants of a pattern do not share their keys.
    tenants_have_keys: bool,
    clock: Arc<dyn Clock>,
    /// The same for profiles with the same rules only.
    id: ProfileId,
    /// Those it was put together from, each for its own issuers; see [`combined`](Self::combined).
    members: Vec<TokenProfile>,
    /// Which of them is for the tokens of all other issuers, and of none.
    unnamed: Option<usize>,
}

#[derive(Clone, Debug)]
struct ClaimTarget {
    path: ClaimPath,
    kind: TargetKind,
    /// Of a target that the user has set: whether there is anything to revoke by it.
    usage: Option<Arc<ClaimUsage>>,
}

impl Default for TokenProfile {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenProfile {
    /// The largest leeway that [`with_leeway`](Self::with_leeway) takes: more would hide a broken
    /// clock.
    pub const MAX_LEEWAY: Duration = MAX_LEEWAY;

    /// Values of `token_use`, `typ`, `token_type` and `type` by which an issuer says that a token
    /// is not an access token: such tokens are refused.
    pub const OTHER_TOKEN_KINDS: [&'static str; 14] = kind::OTHER_TOKEN_KINDS;

    /// A profile with the defaults: any issuer and any audience is accepted, `jti` is required,
    /// tokens are valid for 24 h at most, and the leeway is 60 s.
    pub fn new() -> Self {
        Self {
            issuers: AcceptedIssuers::none(),
            audiences: Vec::new(),
            leeway: DEFAULT_LEEWAY,
            max_lifetime: DEFAULT_MAX_LIFETIME,
            max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
            id_claim: ClaimPath::new("jti"),
            missing_id: MissingId::default(),
            require_iat: true,
            require_subject: false,
            claim_targets: DEFAULT_CLAIM_TARGETS
                .map(|(claim, kind)| ClaimTarget { path: ClaimPath::new(claim), kind, usage: None })
                .into(),
            claim_rules: Vec::new(),
            nested_paths: 0,
            watched_targets: 0,
            session_extent: Extent::All,
            ignored_kinds: Vec::new(),
            tenants_have_keys: false,
            clock: Arc::new(CoarseClock),
            id: ProfileId::DEFAULT,
            members: Vec::new(),
            unnamed: None,
        }
    }

    /// Accepts tokens of this issuer only; call it again for each further one. `iss` is then
    /// required and must equal one of them exactly, and ids belong to their issuer.
    ///
    /// Default: none; `iss` is ignored, and all ids belong to one nameless issuer. So if you add
    /// the first issuer to a running system, earlier revocations have no effect any more.
    #[must_use]
    pub fn with_issuer(mut self, issuer: impl AsRef<str>) -> Self {
        self.issuers.add_name(issuer.as_ref());
        self.changed()
    }

    /// Accepts tokens of all issuers that match `pattern`, such as
    /// `https://login.example/{tenant}/v2.0`, if `accepts` returns true for their tenant. Otherwise
    /// as [`with_issuer`](Self::with_issuer): `iss` is required, and the ids of each tenant are its
    /// own. The tenants share their keys: [`Target::key`](crate::Target::key) says how to revoke
    /// one for all of them.
    ///
    /// A tenant has 1 to 253 letters, digits, `-`, `_` and `.`, with no `.` at its ends and no
    /// `..`.
    ///
    /// # Security
    /// With `|_| true` every tenant of the provider is accepted; at a public provider anyone can
    /// become one. Use a list of your own, which may change while the program runs. `accepts` is
    /// called for every request, also before the signature was checked. So it must be quick and
    /// must not store the tenant anywhere.
    ///
    /// ```
    /// use tower_jwt_revocation::TokenProfile;
    ///
    /// let profile = TokenProfile::new()
    ///     .with_issuer_pattern("https://login.example/{tenant}/v2.0", |tenant| {
    ///         ["acme", "globex"].contains(&tenant)
    ///     })
    ///     .with_audience("orders");
    /// profile.validate()?;
    /// # Ok::<_, tower_jwt_revocation::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_issuer_pattern(
        mut self,
        pattern: impl Into<Box<str>>,
        accepts: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.issuers.add_pattern(IssuerPattern::new(pattern, accepts));
        self.changed()
    }

    /// Accepts tokens for this audience only; call it again for each further one. `aud` is then
    /// required, and one match suffices.
    ///
    /// Default: none; `aud` is ignored. Set it wherever an issuer serves more than one API (RFC
    /// 8725 §3.9).
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<Box<str>>) -> Self {
        self.audiences.push(audience.into());
        self.changed()
    }

    /// How far the clocks of issuer and verifier may be apart when `exp`, `nbf` and `iat` are
    /// checked: 0 to 300 s, default 60 s. More would hide a broken clock.
    #[must_use]
    pub fn with_leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self.changed()
    }

    /// The longest lifetime (`exp` − `iat`) of an accepted token; default 24 h. Longer ones are
    /// refused: revocations of users, sessions and so on are forgotten after this time, so such a
    /// token would outlive them.
    ///
    /// It can be lowered in a running system at any time. To *raise* it, first give the higher
    /// bound to all that revoke, wait for as long as the lower bound, then give it to verifiers.
    #[must_use]
    pub fn with_max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime;
        self.changed()
    }

    /// The longest accepted token, in bytes; default 8192, as much as common servers take for a
    /// header field. Longer ones are refused unread. The header of the token may take up half of
    /// it.
    ///
    /// The HTTP server must accept as much: in hyper a header field may have 400 kB in HTTP/1 and,
    /// unless `max_header_list_size` says otherwise, 16 kB in HTTP/2.
    #[must_use]
    pub fn with_max_token_bytes(mut self, bytes: usize) -> Self {
        // Of no matter for what a token is, so the tokens of both are the same.
        self.max_token_bytes = bytes;
        self
    }

    /// The claim that holds the id of a token, default `jti`. Microsoft Entra: `uti`. It may be
    /// inside of another claim, see [`with_claim_target`](Self::with_claim_target).
    #[must_use]
    pub fn with_id_claim(mut self, claim: impl Into<Arc<str>>) -> Self {
        self.id_claim = ClaimPath::new(claim);
        self.nested_paths += usize::from(self.id_claim.is_nested());
        self.changed()
    }

    /// What happens to a token without an id; default [`MissingId::Refuse`], because it cannot be
    /// revoked by id.
    ///
    /// # Security
    /// With [`MissingId::OtherTargetsOnly`] a single token can no longer be revoked.
    #[must_use]
    pub fn with_missing_id(mut self, missing_id: MissingId) -> Self {
        self.missing_id = missing_id;
        self.changed()
    }

    /// Accepts tokens without `iat`, which do not say when they were issued. Default: they are
    /// refused.
    ///
    /// # Security
    /// Every cutoff ("all of this user so far") covers such a token, also one that was set before
    /// it was issued: its holder stays out until the cutoff is forgotten. Its lifetime is not known
    /// either. If it is longer than [`with_max_lifetime`](Self::with_max_lifetime), the token
    /// passes towards its end, when revocations of its user or session may have been forgotten.
    #[must_use]
    pub fn allow_missing_iat(mut self) -> Self {
        self.require_iat = false;
        self.changed()
    }

    /// Refuses tokens without a `sub`, which "log out this user" would miss. Default: they are
    /// accepted, because tokens of machines often have none.
    #[must_use]
    pub fn with_required_subject(mut self) -> Self {
        self.require_subject = true;
        self.changed()
    }

    /// Makes tokens revocable by the value of `claim`, as a target of this kind.
    /// `TargetKind::Claim` makes it a target of its own: `with_claim_target("tenant",
    /// TargetKind::Claim)`, then `Target::claim("tenant", "acme")`.
    ///
    /// Default: `sub` → user; `sid`, `session_state`, `session_id` → session; `device_id` → device;
    /// `fid`, `family_id`, `origin_jti` → family; `client_id`, `azp`, `cid`, `appid` → client.
    /// Every claim that is present counts. A value must be a string or (not for `sub`) an integer.
    /// A token with any other value is refused, because a revocation of it would not be found.
    ///
    /// A claim inside of another one is written as `user.uid`, or as the JSON Pointer `/user/uid`
    /// (RFC 6901). A name that contains a dot is written as a pointer: `/kubernetes.io/pod/uid`. A
    /// name with `://` in it is taken literally. A path leads through objects, not into arrays.
    /// Both ways of writing one path mean one claim. If both are set, the last one counts, and
    /// revocations name the claim as it is written there.
    ///
    /// A claim that no token can have is an error of [`validate`](Self::validate). A claim that no
    /// token has had may be misspelt: [`unseen_claim_targets`](Self::unseen_claim_targets) lists
    /// it, and after 1000 tokens the log says so once.
    #[must_use]
    pub fn with_claim_target(mut self, claim: impl Into<Arc<str>>, kind: TargetKind) -> Self {
        let path = ClaimPath::new(claim);
        self.nested_paths += usize::from(path.is_nested());
        self.claim_targets.retain(|known| !known.path.is_same(&path));
        self.claim_targets.push(ClaimTarget { path, kind, usage: Some(Arc::default()) });
        self.watched_targets += 1;
        self.changed()
    }

    /// The claims set by [`with_claim_target`](Self::with_claim_target) that no accepted token has
    /// had yet, each with the number of tokens without it. A revocation by such a claim has matched
    /// nothing. All clones of a profile count together, also the one in a verifier and those with
    /// other rules.
    ///
    /// ```
    /// # use tower_jwt_revocation::TokenProfile;
    /// # use tower_jwt_revocation::revocation::TargetKind;
    /// let profile = TokenProfile::new().with_claim_target("tenant", TargetKind::Claim);
    /// assert_eq!(profile.unseen_claim_targets(), [("tenant", 0)]);
    /// ```
    #[doc(alias = "metrics")]
    pub fn unseen_claim_targets(&self) -> Vec<(&str, u64)> {
        let own = self.claim_targets.iter().filter_map(|target| {
            let tokens = target.usage.as_deref()?.tokens_without()?;
            Some((target.path.as_str(), tokens))
        });
        own.chain(self.members.iter().flat_map(Self::unseen_claim_targets)).collect()
    }

    /// For an issuer that gives the id of an ended session to a new one, as Keycloak does when a
    /// user signs in again in the same browser. A session is then revoked with
    /// [`Extent::IssuedSoFar`](crate::Extent::IssuedSoFar), unless the request says otherwise, so
    /// that later tokens pass. Default: it is revoked with [`Extent::All`](crate::Extent::All).
    ///
    /// # Security
    /// If the session goes on at the issuer, tokens that are issued for it later pass.
    #[must_use]
    pub fn with_recurring_session_ids(mut self) -> Self {
        self.session_extent = Extent::IssuedSoFar;
        self.changed()
    }

    /// Ignores `claim`: saves one key per check, and accepts any value of it.
    #[must_use]
    pub fn without_claim_target(mut self, claim: &str) -> Self {
        let path = ClaimPath::new(claim);
        self.claim_targets.retain(|known| !known.path.is_same(&path));
        self.changed()
    }

    /// Accepts only tokens whose claim has one of these values, or is an array that contains one of
    /// them: `require_claim("token_use", ["access"])`. Booleans and numbers are written as in JSON,
    /// `require_claim("email_verified", ["true"])`; numbers are compared by value. A text with
    /// spaces, such as `scope` (RFC 8693 §4.2), is one value. A path such as `realm.name` leads
    /// into a claim, see [`with_claim_target`](Self::with_claim_target). Call it again for each
    /// further rule; all of them must hold.
    ///
    /// Default: no such rule.
    #[must_use]
    pub fn require_claim<V: Into<Box<str>>>(
        mut self,
        claim: impl Into<Arc<str>>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.claim_rules.push(ClaimRule::one_of(ClaimPath::new(claim), values));
        self.changed()
    }

    /// Accepts only tokens that have this claim, whatever its value; `null` counts as absent.
    ///
    /// Default: no such rule.
    #[must_use]
    pub fn require_claim_presence(mut self, claim: impl Into<Arc<str>>) -> Self {
        self.claim_rules.push(ClaimRule::present(ClaimPath::new(claim)));
        self.changed()
    }

    /// Refuses tokens that have this claim, whatever its value; `null` counts as absent.
    ///
    /// Default: no such rule.
    #[must_use]
    pub fn forbid_claim(mut self, claim: impl Into<Arc<str>>) -> Self {
        self.claim_rules.push(ClaimRule::absent(ClaimPath::new(claim)));
        self.changed()
    }

    /// Refuses tokens whose claim has one of these values, or is an array that contains one of
    /// them. Values are written as for [`require_claim`](Self::require_claim).
    ///
    /// Default: no such rule, beside [`OTHER_TOKEN_KINDS`](Self::OTHER_TOKEN_KINDS).
    #[must_use]
    pub fn forbid_claim_values<V: Into<Box<str>>>(
        mut self,
        claim: impl Into<Arc<str>>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.claim_rules.push(ClaimRule::none_of(ClaimPath::new(claim), values));
        self.changed()
    }

    /// Accepts tokens although this claim says that they are no access tokens.
    ///
    /// Default: a token is refused if one of these claims says that it is no access token (RFC 8725
    /// §3.11, §3.12):
    /// - `token_use`, `typ`, `token_type` or `type` has one of the values
    ///   [`OTHER_TOKEN_KINDS`](Self::OTHER_TOKEN_KINDS);
    /// - `events` is an object whose members are named by URIs, as in logout tokens and other
    ///   security events (RFC 8417 §2.2);
    /// - `refresh` is `true`;
    /// - `at_hash`, `c_hash` or `s_hash` is there, which only ID tokens have.
    ///
    /// # Security
    /// Issuers sign tokens of all kinds with the same keys. A token that this lets in may have been
    /// issued for another purpose and to another recipient. Use it only if a claim of this name has
    /// another meaning at your issuer.
    #[must_use]
    pub fn allow_other_kinds_by(mut self, claim: impl Into<Box<str>>) -> Self {
        self.ignored_kinds.push(claim.into());
        self.changed()
    }

    /// The clock by which `exp`, `nbf` and `iat` are checked. Default: the clock of the operating
    /// system, at most 10 ms late. Revocations are dated by the clock of the store, not by this
    /// one.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self.changed()
    }

    /// The time by which tokens are checked.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// With an id of its own. Called by everything that changes a rule.
    fn changed(mut self) -> Self {
        self.id = ProfileId::next();
        self
    }

    /// Whether claims feed targets of this kind at this issuer, or at any if none is named.
    pub(crate) fn feeds(&self, kind: TargetKind, issuer: Option<&str>) -> bool {
        self.any_part(issuer, |part| {
            let mut targets = part.claim_targets.iter().filter(|target| target.kind == kind);
            targets.any(|target| part.why_never(&target.path).is_none())
        })
    }

    /// See [`with_recurring_session_ids`](Self::with_recurring_session_ids).
    pub(crate) fn has_recurring_sessions(&self, issuer: Option<&str>) -> bool {
        self.any_part(issuer, |part| part.session_extent == Extent::IssuedSoFar)
    }

    fn any_part(&self, issuer: Option<&str>, is: impl Fn(&Self) -> bool) -> bool {
        match issuer {
            _ if self.members.is_empty() => is(self),
            Some(issuer) => self.member(issuer).and_then(|at| self.members.get(at)).is_some_and(is),
            None => match self.unnamed_part() {
                Some(part) => is(part),
                None => self.members.iter().any(is),
            },
        }
    }

    /// The issuer to which ids without one belong.
    ///
    /// # Errors
    /// The names and patterns of all issuers, if there are several to choose from.
    pub(crate) fn only_issuer(&self) -> Result<&str, Vec<&str>> {
        if self.unnamed.is_some() {
            return Ok("");
        }
        match (self.issuers.named.as_slice(), self.issuers.patterns.is_empty()) {
            ([], true) => Ok(""),
            ([one], true) => Ok(&one.name),
            _ => Err(self.issuers.words()),
        }
    }

    #[cfg(any(feature = "issuer", feature = "test-util", test))]
    pub(crate) fn audiences(&self) -> &[Box<str>] {
        &self.audiences
    }

    #[cfg(any(feature = "issuer", feature = "test-util", test))]
    pub(crate) fn id_claim(&self) -> &str {
        self.id_claim.as_str()
    }

    /// Whether a rule of the user's own is about this claim or something in it.
    fn has_rule_for(&self, claim: &str) -> bool {
        self.claim_rules.iter().any(|rule| rule.path.top() == claim)
    }

    /// Whether there is a rule, or an id or a target inside of a claim.
    fn looks_into_claims(&self) -> bool {
        !self.claim_rules.is_empty() || self.nested_paths > 0
    }

    /// Whether a rule is about this claim, and whether an id or a target is inside of it.
    fn looks_at(&self, claim: &str) -> (bool, bool) {
        let leads = |path: &ClaimPath| !path.below().is_empty() && path.top() == claim;
        let is_entered =
            leads(&self.id_claim) || self.claim_targets.iter().any(|target| leads(&target.path));
        (self.has_rule_for(claim), is_entered)
    }

    fn ignores_kind(&self, kind: KindClaim) -> bool {
        self.ignored_kinds.iter().any(|claim| **claim == *kind.claim())
    }

    #[cfg(any(feature = "issuer", feature = "test-util", test))]
    pub(crate) fn max_lifetime(&self) -> Duration {
        self.max_lifetime
    }

    pub(crate) fn max_token_bytes(&self) -> usize {
        self.max_token_bytes
    }

    /// How far in the future a new token may claim to be issued, so that every verifier takes it at
    /// once.
    #[cfg(feature = "issuer")]
    pub(crate) fn max_iat_lead(&self) -> Duration {
        self.leeway + IAT_LEAD
    }

    /// By what kind of target the claim makes tokens of this issuer revocable; of any, if none is
    /// named.
    pub(crate) fn target_of_claim(&self, claim: &str, issuer: Option<&str>) -> Option<TargetKind> {
        let of = |part: &Self| {
            part.claim_targets
                .iter()
                .find(|target| target.path.as_str() == claim)
                .map(|target| target.kind)
        };
        match issuer {
            _ if self.members.is_empty() => of(self),
            Some(issuer) => self.member(issuer).and_then(|at| self.members.get(at)).and_then(of),
            None => match self.unnamed_part() {
                Some(part) => of(part),
                None => self.members.iter().find_map(of),
            },
        }
    }

    pub(crate) fn has_issuers(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// Whether accepted tokens belong to the issuer of this name, which is empty where none is
    /// configured.
    pub(crate) fn issues_as(&self, name: &str) -> bool {
        if name.is_empty() { self.has_nameless() } else { self.knows_issuer(name) }
    }

    /// Whether there are tokens whose ids belong to the nameless issuer.
    pub(crate) fn has_nameless(&self) -> bool {
        self.issuers.is_empty() || self.unnamed.is_some()
    }

    pub(crate) fn knows_issuer(&self, issuer: &str) -> bool {
        self.issuers.has_name(issuer) || self.issuers.has_pattern_for(issuer)
    }

    /// Whether keys can belong to this: to an issuer, or to a pattern whose tenants share them.
    pub(crate) fn knows_key_owner(&self, owner: &str) -> bool {
        let shares = |part: &Self| !part.tenants_have_keys && part.issuers.has_pattern(owner);
        self.knows_issuer(owner) || shares(self) || self.members.iter().any(shares)
    }

    /// Says that keys belong to each tenant, as the verifier of each has its own.
    pub(crate) fn with_keys_of_tenants(mut self) -> Self {
        self.tenants_have_keys = true;
        for part in &mut self.members {
            part.tenants_have_keys = true;
            part.id = ProfileId::next();
        }
        self.changed()
    }

    /// Which targets the tokens can have that it accepts: one for each of its parts.
    pub(crate) fn accepted_targets(&self) -> Vec<AcceptedTargets> {
        let own = std::slice::from_ref(self);
        let parts = if self.members.is_empty() { own } else { &self.members };
        let of = |part: &Self| {
            let is_fed = |target: &&ClaimTarget| part.why_never(&target.path).is_none();
            let (claims, others): (Vec<_>, Vec<_>) = part
                .claim_targets
                .iter()
                .filter(is_fed)
                .partition(|target| target.kind == TargetKind::Claim);
            let always =
                [TargetKind::Token, TargetKind::SigningInput, TargetKind::Key, TargetKind::Issuer];
            AcceptedTargets::new(
                part.issuers.words(),
                others.iter().map(|target| target.kind).chain(always),
                claims.iter().map(|target| target.path.as_str()),
            )
        };
        parts.iter().map(of).collect()
    }

    /// When the record of a token that expires at `exp` may be forgotten.
    pub(crate) fn forget_token_at(exp: Timestamp) -> Timestamp {
        exp.saturating_add(RETENTION_MARGIN)
    }

    /// How long a record must be kept to outlive every token that exists when it is written.
    pub(crate) fn retention(&self) -> Duration {
        // A token that is revoked now, as part of its session, may say that it was issued by the
        // leeway later.
        self.max_lifetime.saturating_add(MAX_LEEWAY + RETENTION_MARGIN)
    }
}

impl fmt::Debug for TokenProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenProfile")
            .field("issuers", &self.issuers)
            .field("audiences", &self.audiences)
            .field("leeway", &self.leeway)
            .field("max_lifetime", &self.max_lifetime)
            .field("max_token_bytes", &self.max_token_bytes)
            .field("id_claim", &self.id_claim)
            .field("missing_id", &self.missing_id)
            .field("require_iat", &self.require_iat)
            .field("require_subject", &self.require_subject)
            .field("claim_targets", &self.claim_targets)
            .field("session_extent", &self.session_extent)
            .field("claim_rules", &self.claim_rules)
            .field("ignored_kinds", &self.ignored_kinds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod tests;

//! [`ForeignList`]: a list as it is declared, and as it is used.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use fred::types::Value;
use serde::{Deserialize, Deserializer};

use super::decide::{JsonFlag, ListVerdict, ValueMeaning, decide_presence};
use super::template::{FillError, KeyTemplate, Placeholder, PlaceholderValues};
use crate::config::{ConfigError, from_word};
use crate::revocation::TargetKind;
use crate::store::{RevokedBy, Standing, StoreError, StoreErrorKind};
use crate::verified::{Needs, VerifiedToken};

/// A list of revoked tokens, sessions, families and so on that another program keeps in the same
/// Redis.
///
/// Pass it to
/// [`RedisStoreBuilder::with_foreign_list`](super::super::RedisStoreBuilder::with_foreign_list);
/// mistakes in it are reported there. See the [module](super) for templates, for risks, and for how
/// to end the use of the list.
#[derive(Clone, Debug)]
#[doc(alias = "blacklist")]
#[doc(alias = "blocklist")]
#[doc(alias = "denylist")]
#[must_use = "a list has no effect until a store is given it"]
pub struct ForeignList {
    key: Box<str>,
    member: Option<Box<str>>,
    meaning: ValueMeaning,
    /// Those that mean revoked and those that mean live, if values count.
    values: Option<(Values, Values)>,
    kind: Option<TargetKind>,
    issuer: Option<Box<str>>,
    missing: MissingClaims,
    absent: AbsentEntry,
    writes: ListWrites,
    value: Box<str>,
}

type Values = Vec<Box<str>>;

/// What a token without a claim of the template means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingClaims {
    Error,
    NotListed,
}

/// What an entry that is not there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AbsentEntry {
    Live,
    Revoked,
}

/// Whether revocations of our own are written to the list as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListWrites {
    Never,
    Too,
}

/// What may come after `|` where a list is written in words.
const OPTIONS: [&str; 11] = [
    "member",
    "revoked",
    "live",
    "json-words",
    "json-flag",
    "json-live-flag",
    "kind",
    "issuer",
    "allow-missing-claims",
    "absent-means-revoked-even-if-lost",
    "writes",
];

impl ForeignList {
    /// A list with one key for each entry. By default, an existing key means revoked, whatever its
    /// type and value.
    pub fn keys(template: impl Into<Box<str>>) -> Self {
        Self {
            key: template.into(),
            member: None,
            meaning: ValueMeaning::Present,
            values: None,
            kind: None,
            issuer: None,
            missing: MissingClaims::Error,
            absent: AbsentEntry::Live,
            writes: ListWrites::Never,
            value: "1".into(),
        }
    }

    /// A list that is a set, whose members are the entries (`SISMEMBER`). Key and member are
    /// templates.
    ///
    /// Members of a set do not expire: a member stays revoked until the other program removes it.
    pub fn set(key: impl Into<Box<str>>, member: impl Into<Box<str>>) -> Self {
        Self { member: Some(member.into()), ..Self::keys(key) }
    }

    // === Layouts that are found often ===

    /// Keys `{jti}`, with any value: each key is just the id of the token, as in tutorials for
    /// FastAPI (`SET <jti> "" EX 3600`). To be [imported](super::super::Import) it needs
    /// `with_revoked_values([""])`, because any key of the database could be an id.
    pub fn plain_jti() -> Self {
        Self { value: "".into(), ..Self::keys("{jti}") }
    }

    /// Keys `blacklist:{token}`, with any value, such as `1` or `blacklisted`. It lists tokens by
    /// their text: read [what that misses](super#lists-by-the-token-itself).
    pub fn blacklisted_token() -> Self {
        Self::keys("blacklist:{token}")
    }

    /// Keys `revoked:{token_sha256}`, with any value: the SHA-256 of the token in hexadecimal. Keys
    /// `access_token:{token_sha256}` are ignored. It lists tokens by their text: read [what that
    /// misses](super#lists-by-the-token-itself).
    pub fn revoked_token_sha256() -> Self {
        Self::keys("revoked:{token_sha256}")
    }

    /// Keys `token:blacklist:{jti}`, with a JSON document whose `reason` and `user_id` are shown.
    pub fn blacklisted_jti_json() -> Self {
        Self::keys("token:blacklist:{jti}").with_json_words()
    }

    /// Keys `token:family:{claim:fid}`, with a JSON document. Only a document with `revoked_at`
    /// means revoked, because some programs keep live families under the same keys. Tokens without
    /// `fid` count as not listed.
    pub fn token_family_json() -> Self {
        Self::keys("token:family:{claim:fid}").with_json_flag("revoked_at").allow_missing_claims()
    }

    /// The set `token:revoked_families`, of families by `{claim:fid}`. Tokens without `fid` count
    /// as not listed.
    pub fn revoked_families() -> Self {
        Self::set("token:revoked_families", "{claim:fid}").allow_missing_claims()
    }

    // === What the entries mean ===

    /// Entries with one of these values mean revoked. Name every value that occurs, here or by
    /// [`with_live_values`](Self::with_live_values): any other is an error, and the fail mode
    /// decides.
    pub fn with_revoked_values<T: Into<Box<str>>>(
        mut self,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        let named: Vec<_> = values.into_iter().map(Into::into).collect();
        if let Some(first) = named.first() {
            self.value.clone_from(first);
        }
        self.values.get_or_insert_default().0 = named;
        self
    }

    /// Entries with one of these values mean live, such as `active` in a key that exists for every
    /// token. See [`with_revoked_values`](Self::with_revoked_values).
    pub fn with_live_values<T: Into<Box<str>>>(
        mut self,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.values.get_or_insert_default().1 = values.into_iter().map(Into::into).collect();
        self
    }

    /// Entries are JSON documents whose `reason` and `user_id` become the reason of the refusal,
    /// cut to 200 characters each and without control characters. Every entry means revoked, also
    /// one that is no JSON.
    pub fn with_json_words(mut self) -> Self {
        (self.meaning, self.values) = (ValueMeaning::Json { flag: None }, None);
        self
    }

    /// As [`with_json_words`](Self::with_json_words), but only a document in which `flag` is there,
    /// and neither `null` nor `false`, means revoked. An entry that is no JSON object is an error,
    /// and the fail mode decides. A document without the flag belongs to the other program: a
    /// [write](Self::with_writes) leaves it as it is, and the receipt says so.
    pub fn with_json_flag(self, flag: impl Into<Box<str>>) -> Self {
        self.with_flag(JsonFlag { name: flag.into(), means_live: false })
    }

    /// The opposite of [`with_json_flag`](Self::with_json_flag), for `{"is_active": true}`: a
    /// document in which `flag` is there, and neither `null` nor `false`, means live, and any other
    /// means revoked. Such a list can be [written](Self::with_writes) only with
    /// [`absent_means_revoked_even_if_lost`](Self::absent_means_revoked_even_if_lost).
    pub fn with_json_live_flag(self, flag: impl Into<Box<str>>) -> Self {
        self.with_flag(JsonFlag { name: flag.into(), means_live: true })
    }

    fn with_flag(mut self, flag: JsonFlag) -> Self {
        (self.meaning, self.values) = (ValueMeaning::Json { flag: Some(flag) }, None);
        self
    }

    /// A token without an entry is revoked: for programs that keep an entry for each live token or
    /// session, and delete it at logout (`access_token:<hash>`, `session:<id>`). An existing entry
    /// means live, unless its value says otherwise. Default: a token without an entry is not
    /// revoked.
    ///
    /// With [`with_writes`](Self::with_writes), a revocation by us deletes the entry. A
    /// reinstatement cannot bring it back. [`Import`](super::super::Import) cannot import it,
    /// because revoked tokens have no entry.
    ///
    /// # Security
    /// Whatever loses an entry signs its holder out: an expiry before that of the token, a restart
    /// with older data, a failover, `FLUSHDB`, an eviction. So a store with such a list does not
    /// connect to a server that evicts, or that does not say whether it does (`+info`):
    /// `maxmemory-policy` must be `noeviction`, or `maxmemory` 0. The store checks this when it
    /// connects, so its start must not be [`Start::Anyway`](super::super::Start::Anyway);
    /// [`doctor`](crate::RedisStore::doctor) checks it again. Tokens that the other program has not
    /// issued are revoked by this list, unless [`with_issuer`](Self::with_issuer) excludes them.
    pub fn absent_means_revoked_even_if_lost(mut self) -> Self {
        self.absent = AbsentEntry::Revoked;
        self
    }

    /// The kind of target through which this list revokes: for counters and logs, and for which
    /// revocations [are written](Self::with_writes). Default: a token for `{jti}` and the
    /// placeholders of tokens, else the usual kind of the last claim in the template, such as
    /// [`TargetKind::Family`] for `fid`.
    pub fn with_kind(mut self, kind: TargetKind) -> Self {
        self.kind = Some(kind);
        self
    }

    // === Which tokens it is about ===

    /// Asks only about tokens of this issuer. Default: about all. With several issuers, name the
    /// one whose ids these are, because `alice` of another issuer is someone else.
    pub fn with_issuer(mut self, issuer: impl Into<Box<str>>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// A token that lacks a claim of the template, or has it empty, counts as not listed. Default:
    /// it is refused with 401 in every fail mode, because its key cannot be known.
    ///
    /// # Security
    /// Tokens without the claim cannot be revoked through this list.
    pub fn allow_missing_claims(mut self) -> Self {
        self.missing = MissingClaims::NotListed;
        self
    }

    /// Writes what is revoked by us to the list as well, so that the other program refuses it too.
    /// Default: only reads.
    ///
    /// The store writes our own record first. Then it writes the entry for targets of the
    /// [kind](Self::with_kind) of the list that are revoked with
    /// [`Extent::All`](crate::Extent::All). The entry expires with our record (in a set: never). An
    /// existing entry is not overwritten, unless it has a [live value](Self::with_live_values). A
    /// reinstatement removes only what was written here: an earlier entry stays, and so does one
    /// that the other program has written over ours, unless it is the same. An overwritten live
    /// value is not restored.
    ///
    /// A mark beside our records says what was written here. It is written after the entry was
    /// confirmed. If that confirmation is lost, because the connection was lost or Redis did not
    /// answer in time, there is no mark, also if the write is repeated: the entry could be the
    /// other program's. Such an entry stays after a reinstatement, and the token stays refused,
    /// until the entry expires or is deleted by hand; in a set it never expires. The same holds if
    /// the mark was lost with other data.
    ///
    /// In a [list of the live](Self::absent_means_revoked_even_if_lost) a revocation deletes the
    /// entry, whoever has written it. It does so also with
    /// [`IssuedSoFar`](crate::Extent::IssuedSoFar), if no session is
    /// [spared](crate::revoker::RevokeRequest::sparing): the next login makes the entry anew. Such
    /// a list has no marks, and a reinstatement restores nothing.
    ///
    /// A list by the token itself is written where the token is available: in
    /// [`revoke_raw_token`](crate::Revoker::revoke_raw_token), in
    /// [`revoke_token`](crate::Revoker::revoke_token) of the token of a request, and in
    /// `Sessions::logout`, which ends more than this token: a list of tokens then gets this one.
    ///
    /// `Sessions` (feature `sessions`) know the family of a session: if no list can express the end
    /// of a session, lists of families get its family. A reinstatement of the session does not
    /// remove that; one of the family does.
    ///
    /// If no list can express a revocation, the other program does not learn of it.
    /// [`Receipt::unlisted`](crate::store::Receipt::unlisted) then names the lists, and the log
    /// says so.
    ///
    /// | what is revoked | a list of tokens | of families | of sessions | of users |
    /// | --- | --- | --- | --- | --- |
    /// | a token | says it | – | – | – |
    /// | a family | – | says it | – | – |
    /// | a session, by its id | – | – | says it | – |
    /// | a session, by `Sessions` | – | its family | says it | – |
    /// | a session, by the token of a request (`Sessions::logout`) | that token | its family | says it | – |
    /// | a user with [`Extent::All`](crate::Extent::All) | – | – | – | says it |
    /// | a user so far, which is the default | – | – | – | only a list of the live |
    /// | a user so far, by `Sessions::end_all` | – | those of the sessions | the sessions | only a list of the live |
    /// | a user so far, but for one session | – | – | – | – |
    /// | anything until an earlier time ([`Extent::IssuedUntil`](crate::Extent::IssuedUntil)) | – | – | – | – |
    ///
    /// So a list of tokens learns nothing of a "log out everywhere", because nobody keeps the ids
    /// of issued tokens. If the token of the request is available and covered, a list of tokens
    /// gets that one.
    pub fn with_writes(mut self) -> Self {
        self.writes = ListWrites::Too;
        self
    }

    /// The list, ready for use.
    ///
    /// # Errors
    /// [`ConfigError`] if the declaration cannot work.
    pub(crate) fn compile(&self) -> Result<CompiledList, ConfigError> {
        let oops =
            |problem: &str| ConfigError::new("foreign_list", format!("`{}` {problem}", self.key));
        let mut options = self.key.split('|').skip(1);
        if options.any(|option| OPTIONS.contains(&option.split('=').next().unwrap_or_default())) {
            return Err(oops("is a list in words, with options after `|`; read it by `parse`"));
        }
        let parse = |source: &str| {
            KeyTemplate::parse(source).map_err(|problem| {
                ConfigError::new("foreign_list", format!("`{source}` {problem}"))
            })
        };
        let key = parse(&self.key)?;
        let member = self.member.as_deref().map(parse).transpose()?;
        let fields = || key.fields().chain(member.iter().flat_map(KeyTemplate::fields));
        let Some(last) = fields().last() else {
            return Err(oops("has no placeholder, so it would be the same for all tokens"));
        };
        let meaning = match self.values.clone() {
            Some((revoked, live)) => ValueMeaning::Values { revoked, live },
            None => self.meaning.clone(),
        };
        match &meaning {
            meaning if member.is_some() && *meaning != ValueMeaning::Present => {
                return Err(oops("is a set, whose members have no values"));
            }
            ValueMeaning::Values { revoked, live } => {
                if revoked.is_empty() && self.absent == AbsentEntry::Live {
                    return Err(oops(
                        "has no value that means revoked; see ForeignList::with_revoked_values",
                    ));
                }
                if revoked.iter().any(|value| live.contains(value)) {
                    return Err(oops("has a value that means both revoked and live"));
                }
            }
            ValueMeaning::Json { flag: Some(flag) } if flag.name.is_empty() => {
                return Err(oops("has a flag without a name"));
            }
            ValueMeaning::Json { flag: Some(flag) }
                if flag.means_live
                    && self.absent == AbsentEntry::Live
                    && self.writes == ListWrites::Too =>
            {
                return Err(oops(
                    "holds documents of the live, which are the other program's to change; leave \
                     out the writes",
                ));
            }
            ValueMeaning::Present | ValueMeaning::Json { .. } => {}
        }
        let is_token = |field: &Placeholder| field.kind() == TargetKind::Token;
        let kind = self.kind.unwrap_or(if fields().any(is_token) {
            TargetKind::Token
        } else {
            last.kind()
        });
        let needs = fields().map(Placeholder::needs).max().unwrap_or_default();
        let name: Arc<str> = match &member {
            None => key.source().into(),
            Some(member) => format!("{key} {member}").into(),
        };
        let reason = match self.absent {
            AbsentEntry::Live => format!("listed by another program under {name}"),
            AbsentEntry::Revoked => format!("not live by the list {name} of another program"),
        };
        Ok(CompiledList {
            reason: reason.into(),
            name,
            claims: fields()
                .filter_map(|field| match field {
                    Placeholder::Claim(claim) => Some(claim.clone()),
                    Placeholder::Token | Placeholder::Digest(_) => None,
                })
                .collect(),
            key,
            member,
            meaning,
            kind,
            needs,
            issuer: self.issuer.clone(),
            missing: self.missing,
            absent: self.absent,
            writes: self.writes,
            value: self.value.clone(),
        })
    }
}

/// Reads the text of configurations: the name of a common layout, or a template of keys, and then
/// options with the names of the methods, each after a `|`. Values and templates must not contain
/// `|`, nor, in an environment variable, a comma or a space.
///
/// ```
/// use tower_jwt_revocation::store::redis::foreign::ForeignList;
///
/// let known: ForeignList = "blacklisted-jti-json|writes".parse()?;
/// let own: ForeignList = "session:{sid}|revoked=ended|live=active".parse()?;
/// let set: ForeignList = "gone|member={claim:fid}|allow-missing-claims".parse()?;
/// # let _ = (known, own, set); Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
impl FromStr for ForeignList {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let oops = |problem: String| ConfigError::new("foreign_list", problem);
        if text.contains("\\|") {
            return Err(oops(
                "has `\\|`, as tables in Markdown have it; write `|` without the backslash".into(),
            ));
        }
        let mut parts = text.split('|');
        let mut list = match parts.next().unwrap_or_default() {
            "plain-jti" => Self::plain_jti(),
            "blacklisted-token" => Self::blacklisted_token(),
            "revoked-token-sha256" => Self::revoked_token_sha256(),
            "blacklisted-jti-json" => Self::blacklisted_jti_json(),
            "token-family-json" => Self::token_family_json(),
            "revoked-families" => Self::revoked_families(),
            template => Self::keys(template),
        };
        let (mut revoked, mut live) = (Vec::new(), Vec::new());
        for option in parts {
            list = match option.split_once('=').unwrap_or((option, "")) {
                ("member", template) => Self { member: Some(template.into()), ..list },
                ("revoked", value) => {
                    revoked.push(value);
                    list
                }
                ("live", value) => {
                    live.push(value);
                    list
                }
                ("json-words", "") => list.with_json_words(),
                ("json-flag", flag) => list.with_json_flag(flag),
                ("json-live-flag", flag) => list.with_json_live_flag(flag),
                ("kind", kind) => {
                    let Ok(kind) = kind.parse() else {
                        let words = TargetKind::ALL.map(TargetKind::as_str).join(", ");
                        return Err(oops(format!("has a kind that is none of {words}")));
                    };
                    list.with_kind(kind)
                }
                ("issuer", issuer) => list.with_issuer(issuer),
                ("allow-missing-claims", "") => list.allow_missing_claims(),
                ("absent-means-revoked-even-if-lost", "") => {
                    list.absent_means_revoked_even_if_lost()
                }
                ("writes", "") => list.with_writes(),
                _ => {
                    return Err(oops(
                        "has something after `|` that is none of `member=…`, `revoked=…`, \
                         `live=…`, `json-words`, `json-flag=…`, `json-live-flag=…`, `kind=…`, \
                         `issuer=…`, `allow-missing-claims`, `absent-means-revoked-even-if-lost` \
                         and `writes`"
                            .into(),
                    ));
                }
            };
        }
        if !revoked.is_empty() {
            list = list.with_revoked_values(revoked);
        }
        if !live.is_empty() {
            list = list.with_live_values(live);
        }
        list.compile().map(|_| list)
    }
}

/// As [`FromStr`].
impl<'de> Deserialize<'de> for ForeignList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_word(deserializer)
    }
}

/// A list, ready for use.
#[derive(Debug)]
pub(crate) struct CompiledList {
    /// Its templates, for messages.
    pub(crate) name: Arc<str>,
    /// The reason of a refusal for which no words are found.
    reason: Arc<str>,
    pub(crate) key: KeyTemplate,
    pub(crate) member: Option<KeyTemplate>,
    pub(crate) meaning: ValueMeaning,
    pub(crate) kind: TargetKind,
    pub(crate) needs: Needs,
    pub(crate) claims: Vec<Box<str>>,
    pub(crate) issuer: Option<Box<str>>,
    pub(crate) missing: MissingClaims,
    pub(crate) absent: AbsentEntry,
    pub(crate) writes: ListWrites,
    pub(crate) value: Box<str>,
}

/// The key of an entry, and its member in a set.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ListEntry {
    pub(crate) key: String,
    pub(crate) member: Option<String>,
}

impl CompiledList {
    pub(crate) fn has_values(&self) -> bool {
        matches!(self.meaning, ValueMeaning::Values { .. })
    }

    pub(crate) fn is_about(&self, issuer: Option<&str>) -> bool {
        self.issuer.as_deref().is_none_or(|known| issuer == Some(known))
    }

    pub(crate) fn entry<'v>(
        &self,
        mut fill: impl FnMut(&Placeholder) -> Result<Cow<'v, str>, FillError>,
    ) -> Result<ListEntry, FillError> {
        Ok(ListEntry {
            key: self.key.render(&mut fill)?,
            member: self.member.as_ref().map(|member| member.render(&mut fill)).transpose()?,
        })
    }

    /// The entry of a token; none, if it lacks a claim and this is allowed.
    pub(crate) fn entry_of(
        &self,
        values: &PlaceholderValues<'_>,
    ) -> Result<Option<ListEntry>, StoreError> {
        match self.entry(|field| values.fill(field)) {
            Ok(entry) => Ok(Some(entry)),
            Err(FillError::Missing(_)) if self.missing == MissingClaims::NotListed => Ok(None),
            Err(error) => Err(self.fill_error(&error)),
        }
    }

    /// What the token is like is an error of its own; that its text is not at hand is not its
    /// fault.
    pub(crate) fn fill_error(&self, error: &FillError) -> StoreError {
        let kind = match error {
            FillError::Missing(_) | FillError::Odd(..) => StoreErrorKind::InvalidInput,
            FillError::NoText => StoreErrorKind::Other,
        };
        let problem = match error {
            FillError::Missing(claim) => {
                format!("the token has no claim `{claim}`; see ForeignList::allow_missing_claims")
            }
            FillError::Odd(claim, problem) => format!("the claim `{claim}` of the token {problem}"),
            FillError::NoText => {
                "the token itself is not at hand: it came with the claims of an outer \
                layer, or through a store that does not pass on RevocationStore::needs"
                    .into()
            }
        };
        self.error(kind, &problem)
    }

    /// An error about this list. It names the templates, never what was filled in.
    pub(crate) fn error(&self, kind: StoreErrorKind, problem: &str) -> StoreError {
        StoreError::new(kind, format!("the foreign list {}: {problem}", self.name))
    }

    /// The command that asks for an entry, and its arguments.
    pub(crate) fn question(&self, entry: ListEntry) -> (&'static str, Vec<Value>) {
        let key = Value::from(entry.key);
        match entry.member {
            Some(member) => ("SISMEMBER", vec![key, Value::from(member)]),
            None => (self.meaning.command(), vec![key]),
        }
    }

    pub(crate) fn verdict(&self, answer: &Value) -> ListVerdict {
        let is_presence = self.member.is_some() || self.meaning == ValueMeaning::Present;
        match (is_presence, self.absent) {
            (false, AbsentEntry::Revoked) if answer.is_null() => ListVerdict::Revoked(None),
            (false, _) => self.meaning.decide(answer),
            (true, AbsentEntry::Live) => decide_presence(answer),
            (true, AbsentEntry::Revoked) => match decide_presence(answer) {
                ListVerdict::Live => ListVerdict::Revoked(None),
                ListVerdict::Revoked(_) => ListVerdict::Live,
                ListVerdict::Odd => ListVerdict::Odd,
            },
        }
    }

    /// What an answer means for a token.
    pub(crate) fn decide(&self, answer: &Value) -> Result<Standing, StoreError> {
        match self.verdict(answer) {
            ListVerdict::Live => Ok(Standing::Live),
            ListVerdict::Revoked(words) => {
                let mut by = RevokedBy::new(self.kind);
                by.reason = Some(words.unwrap_or_else(|| Arc::clone(&self.reason)));
                Ok(Standing::Revoked(by))
            }
            ListVerdict::Odd => Err(self.error(
                StoreErrorKind::Protocol,
                "an entry holds what was not said to mean anything; see \
                 ForeignList::with_revoked_values and with_live_values",
            )),
        }
    }
}

/// All lists of a store.
#[derive(Debug)]
pub(crate) struct CompiledLists {
    pub(crate) all: Vec<Arc<CompiledList>>,
    /// The claims that any of them needs, each once.
    claims: Box<[Box<str>]>,
}

impl CompiledLists {
    pub(crate) fn compile(lists: &[ForeignList]) -> Result<Self, ConfigError> {
        let all =
            lists.iter().map(|list| list.compile().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let mut claims: Vec<_> = all.iter().flat_map(|list| list.claims.iter().cloned()).collect();
        claims.sort_unstable();
        claims.dedup();
        Ok(Self { all, claims: claims.into() })
    }

    /// A list that takes what is not there for revoked, if there is one.
    pub(crate) fn lossy(&self) -> Option<&CompiledList> {
        self.all.iter().map(|list| &**list).find(|list| list.absent == AbsentEntry::Revoked)
    }

    pub(crate) fn needs(&self) -> Needs {
        self.all.iter().map(|list| list.needs).max().unwrap_or_default()
    }

    pub(crate) fn placeholder_values<'t>(
        &'t self,
        token: &'t VerifiedToken,
    ) -> PlaceholderValues<'t> {
        PlaceholderValues::of(token, &self.claims)
    }
}

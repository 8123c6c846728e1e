//! The arguments.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use tower_jwt_revocation::Target;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::TargetKind;

use crate::time::{parse_lifetime, parse_time};

const EXIT_STATUS: &str = "\
Exit status:
  0  done, or live
  1  revoked (`token`, `find`), or unfit (`doctor`)
  2  wrong use; for `token`: no acceptable token
  3  the store is out of reach, or a write was not confirmed, which may be repeated

Environment:
  REDIS_URL, REDIS_PASSWORD, JWT_REDIS_PREFIX, JWT_ISSUERS and the others that the service has, see
  docs/configuration.md. JWT_REDIS_START_LIMIT_SECS says how long to wait for a store that is away;
  default here: 5.";

/// Revokes JWTs, and says which are revoked and why
#[derive(Debug, Parser)]
#[command(name = "jwt-revocation", version, after_help = EXIT_STATUS)]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where Redis is, instead of `REDIS_URL`. Other users of this machine may see it: better leave
    /// passwords to `REDIS_PASSWORD_FILE`
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis_url: Option<String>,
    /// What all keys begin with, instead of `JWT_REDIS_PREFIX`
    #[arg(long, global = true)]
    pub(crate) prefix: Option<String>,
    /// One JSON document on standard output, and nothing else there; for `list` and `watch` one on
    /// each line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Refuse tokens from now on: one, or all of a session, a user, …
    Revoke(RevokeArgs),
    /// Accept tokens again: undoes what was revoked of this very target
    Reinstate(ChangeArgs),
    /// Say whether this is revoked, since when, why and by whom
    Find(NamedArgs),
    /// Say whether the token on standard input is refused, and why
    Token,
    /// List what is revoked
    List(ListArgs),
    /// Say how many revocations are in effect
    Count,
    /// Examine whether this Redis is fit to keep revocations
    Doctor,
    /// Follow what is revoked and reinstated, by anyone, until interrupted
    Watch,
    /// Show or decide which tokens are in doubt after a loss of data
    Doubt {
        #[command(subcommand)]
        command: DoubtCommand,
    },
    /// Take over what another program has revoked in the same Redis
    Import(ImportArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands
    Man {
        /// Where to write the pages
        #[arg(long = "dir", value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    /// A token: when it expires. Anything else: keep the revocation until then at least. As
    /// 2030-01-31T12:00:00Z or +90s, +15m, +12h, +30d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) until: Option<Timestamp>,
    /// All tokens for all times to come, until it is reinstated; of a user, a device, a client, a
    /// key, an issuer and a claim the default is the tokens issued so far
    #[arg(long)]
    pub(crate) all: bool,
    /// How long refresh tokens may live, as 90d or 12h: revocations of what they belong to are kept
    /// for so long. Default: `JWT_REFRESH_LIFETIME_SECS`, else 90d
    #[arg(long, value_name = "TIME", value_parser = parse_lifetime)]
    pub(crate) lifetime: Option<Duration>,
}

/// What every command takes that revokes or reinstates.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) named: NamedArgs,
    #[command(flatten)]
    pub(crate) note: NoteArgs,
    /// Wait until no process decides from memory without it, for 10 s or as long as given; say
    /// which are behind
    #[arg(long, value_name = "TIME", value_parser = parse_lifetime, num_args = 0..=1,
        require_equals = true, default_missing_value = "10s")]
    pub(crate) confirm: Option<Duration>,
}

/// What is meant, and whose id it is.
#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) issuer: IssuerArgs,
}

/// What is revoked: exactly one.
#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = false)]
pub(crate) struct TargetArgs {
    /// One token, by its id
    #[arg(long, value_parser = parse_id, allow_hyphen_values = true)]
    jti: Option<String>,
    /// A user: `sub`
    #[arg(long, value_name = "SUB", value_parser = parse_id, allow_hyphen_values = true)]
    user: Option<String>,
    /// A session: `sid`
    #[arg(long, value_name = "SID", value_parser = parse_id, allow_hyphen_values = true)]
    session: Option<String>,
    /// A device
    #[arg(long, value_name = "ID", value_parser = parse_id, allow_hyphen_values = true)]
    device: Option<String>,
    /// A family of refresh tokens, with its access tokens
    #[arg(long, value_name = "ID", value_parser = parse_id, allow_hyphen_values = true)]
    family: Option<String>,
    /// An OAuth client: `client_id`
    #[arg(long, value_name = "ID", value_parser = parse_id, allow_hyphen_values = true)]
    client: Option<String>,
    /// A signing key: `kid`. If it was stolen, add --all: a thief chooses the date of tokens
    #[arg(long, value_name = "KID", value_parser = parse_id, allow_hyphen_values = true)]
    key: Option<String>,
    /// Everything that an issuer has issued: `iss`; empty for the one without a name
    #[arg(long, value_name = "ISS", value_parser = parse_id, allow_hyphen_values = true)]
    issuer: Option<String>,
    /// All tokens in which a claim has this value
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_claim)]
    claim: Option<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct IssuerArgs {
    /// Whose target it is, where `JWT_ISSUERS` names several
    #[arg(long, conflicts_with = "issuer")]
    pub(crate) iss: Option<String>,
    /// Take an issuer that `JWT_ISSUERS` does not name, and revoke what no service on this store
    /// accepts
    #[arg(long)]
    pub(crate) allow_unknown_issuer: bool,
}

/// A note for people.
#[derive(Debug, Args)]
pub(crate) struct NoteArgs {
    /// Why, for people
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Who does it, for people
    #[arg(long)]
    pub(crate) actor: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this kind
    #[arg(long, value_parser = kinds())]
    pub(crate) kind: Option<TargetKind>,
    /// No more than so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<NonZeroUsize>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DoubtCommand {
    /// Show which tokens are in doubt
    Show,
    /// Declare that revocations were lost, as after a restored backup: tokens issued until now are
    /// refused (unless the service fails open), and their holders sign in again
    Declare {
        /// Since when what was revoked is missing, such as the time of the backup; as
        /// 2030-01-31T12:00:00Z or -15m, -12h, -3d
        #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
        since: Timestamp,
        /// Until when, if that is not now: what was revoked later is there. Tokens issued until
        /// then are in doubt
        #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
        until: Option<Timestamp>,
        #[command(flatten)]
        note: NoteArgs,
    },
    /// Accept the tokens in doubt: those that were revoked before the loss are accepted again
    Accept {
        #[command(flatten)]
        note: NoteArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) list: ForeignListArgs,
    /// The id of the member of a set, as a template; with --set
    #[arg(long, value_name = "TEMPLATE", requires = "set", default_value = "{jti}")]
    pub(crate) member: String,
    /// A value that means revoked; default: every one does
    #[arg(long = "revoked-value", value_name = "VALUE")]
    pub(crate) revoked_values: Vec<String>,
    /// A value that does not mean revoked
    #[arg(long = "live-value", value_name = "VALUE")]
    pub(crate) live_values: Vec<String>,
    /// What the ids are of, if the template does not tell: token, session or family
    #[arg(long, value_parser = kinds())]
    pub(crate) kind: Option<TargetKind>,
    /// Whose ids these are, where `JWT_ISSUERS` names several
    #[arg(long)]
    pub(crate) iss: Option<String>,
    /// How many keys to look at per second, about
    #[arg(long, default_value = "5000")]
    pub(crate) pace: NonZeroU32,
    /// Go on where another import was, by the cursor that it gave out
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cursor: Option<String>,
    /// How long refresh tokens may live, as for `revoke`
    #[arg(long, value_name = "TIME", value_parser = parse_lifetime)]
    pub(crate) lifetime: Option<Duration>,
}

/// Which list: exactly one.
#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false)]
pub(crate) struct ForeignListArgs {
    /// A list that is well known
    #[arg(long)]
    pub(crate) list: Option<KnownList>,
    /// The keys, as a template: `blacklist:{jti}`, `session:{sid}`
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) keys: Option<String>,
    /// The key of a set
    #[arg(long, value_name = "KEY")]
    pub(crate) set: Option<String>,
}

/// Lists that are well known.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KnownList {
    /// `<jti>`
    PlainJti,
    /// `blacklist:<token>`
    BlacklistedToken,
    /// `token:blacklist:<jti>` with a JSON document
    BlacklistedJtiJson,
    /// `token:family:<fid>` with a JSON document
    TokenFamilyJson,
    /// the set `token:revoked_families`
    RevokedFamilies,
}

/// The kinds of targets, by the names that records have.
fn kinds() -> impl TypedValueParser<Value = TargetKind> {
    let names = TargetKind::ALL
        .map(|kind| PossibleValue::new(kind.as_str()).hide(kind == TargetKind::SigningInput));
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}

impl TargetArgs {
    /// The target, of this issuer if one was named. `None` never happens: clap wants exactly one.
    pub(crate) fn target(&self, issuer: Option<&str>) -> Option<Target> {
        let of = |id: &Option<String>, make: fn(String) -> Target| id.clone().map(make);
        let target = of(&self.jti, Target::token)
            .or_else(|| of(&self.user, Target::user))
            .or_else(|| of(&self.session, Target::session))
            .or_else(|| of(&self.device, Target::device))
            .or_else(|| of(&self.family, Target::family))
            .or_else(|| of(&self.client, Target::client))
            .or_else(|| of(&self.key, Target::key))
            .or_else(|| of(&self.issuer, Target::issuer))
            .or_else(|| self.claim.clone().map(|(name, value)| Target::claim(name, value)))?;
        Some(match issuer {
            Some(issuer) => target.issued_by(issuer),
            None => target,
        })
    }
}

/// An id may begin with a hyphen, as one in 64 of those in base64url does. An option in its place
/// is none: the id was forgotten.
fn parse_id(text: &str) -> Result<String, String> {
    fn is_option(command: &clap::Command, text: &str) -> bool {
        let name = text.split('=').next().unwrap_or(text);
        let is_it = |arg: &clap::Arg| {
            arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long))
                || arg.get_short().is_some_and(|short| text == format!("-{short}"))
        };
        command.get_arguments().any(is_it)
            || command.get_subcommands().any(|command| is_option(command, text))
    }
    if text.starts_with('-') {
        let mut all = Cli::command();
        all.build();
        if is_option(&all, text) {
            return Err("that is an option, and the id is missing".into());
        }
    }
    Ok(text.into())
}

fn parse_claim(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write the name of the claim, an equals sign and the value".into()),
    }
}

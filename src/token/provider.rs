//! Profiles for the tokens of well-known providers: what `iss` looks like, which claims identify
//! token and user, and by what a token can be revoked.
//!
//! | provider | preset | one token | one session | all of a user | more |
//! | --- | --- | --- | --- | --- | --- |
//! | [Keycloak](https://www.keycloak.org/docs/latest/server_admin/) | [`keycloak`](Provider::keycloak) | `jti` | `sid`, "so far" | `sub` | client `azp` |
//! | [Microsoft Entra, v2.0](https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference) | [`entra_v2`](Provider::entra_v2) | `uti` | `sid`, where it is configured | `sub`, `oid` | client `azp` |
//! | [Microsoft Entra, v1.0](https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference) | [`entra_v1`](Provider::entra_v1) | `uti` | `sid`, where it is configured | `sub`, `oid` | client `appid` |
//! | [Auth0](https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles) | [`auth0`](Provider::auth0) | `jti`, or the token itself | – | `sub` | client `azp`, `client_id` |
//! | [Okta, custom server](https://developer.okta.com/docs/concepts/auth-servers/) | [`okta`](Provider::okta) | `jti` | – | `sub`, `uid` | client `cid` |
//! | [Okta, org server](https://support.okta.com/help/s/article/the-typ-field-is-missing-from-the-access-token-header) | [`okta_org`](Provider::okta_org) | `jti` | – | `sub`, `uid` | client `cid` |
//! | [Amazon Cognito](https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html) | [`cognito`](Provider::cognito) | `jti` | family `origin_jti` | `sub` | device `device_key`, client `client_id` |
//! | [Google (ID tokens)](https://developers.google.com/identity/openid-connect/reference) | [`google`](Provider::google) | `jti`, or the token itself | – | `sub` | client `azp` |
//! | [Firebase](https://firebase.google.com/docs/auth/admin/verify-id-tokens) | [`firebase`](Provider::firebase) | the token itself | – | `sub` | – |
//! | [Supabase](https://supabase.com/docs/guides/auth/jwt-fields) | [`supabase`](Provider::supabase) | the token itself | `session_id` | `sub` | client `client_id`, if it is there |
//! | [Zitadel](https://zitadel.com/docs/apis/openidoauth/claims) | [`zitadel`](Provider::zitadel) | `jti` | – | `sub` | client `client_id`, `azp` |
//! | [Authentik](https://docs.goauthentik.io/add-secure-apps/providers/oauth2/) | [`authentik`](Provider::authentik) | `jti`, or the token itself | `sid`, if it is there | `sub` | client `azp` |
//! | [GitHub Actions](https://docs.github.com/en/actions/reference/security/oidc) | [`github_actions`](Provider::github_actions) | `jti` | `run_id` | `sub` | claim `repository` |
//! | [GitLab CI](https://docs.gitlab.com/ci/secrets/id_token_authentication/) | [`gitlab_ci`](Provider::gitlab_ci) | `jti` | `pipeline_id` | `sub` | claim `project_path` |
//! | [Kubernetes](https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/) | [`kubernetes`](Provider::kubernetes) | `jti`, or the token itself | pod, `/kubernetes.io/pod/uid` | `sub`, `/kubernetes.io/serviceaccount/uid` | claim `/kubernetes.io/namespace` |
//! | [SPIFFE](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md) | [`spiffe`](Provider::spiffe) | `jti`, or the token itself | – | `sub` | – |
//! | [Django SimpleJWT](https://django-rest-framework-simplejwt.readthedocs.io/en/latest/settings.html) | [`simple_jwt`](Provider::simple_jwt) | `jti` | – | `user_id` | – |
//! | [Flask-JWT-Extended](https://flask-jwt-extended.readthedocs.io/en/stable/options.html) | [`flask_jwt_extended`](Provider::flask_jwt_extended) | `jti` | – | `sub` | – |
//!
//! "The token itself" is revoked by
//! [`Revoker::revoke_raw_token`](crate::Revoker::revoke_raw_token), which needs the token. With all
//! providers, a whole issuer and a signing key (`kid`) can be revoked too. The presets follow what
//! the providers document; if yours is configured in another way, use
//! [`with_profile`](Provider::with_profile).

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "jwks")]
use super::jwks::{Jwks, JwksError};
use super::jwt::{JwtVerifier, VerificationKey};
use super::{MissingId, TokenProfile};
use crate::config::ConfigError;
use crate::revocation::TargetKind;

/// A provider of tokens: the rules for its tokens, and where its keys are. The [table](self) says
/// by what its tokens can be revoked.
///
/// ```no_run
/// use tower_jwt_revocation::token::provider::Provider;
///
/// # #[cfg(feature = "jwks")]
/// # async fn f() -> Result<(), tower_jwt_revocation::token::jwks::JwksError> {
/// let keycloak = Provider::keycloak("https://id.example/realms/shop", "orders");
/// let verifier = keycloak.connect().await?;
/// # Ok(()) }
/// ```
///
/// With keys that you have, or fetch by other settings:
///
/// ```
/// use tower_jwt_revocation::token::provider::Provider;
/// use tower_jwt_revocation::{Algorithm, VerificationKey};
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// # let secret_key = [42; 32];
/// let key = VerificationKey::from_secret(Algorithm::HS256, &secret_key)?;
/// let verifier = Provider::simple_jwt().verifier([key])?;
/// # let _ = verifier; }
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing until a verifier is made of it"]
pub struct Provider {
    profile: TokenProfile,
    #[cfg_attr(
        not(feature = "jwks"),
        expect(dead_code, reason = "keys are fetched by that feature")
    )]
    keys: KeysAt,
    /// Types (`typ`) that its tokens have beside those that are accepted anyway.
    types: &'static [&'static str],
}

/// Where the keys of a provider are.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "jwks"), expect(dead_code, reason = "keys are fetched by that feature"))]
enum KeysAt {
    /// Where the discovery document of this issuer says.
    Issuer(Arc<str>),
    Url(Arc<str>),
    /// With whoever issues the tokens: a shared secret.
    Nowhere,
}

const HOUR: Duration = Duration::from_secs(60 * 60);
/// Entra issues tokens for up to 28 hours to clients that take part in continuous access
/// evaluation.
const LONGEST_OF_ENTRA: Duration = Duration::from_secs(29 * 60 * 60);
/// Room for the 200 groups that Entra may write into a token, 36 characters each.
const MAX_BYTES_OF_ENTRA: usize = 16 * 1024;

impl Provider {
    /// Access tokens of a realm of Keycloak; `realm` is its URL, such as
    /// `https://id.example/realms/shop`. Keycloak writes an audience only if a mapper of the client
    /// (scope) adds it. Keycloak reuses a `sid`, so revoking a session covers the tokens issued so
    /// far.
    pub fn keycloak(realm: &str, audience: &str) -> Self {
        let realm = realm.trim_end_matches('/');
        Self::discovered(
            realm,
            of(realm, audience)
                // By the claim, as the header of all its tokens says `JWT`.
                .require_claim("typ", ["Bearer", "DPoP"])
                .with_recurring_session_ids(),
        )
    }

    /// Access tokens of one tenant of Microsoft Entra in version 2.0; `tenant` is its id,
    /// `audience` the client id of the API. Tokens of up to 16 KiB are accepted, because they can
    /// list groups, and up to 29 h of validity, because of continuous access evaluation.
    pub fn entra_v2(tenant: &str, audience: &str) -> Self {
        let issuer = format!("https://login.microsoftonline.com/{tenant}/v2.0");
        Self::discovered(&issuer, entra(of(&issuer, audience), "2.0", "azp"))
    }

    /// The same in version 1.0, with the issuer `https://sts.windows.net/{tenant}/`; `audience` is
    /// usually the URI of the API, such as `api://orders`.
    pub fn entra_v1(tenant: &str, audience: &str) -> Self {
        let issuer = format!("https://sts.windows.net/{tenant}/");
        let keys = format!("https://login.microsoftonline.com/{tenant}/discovery/keys");
        Self::of(entra(of(&issuer, audience), "1.0", "appid"), at(&keys))
    }

    /// Access tokens of Auth0; `domain` is that of the tenant, such as `shop.eu.auth0.com`,
    /// `audience` the identifier of the API. Tokens by RFC 9068 have a `jti`, those of the older
    /// profile none.
    pub fn auth0(domain: &str, audience: &str) -> Self {
        let issuer = format!("https://{domain}/");
        Self::discovered(&issuer, known_by_itself(of(&issuer, audience)))
    }

    /// Access tokens of a custom authorization server of Okta: `https://{domain}/oauth2/{server}`,
    /// where `server` and its `audience` are often `default` and `api://default`.
    pub fn okta(domain: &str, server: &str, audience: &str) -> Self {
        let issuer = format!("https://{domain}/oauth2/{server}");
        Self::discovered(&issuer, okta(of(&issuer, audience)))
    }

    /// Access tokens of the org authorization server of Okta, `https://{domain}`. Okta issues them
    /// for its own API and does not promise to publish their keys; for an API of yours use
    /// [`okta`](Self::okta). Their type is `application/okta-internal-at+jwt`, which verifiers made
    /// by this preset accept.
    pub fn okta_org(domain: &str) -> Self {
        let issuer = format!("https://{domain}");
        let types = &["okta-internal-at+jwt"];
        Self { types, ..Self::discovered(&issuer, okta(of(&issuer, &issuer))) }
    }

    /// Access tokens of a user pool of Amazon Cognito, issued to this client. They have no
    /// audience, unless the client asks for a resource (RFC 8707): then add that by
    /// [`with_profile`](Self::with_profile).
    pub fn cognito(region: &str, user_pool: &str, client: &str) -> Self {
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let issuer = format!("https://cognito-idp.{region}.{domain}/{user_pool}");
        Self::discovered(
            &issuer,
            TokenProfile::new()
                .with_issuer(&issuer)
                .require_claim("client_id", [client])
                .require_claim("token_use", ["access"])
                .with_claim_target("device_key", TargetKind::Device),
        )
    }

    /// ID tokens of Google, for services that take them as bearer tokens, because its access tokens
    /// are no JWTs. `audience` is the client id, or the URL of the service. The issuer is
    /// `https://accounts.google.com`; old clients may still get tokens of `accounts.google.com`,
    /// which [`with_profile`](Self::with_profile) can add.
    ///
    /// # Security
    /// An ID token says who the user is, not what the client may do.
    pub fn google(audience: &str) -> Self {
        let issuer = "https://accounts.google.com";
        Self::discovered(
            issuer,
            known_by_itself(of(issuer, audience)).allow_other_kinds_by("at_hash"),
        )
    }

    /// ID tokens of Firebase Authentication, which are its access tokens; `project` is the id of
    /// the project.
    pub fn firebase(project: &str) -> Self {
        const KEYS: &str = "https://www.googleapis.com/service_accounts/v1/jwk/\
            securetoken@system.gserviceaccount.com";
        let issuer = format!("https://securetoken.google.com/{project}");
        let profile = known_by_itself(of(&issuer, project)).with_required_subject();
        Self::of(profile, at(KEYS))
    }

    /// Access tokens of signed-in users of Supabase, also of those who have signed in to an OAuth
    /// client; `project` is the URL of the project, such as
    /// `https://abcdefgh.supabase.co`. A project with a shared secret publishes no keys: make the
    /// [verifier](Self::verifier) with the secret.
    pub fn supabase(project: &str) -> Self {
        let issuer = format!("{}/auth/v1", project.trim_end_matches('/'));
        let keys = at(&format!("{issuer}/.well-known/jwks.json"));
        Self::of(known_by_itself(of(&issuer, "authenticated")), keys)
    }

    /// Access tokens of Zitadel of the type JWT; `issuer` is the URL of the instance, `audience`
    /// the id of the project or of the application.
    pub fn zitadel(issuer: &str, audience: &str) -> Self {
        let issuer = issuer.trim_end_matches('/');
        Self::discovered(issuer, of(issuer, audience))
    }

    /// Access tokens of a provider of Authentik; `issuer` is the URL of the application, such as
    /// `https://id.example/application/o/shop/`, `audience` the client id. ID tokens have that
    /// audience as well; the claim `uid` tells them apart. Where the issuer is the same for all
    /// applications, fetch the keys from `Jwks::at`; a provider without a signing key signs with
    /// the client secret.
    pub fn authentik(issuer: &str, audience: &str) -> Self {
        let profile = known_by_itself(of(issuer, audience))
            .require_claim_presence("uid")
            // In the hybrid flow its access tokens have all that the ID token has.
            .allow_other_kinds_by("c_hash");
        Self::discovered(issuer, profile)
    }

    /// Tokens of jobs of GitHub Actions in repositories of `owner`. Everybody can get tokens of
    /// this issuer with any audience, so the owner is part of the preset. A name can pass to
    /// somebody else, an id cannot: to check it, add `require_claim("repository_owner_id", ["65"])`
    /// by [`with_profile`](Self::with_profile).
    pub fn github_actions(owner: &str, audience: &str) -> Self {
        let issuer = "https://token.actions.githubusercontent.com";
        Self::discovered(
            issuer,
            of(issuer, audience)
                .require_claim("repository_owner", [owner])
                .with_claim_target("run_id", TargetKind::Session)
                .with_claim_target("repository", TargetKind::Claim),
        )
    }

    /// ID tokens of jobs of GitLab CI in projects directly in the group `namespace`; `instance` is
    /// `https://gitlab.com` or yours, `audience` what the job asks for (`id_tokens: … aud:`).
    /// Everybody can get tokens of `gitlab.com`, so the namespace is part of the preset.
    pub fn gitlab_ci(instance: &str, namespace: &str, audience: &str) -> Self {
        let issuer = instance.trim_end_matches('/');
        Self::discovered(
            issuer,
            of(issuer, audience)
                .require_claim("namespace_path", [namespace])
                .with_claim_target("pipeline_id", TargetKind::Session)
                .with_claim_target("project_path", TargetKind::Claim),
        )
    }

    /// Tokens of service accounts of Kubernetes that are bound to a pod (projected volumes,
    /// `TokenRequest`); `issuer` is the `--service-account-issuer` of the cluster, `audience` what
    /// the volume asks for. A pod counts as a session: `Target::session(uid)` revokes its tokens.
    /// Tokens in Secrets never expire and are refused. So are those for the API server itself,
    /// which may be valid for a year.
    pub fn kubernetes(issuer: &str, audience: &str) -> Self {
        let profile = known_by_itself(of(issuer, audience))
            .require_claim_presence("/kubernetes.io/namespace")
            .with_claim_target("/kubernetes.io/pod/uid", TargetKind::Session)
            .with_claim_target("/kubernetes.io/serviceaccount/uid", TargetKind::User)
            .with_claim_target("/kubernetes.io/namespace", TargetKind::Claim);
        Self::discovered(issuer, profile)
    }

    /// JWT-SVIDs of SPIFFE; `issuer` is the `jwt_issuer` of the SPIRE server, whose OIDC Discovery
    /// Provider publishes the keys. A token without `iss` is refused, because it could be of any
    /// trust domain. Their type is `JWT` or `JOSE`, if they have one.
    pub fn spiffe(issuer: &str, audience: &str) -> Self {
        let profile = known_by_itself(of(issuer, audience)).with_required_subject();
        Self { types: &["JOSE"], ..Self::discovered(issuer, profile) }
    }

    /// Access tokens of Django REST framework SimpleJWT, signed by a shared secret. Its settings
    /// `ISSUER` and `AUDIENCE` have no default: if they are set, add them by
    /// [`with_profile`](Self::with_profile).
    pub fn simple_jwt() -> Self {
        let profile = TokenProfile::new()
            .require_claim("token_type", ["access"])
            .with_claim_target("user_id", TargetKind::User);
        Self::of(profile, KeysAt::Nowhere)
    }

    /// Access tokens of Flask-JWT-Extended, signed by a shared secret. Its settings
    /// `JWT_ENCODE_ISSUER` and `JWT_ENCODE_AUDIENCE` have no default: if they are set, add them by
    /// [`with_profile`](Self::with_profile).
    pub fn flask_jwt_extended() -> Self {
        let profile = TokenProfile::new().require_claim("type", ["access"]);
        Self::of(profile, KeysAt::Nowhere)
    }

    /// Changes the rules, for example adds an audience.
    ///
    /// ```
    /// use tower_jwt_revocation::token::provider::Provider;
    ///
    /// let provider = Provider::github_actions("acme", "https://deploy.example");
    /// let provider = provider.with_profile(|profile| {
    ///     profile.require_claim("repository", ["acme/shop", "acme/orders"])
    /// });
    /// # let _ = provider;
    /// ```
    pub fn with_profile(mut self, change: impl FnOnce(TokenProfile) -> TokenProfile) -> Self {
        self.profile = change(self.profile);
        self
    }

    /// The rules for its tokens. A process that revokes and does not check needs nothing else.
    pub fn profile(&self) -> &TokenProfile {
        &self.profile
    }

    /// A verifier of its tokens with keys that do not change.
    ///
    /// # Errors
    /// As [`JwtVerifier::new`].
    pub fn verifier(
        self,
        keys: impl IntoIterator<Item = VerificationKey>,
    ) -> Result<JwtVerifier, ConfigError> {
        Ok(JwtVerifier::new(keys, self.profile)?.with_further_types(self.types))
    }

    /// Where it publishes its keys, to fetch them with other settings than the default. Make the
    /// verifier by [`JwtVerifier::with_remote_keys`] then, and for [`okta_org`](Self::okta_org) and
    /// [`spiffe`](Self::spiffe) set the types of their tokens.
    ///
    /// # Errors
    /// [`ConfigError`] if the issuer is no URL, or if the provider has a shared secret and
    /// publishes no keys.
    #[cfg(feature = "jwks")]
    pub fn jwks(&self) -> Result<Jwks, ConfigError> {
        match &self.keys {
            KeysAt::Issuer(issuer) => Jwks::of_issuer(issuer),
            KeysAt::Url(url) => Jwks::at(url),
            KeysAt::Nowhere => Err(ConfigError::new(
                "keys",
                "are published nowhere, as the secret is shared; see Provider::verifier",
            )),
        }
    }

    /// Fetches its keys, keeps them up to date on the current Tokio runtime, and makes a verifier
    /// of its tokens.
    ///
    /// # Errors
    /// [`JwksError`] if a setting cannot work, or if the keys could not be fetched.
    #[cfg(feature = "jwks")]
    pub async fn connect(self) -> Result<JwtVerifier, JwksError> {
        self.profile.validate()?;
        let keys = self.jwks()?.fetch().await?;
        Ok(JwtVerifier::with_remote_keys(keys, self.profile)?.with_further_types(self.types))
    }

    fn discovered(issuer: &str, profile: TokenProfile) -> Self {
        Self::of(profile, KeysAt::Issuer(issuer.into()))
    }

    fn of(profile: TokenProfile, keys: KeysAt) -> Self {
        Self { profile, keys, types: &[] }
    }
}

fn at(url: &str) -> KeysAt {
    KeysAt::Url(url.into())
}

fn of(issuer: &str, audience: &str) -> TokenProfile {
    TokenProfile::new().with_issuer(issuer).with_audience(audience)
}

/// Where tokens may have no id.
fn known_by_itself(profile: TokenProfile) -> TokenProfile {
    profile.with_missing_id(MissingId::SigningInput)
}

/// Its ID tokens have the same issuer, and the same audience if the client is the API, but name no
/// client.
fn entra(profile: TokenProfile, version: &str, client: &str) -> TokenProfile {
    profile
        .with_id_claim("uti")
        .with_claim_target("oid", TargetKind::User)
        .require_claim("ver", [version])
        .require_claim_presence(client)
        .with_max_lifetime(LONGEST_OF_ENTRA)
        .with_max_token_bytes(MAX_BYTES_OF_ENTRA)
}

/// Its ID tokens name no client.
fn okta(profile: TokenProfile) -> TokenProfile {
    profile
        .require_claim_presence("cid")
        .with_claim_target("uid", TargetKind::User)
        .with_max_lifetime(24 * HOUR)
}

// Without a crypto provider there are no keys, and so no verifiers.
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tests;

use std::fs;

use serde_json::json;

use super::super::options::DEFAULT_START_LIMIT;
use super::*;
use crate::config::docs::{self, SetBy};
use crate::store::redis::Health;
use crate::store::redis::options::{
    DEFAULT_CHECK_TIMEOUT, DEFAULT_LOG_LENGTH, DEFAULT_MAX_IN_FLIGHT, DEFAULT_MAX_TOKEN_LIFETIME,
    DEFAULT_PREFIX,
};
use crate::store::redis::url::parse_url;
use crate::support;

const URL: (&str, &str) = ("REDIS_URL", "redis://127.0.0.1:6379/3");

fn from(vars: &[(&str, &str)]) -> Result<RedisConfig, ConfigError> {
    RedisConfig::from_vars(&vars.iter().copied().collect())
}

fn builder(vars: &[(&str, &str)]) -> Result<RedisStoreBuilder, ConfigError> {
    from(vars)?.builder()
}

#[track_caller]
fn assert_names(vars: &[(&str, &str)], setting: &str, remedy: &str) {
    let error = builder(vars).unwrap_err();
    assert_eq!(error.setting(), setting, "{error}");
    assert!(error.to_string().contains(remedy), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_setting_is_the_same_as_its_setter() {
    let by_vars = builder(&[
        URL,
        ("JWT_REDIS_PREFIX", "shop"),
        ("JWT_REDIS_SHARDS", "4"),
        ("JWT_REDIS_CHECK_TIMEOUT_MS", "20"),
        ("JWT_REDIS_WRITE_TIMEOUT_MS", "700"),
        ("JWT_REDIS_MAX_IN_FLIGHT", "99"),
        ("JWT_REDIS_MAX_TOKEN_LIFETIME_SECS", "3600"),
        ("JWT_REDIS_LOG_LENGTH", "1000"),
        ("JWT_REDIS_WAIT_REPLICAS", "2"),
        ("JWT_REDIS_WAIT_REPLICAS_MS", "300"),
        ("JWT_REDIS_START", "wait"),
        ("JWT_REDIS_START_LIMIT_SECS", "3"),
    ]);
    let fields: RedisConfig = serde_json::from_str(
        r#"{"url": "redis://127.0.0.1:6379/3", "prefix": "shop", "shards": 4,
            "check_timeout_ms": 20, "write_timeout_ms": 700, "max_in_flight": 99,
            "max_token_lifetime_secs": 3600, "log_length": 1000,
            "wait_replicas": 2, "wait_replicas_ms": 300, "start": "wait", "start_limit_secs": 3}"#,
    )
    .unwrap();
    let by_code = RedisStore::builder()
        .with_url(URL.1)
        .with_prefix("shop")
        .with_shards(4)
        .with_check_timeout(Duration::from_millis(20))
        .with_write_timeout(Duration::from_millis(700))
        .with_max_in_flight(99)
        .with_max_token_lifetime(Duration::from_secs(3600))
        .with_log_length(1000)
        .with_wait_replicas(NonZeroU32::new(2).unwrap(), Duration::from_millis(300))
        .with_start(Start::WaitUpTo(Duration::from_secs(3)));
    let expected = format!("{by_code:?}");
    assert_eq!(format!("{:?}", by_vars.unwrap()), expected);
    assert_eq!(format!("{:?}", fields.builder().unwrap()), expected);
    let default = format!("{:?}", RedisStore::builder().with_url(URL.1));
    assert_eq!(format!("{:?}", builder(&[URL]).unwrap()), default);
    assert!(
        format!("{:?}", builder(&[URL, ("JWT_REDIS_START", "at-once")]).unwrap())
            .contains("AtOnce")
    );
    assert!(
        format!("{:?}", builder(&[URL, ("JWT_REDIS_START", "anyway")]).unwrap()).contains("Anyway")
    );
}

#[test]
fn what_is_missing_or_wrong_is_named_with_a_remedy() {
    let file = ("REDIS_URL_FILE", "/nowhere/url");
    assert_names(&[], "REDIS_URL", "such as redis://127.0.0.1");
    assert_names(&[("REDIS_URI", "redis://hunter2@x")], "REDIS_URL", "`REDIS_URI`");
    assert_names(&[URL, file], "REDIS_URL", "leave one of them out");
    assert_names(&[file], "REDIS_URL_FILE", "/nowhere/url, which cannot be read");
    assert_names(&[URL, ("JWT_REDIS_SHARDS", "65536")], "JWT_REDIS_SHARDS", "too large");
    assert_names(
        &[URL, ("JWT_REDIS_CHECK_TIMEOUT", "5")],
        "JWT_REDIS_CHECK_TIMEOUT_MS",
        "is not set, but",
    );
    assert_names(
        &[URL, ("JWT_REDIS_WAIT_REPLICAS", "0")],
        "JWT_REDIS_WAIT_REPLICAS",
        "leave it out",
    );
    assert_names(
        &[URL, ("JWT_REDIS_WAIT_REPLICAS_MS", "9")],
        "JWT_REDIS_WAIT_REPLICAS_MS",
        "set it too",
    );
    assert_names(&[URL, ("JWT_REDIS_START", "later")], "JWT_REDIS_START", "at-once");
    let start = [URL, ("JWT_REDIS_START", "anyway"), ("JWT_REDIS_START_LIMIT_SECS", "1")];
    assert_names(&start, "JWT_REDIS_START_LIMIT_SECS", "leave it out");
    assert_names(&[URL, ("REDIS_USERNAME", "app")], "REDIS_USERNAME", "set that too");
    let twice = [("REDIS_URL", "redis://:hunter2@x"), ("REDIS_PASSWORD", "hunter2")];
    assert_names(&twice, "REDIS_PASSWORD", "leave one of them out");
    assert_names(
        &[("REDIS_URL", "127.0.0.1"), ("REDIS_PASSWORD", "hunter2")],
        "REDIS_URL",
        "no scheme",
    );
    let config: RedisConfig =
        serde_json::from_str(r#"{"wait_replicas_ms": 1, "url": "redis://x"}"#).unwrap();
    let error = config.builder().unwrap_err();
    assert_eq!(error.setting(), "wait_replicas_ms", "the name of the field");
    let error = serde_json::from_str::<RedisConfig>(r#"{"start": "later"}"#).unwrap_err();
    assert!(error.to_string().contains("expected one of `wait`, `at-once`, `anyway`"), "{error}");
    serde_json::from_str::<RedisConfig>(r#"{"timeout": 1}"#).unwrap_err();
}

/// Kubernetes sets them in every container beside a service that is called `redis`.
#[test]
fn variables_of_a_kubernetes_service_are_not_taken_for_ours() {
    let service = [
        ("REDIS_SERVICE_HOST", "10.0.0.11"),
        ("REDIS_SERVICE_PORT", "6379"),
        ("REDIS_PORT", "tcp://10.0.0.11:6379"),
        ("REDIS_PORT_6379_TCP", "tcp://10.0.0.11:6379"),
        ("REDIS_PORT_6379_TCP_PROTO", "tcp"),
        ("REDIS_PORT_6379_TCP_PORT", "6379"),
        ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.11"),
    ];
    let _ = builder(&[&service[..], &[URL]].concat()).unwrap();
    let file = ("REDIS_URL_FILE", "/nowhere/url");
    assert_names(&[&service[..], &[file]].concat(), "REDIS_URL_FILE", "cannot be read");
}

#[tokio::test]
async fn an_error_of_the_builder_names_the_variable() {
    for (variable, value) in [
        ("REDIS_URL", "http://hunter2@x"),
        ("JWT_REDIS_PREFIX", "{}"),
        ("JWT_REDIS_SHARDS", "0"),
        ("JWT_REDIS_CHECK_TIMEOUT_MS", "0"),
        ("JWT_REDIS_WRITE_TIMEOUT_MS", "0"),
        ("JWT_REDIS_MAX_IN_FLIGHT", "0"),
        ("JWT_REDIS_MAX_TOKEN_LIFETIME_SECS", "0"),
        ("JWT_REDIS_LOG_LENGTH", "0"),
    ] {
        let error =
            from(&[URL, (variable, value)]).unwrap().connect().await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{variable}: ")), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let replicas = [URL, ("JWT_REDIS_WAIT_REPLICAS", "1"), ("JWT_REDIS_WAIT_REPLICAS_MS", "1000")];
    let error = from(&replicas).unwrap().connect().await.unwrap_err().to_string();
    assert!(error.starts_with("JWT_REDIS_WAIT_REPLICAS_MS: "), "{error}");
}

#[test]
fn a_password_may_have_any_characters() {
    let password = "p@ss:/?#%41é \"";
    for (url, user) in [
        ("redis://host:7000/5", None),
        ("redis://host:7000/5", Some("a:pp")),
        ("redis-sentinel://host:7000/5?sentinelServiceName=main", Some("app")),
    ] {
        let config = RedisConfig {
            url: Some(SecretText::from(url.to_owned())),
            username: user.map(Into::into),
            password: Some(SecretText::from(password.to_owned())),
            ..RedisConfig::default()
        };
        let read = parse_url(&config.whole_url().unwrap()).unwrap();
        assert_eq!(read.password.as_deref(), Some(password), "{url}");
        assert_eq!(read.username.as_deref().unwrap_or_default(), user.unwrap_or_default(), "{url}");
        assert_eq!(read.database, Some(5));
        assert!(!format!("{config:?}").contains("p@ss"));
    }
}

#[tokio::test]
async fn secrets_come_from_files() {
    support::redis_or_skip!();
    let redis = support::RedisServer::builder().arg("--requirepass", "hunter2?#").start();
    let dir = std::env::temp_dir().join(format!("jwt-redis-settings-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (url, password) = (dir.join("url"), dir.join("password"));
    let without = redis.url();
    let host = without.rsplit_once('@').map_or(&*without, |(_, host)| host);
    let host = host.strip_prefix("redis://").unwrap_or(host);
    fs::write(&url, format!("redis://{host}\n")).unwrap();
    fs::write(&password, "hunter2?#\n").unwrap();
    let vars = [
        ("REDIS_URL_FILE", url.to_str().unwrap()),
        ("REDIS_PASSWORD_FILE", password.to_str().unwrap()),
        ("JWT_REDIS_START", "at-once"),
    ];
    let store = from(&vars).unwrap().connect().await;
    let store = store.unwrap();
    fs::write(&password, "wrong\n").unwrap();
    let refused = from(&vars).unwrap().connect().await;
    assert!(!format!("{:?}", refused.unwrap_err()).contains("wrong"));

    // It is read again for each connection.
    redis.cli(&["CONFIG", "SET", "requirepass", "rotated"]);
    fs::write(&password, "rotated\n").unwrap();
    let mut health = store.watch_health();
    health.mark_unchanged();
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let is_back = async {
        health.changed().await.unwrap();
        health.wait_for(Health::is_up).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(30), is_back).await.unwrap();
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn addresses_are_mapped_by_a_list_in_a_variable() {
    let map = ("JWT_REDIS_ADDRESS_MAP", "10.0.0.1:7000=nat.test:17000, 10.0.0.2=127.0.0.1");
    let by_code = RedisStore::builder()
        .with_url(URL.1)
        .with_address_map([("10.0.0.1:7000", "nat.test:17000"), ("10.0.0.2", "127.0.0.1")]);
    assert_eq!(format!("{:?}", builder(&[URL, map]).unwrap()), format!("{by_code:?}"));
}

#[test]
fn each_setting_is_documented() {
    docs::assert_documented::<RedisConfig>(
        "RedisConfig",
        include_str!("../config.rs"),
        &[
            ("prefix", &DEFAULT_PREFIX),
            ("check_timeout_ms", &DEFAULT_CHECK_TIMEOUT.as_millis()),
            ("write_timeout_ms", &DEFAULT_WRITE_TIMEOUT.as_millis()),
            ("max_in_flight", &DEFAULT_MAX_IN_FLIGHT),
            ("max_token_lifetime_secs", &DEFAULT_MAX_TOKEN_LIFETIME.as_secs()),
            ("log_length", &DEFAULT_LOG_LENGTH),
            ("start_limit_secs", &DEFAULT_START_LIMIT.as_secs()),
        ],
    );
}

#[test]
fn each_setting_has_the_same_effect_from_a_variable_and_from_a_file() {
    let url = json!({"url": "redis://x"});
    docs::assert_effective::<RedisConfig>(
        &[
            ("enabled", json!(false), url.clone()),
            ("url", json!("redis://x"), json!({})),
            ("url_file", json!("/nowhere/url"), json!({})),
            ("host", json!("redis.internal"), json!({})),
            ("port", json!(6380), json!({"host": "redis.internal"})),
            ("tls", json!(true), json!({"host": "redis.internal"})),
            ("database", json!(3), json!({"host": "redis.internal"})),
            ("username", json!("app"), json!({"url": "redis://x", "password": "hunter2"})),
            ("password", json!("hunter2"), url.clone()),
            ("password_file", json!("/nowhere/password"), url.clone()),
            ("ca_file", json!("/nowhere/ca.pem"), url.clone()),
            ("client_cert_file", json!("/nowhere/client.pem"), url.clone()),
            ("client_key_file", json!("/nowhere/client.key"), url.clone()),
            ("sentinel_tls", json!(false), url.clone()),
            ("address_map", json!({"10.0.0.1:7000": "nat.test:17000"}), url.clone()),
            ("prefix", json!("shop"), url.clone()),
            ("shards", json!(4), url.clone()),
            ("check_timeout_ms", json!(20), url.clone()),
            ("write_timeout_ms", json!(700), url.clone()),
            ("connect_timeout_ms", json!(250), url.clone()),
            ("max_in_flight", json!(99), url.clone()),
            ("max_token_lifetime_secs", json!(3600), url.clone()),
            ("log_length", json!(1000), url.clone()),
            ("issuer_clock_lead_ms", json!(250), url.clone()),
            ("wait_replicas", json!(2), url.clone()),
            ("wait_replicas_ms", json!(300), json!({"url": "redis://x", "wait_replicas": 2})),
            ("start", json!("anyway"), url.clone()),
            ("start_limit_secs", json!(3), url.clone()),
            (
                "foreign_lists",
                json!([
                    "plain-jti",
                    "session:{sid}|revoked=ended|live=active|kind=session",
                    "gone|member={claim:fid}|allow-missing-claims|writes",
                ]),
                url,
            ),
        ],
        |config| Ok(format!("{:?} {:?}", config.whole_url()?, config.build()?)),
    );
}

#[test]
fn no_setter_is_forgotten() {
    docs::assert_settable::<RedisConfig>(
        include_str!("../builder.rs"),
        &[
            ("with_url", SetBy::Field("url")),
            ("with_host", SetBy::Field("host")),
            ("with_port", SetBy::Field("port")),
            ("with_tls", SetBy::Field("tls")),
            ("with_database", SetBy::Field("database")),
            ("with_username", SetBy::Field("username")),
            ("with_password", SetBy::Field("password")),
            ("with_password_file", SetBy::Field("password_file")),
            ("with_root_certificates", SetBy::Field("ca_file")),
            ("with_root_certificates_file", SetBy::Field("ca_file")),
            ("with_client_certificate", SetBy::Field("client_cert_file")),
            ("with_client_certificate_files", SetBy::Field("client_cert_file")),
            ("with_connect_timeout", SetBy::Field("connect_timeout_ms")),
            ("with_credential_provider", SetBy::Code("takes a function of the program")),
            ("with_tls_to_sentinels", SetBy::Field("sentinel_tls")),
            ("with_plain_text_to_sentinels", SetBy::Field("sentinel_tls")),
            ("with_sentinel_fred_tls", SetBy::Code("takes a value of fred")),
            ("with_address_map", SetBy::Field("address_map")),
            (
                "with_fred_config",
                SetBy::Code("takes a configuration of fred, which is a value of the program"),
            ),
            ("with_prefix", SetBy::Field("prefix")),
            ("with_shards", SetBy::Field("shards")),
            ("with_check_timeout", SetBy::Field("check_timeout_ms")),
            ("with_write_timeout", SetBy::Field("write_timeout_ms")),
            ("with_max_in_flight", SetBy::Field("max_in_flight")),
            ("with_max_token_lifetime", SetBy::Field("max_token_lifetime_secs")),
            ("with_log_length", SetBy::Field("log_length")),
            ("with_issuer_clock_lead", SetBy::Field("issuer_clock_lead_ms")),
            ("with_wait_replicas", SetBy::Field("wait_replicas")),
            ("with_start", SetBy::Field("start")),
            ("with_foreign_list", SetBy::Field("foreign_lists")),
        ],
    );
}

#[test]
fn redis_can_be_switched_off() {
    assert!(from(&[URL]).unwrap().is_enabled());
    assert!(from(&[URL, ("JWT_REDIS_ENABLED", "true")]).unwrap().is_enabled());
    let off = [("JWT_REDIS_ENABLED", "false")];
    assert!(!from(&off).unwrap().is_enabled());
    assert_names(&off, "JWT_REDIS_ENABLED", "RedisConfig::is_enabled");
}

#[test]
fn a_foreign_list_that_cannot_work_names_its_variable_and_the_remedy() {
    for (list, remedy) in [
        ("blacklist", "no placeholder"),
        ("plain-jti|write", "`writes`"),
        ("s:{sid}|kind=thing", "session, device"),
        ("s:{sid}|live=on", "ForeignList::with_revoked_values"),
    ] {
        let error = from(&[URL, ("JWT_REDIS_FOREIGN_LISTS", list)]).unwrap_err();
        assert_eq!(error.setting(), "JWT_REDIS_FOREIGN_LISTS", "{error}");
        assert!(error.to_string().contains(remedy), "{list}: {error}");
    }
}

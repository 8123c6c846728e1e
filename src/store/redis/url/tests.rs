use super::*;

fn hosts(config: &Config) -> Vec<String> {
    config.server.hosts().iter().map(|server| format!("{}:{}", server.host, server.port)).collect()
}

fn problem(url: &str) -> String {
    let error = parse_url(url).err().unwrap_or_else(|| panic!("{url} is taken"));
    assert_eq!(error.setting(), "url", "{url}");
    error.to_string()
}

#[test]
fn a_password_may_hold_what_separates_parts_of_a_url() {
    for (url, user, password) in [
        ("redis://:pa/ss@h:1/2", None, "pa/ss"),
        ("redis://u:a/b+c=@h:1/2", Some("u"), "a/b+c="),
        ("redis://u:a@b:c@h:1/2", Some("u"), "a@b:c"),
        ("redis://u:a#b@h:1/2", Some("u"), "a#b"),
        ("redis://u:%3F%40%2F@h:1/2", Some("u"), "?@/"),
        ("redis://h:1/2?username=u&password=a%40b", Some("u"), "a@b"),
    ] {
        let config = parse_url(url).unwrap();
        assert_eq!(config.username.as_deref(), user, "{url}");
        assert_eq!(config.password.as_deref(), Some(password), "{url}");
        assert_eq!((hosts(&config), config.database), (vec!["h:1".into()], Some(2)), "{url}");
    }
}

#[test]
fn the_forms_of_other_clients_are_understood() {
    let sentinels = ["s1:26379", "s2:26380"];
    for (url, service, database) in [
        ("redis-sentinel://s1?sentinelServiceName=mm&node=s2:26380", "mm", None),
        // Lettuce and Spring.
        ("redis-sentinel://s1:26379,s2:26380/3#mm", "mm", Some(3)),
        ("redis-sentinel://s1,s2:26380/0?sentinelMasterId=mm", "mm", Some(0)),
        // Without a scheme of its own.
        ("redis://s1:26379,s2:26380/0?sentinel=mm", "mm", Some(0)),
        ("redis://s1:26379?master_name=mm&addr=s2:26380&db=1", "mm", Some(1)),
        // Python and PHP.
        ("redis+sentinel://s1,s2:26380/mm", "mm", None),
        ("redis+sentinel://s1,s2:26380/mm/4", "mm", Some(4)),
    ] {
        let config = parse_url(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let ServerConfig::Sentinel { service_name, .. } = &config.server else { panic!("{url}") };
        assert_eq!(service_name, service, "{url}");
        assert_eq!(hosts(&config), sentinels, "{url}");
        assert_eq!(config.database, database, "{url}");
    }
    for url in ["redis-cluster://n1:7000?node=n2:6379", "valkey+cluster://n1:7000,n2/0"] {
        let config = parse_url(url).unwrap();
        assert!(matches!(config.server, ServerConfig::Clustered { .. }), "{url}");
        assert_eq!(hosts(&config), ["n1:7000", "n2:6379"], "{url}");
    }
    // redis-py and ioredis.
    for (url, database) in
        [("redis://h", None), ("redis://h?db=2", Some(2)), ("redis://h/2?database=2", Some(2))]
    {
        let config = parse_url(url).unwrap();
        assert_eq!((hosts(&config), config.database), (vec!["h:6379".into()], database), "{url}");
    }
    assert_eq!(hosts(&parse_url("redis://[2001:db8::1]:7/0").unwrap()), ["2001:db8::1:7"]);
}

#[cfg(feature = "unix-sockets")]
#[test]
fn a_socket_may_have_a_password_and_a_database() {
    for (url, user, password, database) in [
        ("redis+unix:///run/a@b.sock", None, None, None),
        ("redis+unix://:pa/ss@/run/a@b.sock?db=3", None, Some("pa/ss"), Some(3)),
        ("redis+unix://u:p@localhost/run/a%40b.sock", Some("u"), Some("p"), None),
        ("redis-socket://u:p%40@/run/a%40b.sock?database=3", Some("u"), Some("p@"), Some(3)),
        ("unix:///run/a@b.sock?db=3&password=p", None, Some("p"), Some(3)),
    ] {
        let config = parse_url(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let ServerConfig::Unix { path } = &config.server else { panic!("{url}") };
        assert_eq!(path.to_str(), Some("/run/a@b.sock"), "{url}");
        assert_eq!(config.username.as_deref(), user, "{url}");
        assert_eq!(config.password.as_deref(), password, "{url}");
        assert_eq!(config.database, database, "{url}");
    }
    assert!(problem("redis+unix://run/redis.sock").contains("redis+unix:///path"));
    assert!(problem("unix://").contains("redis+unix:///path"));
}

#[test]
fn what_could_mean_two_things_is_refused_with_the_right_form() {
    for (url, words) in [
        ("redis://n1:6379,n2:6379/0", "redis-cluster://host1:6379,host2:6379"),
        ("redis://n1:6379,n2:6379/0", "redis-sentinel://host1:26379,host2:26379"),
        // A name to some clients, a password to others.
        ("redis://s3cret@h", "redis://:password@host:6379"),
        ("redis-sentinel://:s3cret@s1,s2/0", "sentinelServiceName=name"),
        ("redis://s3cret:s3cret@h/1?db=2", "two databases"),
        ("redis://:s3cret@h?ssl_cert_reqs=none", "ssl_cert_reqs"),
        ("redis://:s3cret@h?protocol=3", "protocol"),
        ("name.example.com:6380,password=s3cret=,ssl=True", "rediss://user:password@host:6380/0"),
        ("redis://:s3cret@h/1/2", "number of a database"),
        ("redis://:s3cret@h/300", "0 to 255"),
        ("redis://:s3cret@::1:6379", "brackets"),
        ("redis://:s3cret@h:0", "cannot be used"),
        ("redis://:%ff@h", "UTF-8"),
        ("redis://:s3cret@h#mm", "%23"),
        ("redis+sentinel://s1/mm?sentinel=other", "twice"),
    ] {
        let problem = problem(url);
        assert!(problem.contains(words), "{url}: {problem}");
        assert!(!problem.contains("s3cret"), "{url}: {problem}");
    }
}

#[test]
fn the_parts_may_stand_beside_the_url_or_instead_of_it() {
    let of = |change: fn(&mut ServerSettings)| {
        let mut settings = ServerSettings::default();
        change(&mut settings);
        settings.config(false)
    };
    let config = of(|s| {
        s.host = Some("h".into());
        s.port = Some(7);
        s.username = Some("u".into());
        s.password = Some("p/@:?#%41".into());
        s.database = Some(4);
    });
    let config = config.unwrap();
    assert_eq!((hosts(&config), config.database), (vec!["h:7".into()], Some(4)));
    assert_eq!(
        (config.username.as_deref(), config.password.as_deref()),
        (Some("u"), Some("p/@:?#%41"))
    );
    let config = of(|s| {
        s.url = Some("redis-sentinel://u@s1,s2/mm".into());
        s.password = Some("p".into());
        s.database = Some(4);
    });
    let config = config.unwrap();
    assert_eq!((config.username.as_deref(), config.database), (Some("u"), Some(4)));
    assert_eq!(hosts(&of(|s| s.host = Some("[::1]".into())).unwrap()), ["::1:6379"]);

    for (setting, change) in [
        ("url", (|_| ()) as fn(&mut ServerSettings)),
        ("host", |s| (s.url, s.host) = (Some("redis://h".into()), Some("h".into()))),
        ("host", |s| s.host = Some("h:6379".into())),
        ("host", |s| s.host = Some("redis://h".into())),
        ("port", |s| (s.url, s.port) = (Some("redis://h".into()), Some(1))),
        ("tls", |s| (s.url, s.tls) = (Some("redis://h".into()), true)),
        ("username", |s| (s.host, s.username) = (Some("h".into()), Some("u".into()))),
        ("username", |s| {
            (s.url, s.username) = (Some("redis://u@h".into()), Some("u".into()));
            s.password = Some("p".into());
        }),
        ("password", |s| (s.url, s.password) = (Some("redis://:p@h".into()), Some("p".into()))),
        ("database", |s| (s.url, s.database) = (Some("redis://h/1".into()), Some(2))),
        ("database", |s| (s.url, s.database) = (Some("redis-cluster://h".into()), Some(2))),
    ] {
        assert_eq!(of(change).err().unwrap().setting(), setting);
    }
}

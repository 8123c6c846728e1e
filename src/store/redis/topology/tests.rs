use super::super::url::parse_url;
use super::replies::owner_of;
use super::*;

fn asked() -> Server {
    Server::new("asked", 1)
}

const NODES: &str = "\
07c3 127.0.0.1:30004@31004,node-4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,node-2 master - 0 1426238316232 2 connected 5461-10922 [5470->-e7d1]
2922 :30003@31003 master - 0 1426238318243 3 connected 10923-16383 7
6ec2 [2001:db8::1]:30005@31005 slave 67ed 0 1426238316232 5 disconnected
e7d1 127.0.0.1:30001@31001,node-1,shard-id=1 myself,master - 0 0 9 connected 0-6 8-5460
dead :0@0 master,noaddr - 0 0 1 disconnected
";

#[test]
fn the_owner_of_a_slot_is_read_from_the_nodes() {
    let nodes = parse_nodes(NODES, &asked(), &Endpoints::default());
    let owner =
        |slot| owner_of(&nodes, slot).map(|node| (node.epoch, node.server.clone())).unwrap();
    assert_eq!(owner(0), (9, Server::new("127.0.0.1", 30001)));
    assert_eq!(owner(5460), (9, Server::new("127.0.0.1", 30001)));
    assert_eq!(owner(5470), (2, Server::new("127.0.0.1", 30002)));
    // A node that does not know its own address is where it was asked.
    assert_eq!(owner(7), (3, Server::new("asked", 30003)));
    assert_eq!(owner(16383), (3, Server::new("asked", 30003)));
}

#[test]
fn a_node_is_dialled_at_its_preferred_endpoint() {
    use crate::store::redis::address_map::tls_name_of;

    let text = |text: &str| Value::from(text);
    let node = |endpoint: Value, id: &str| Value::Array(vec![endpoint, 1.into(), text(id)]);
    let range =
        |nodes: Vec<Value>| Value::Array([0.into(), 1.into()].into_iter().chain(nodes).collect());
    let reply = Value::Array(vec![
        range(vec![node(text("name-1"), "e7d1"), node(text("?"), "07c3")]),
        range(vec![node(Value::Null, "67ed"), node(text(""), "2922")]),
    ]);
    let nodes = parse_nodes(NODES, &asked(), &parse_endpoints(&reply));
    let dialled: Vec<_> = nodes.iter().map(|node| node.server.to_string()).collect();
    assert_eq!(
        dialled,
        [
            "127.0.0.1:30004",
            "asked:30002",
            "asked:30003",
            "2001:db8::1:30005",
            "name-1:30001",
            "asked:0"
        ]
    );
    // An address is no name, so the announced name is that of the certificate.
    if cfg!(any(feature = "rustls", feature = "native-tls")) {
        assert_eq!(tls_name_of(&nodes[0].server), "node-4");
        assert_eq!(tls_name_of(&nodes[4].server), "name-1");
    }
    assert!(parse_endpoints(&Value::Null).is_empty());
}

#[test]
fn all_nodes_that_can_be_asked_are_remembered() {
    let nodes = parse_nodes(NODES, &asked(), &Endpoints::default());
    let ports: Vec<_> =
        nodes.iter().filter(|node| node.has_address).map(|node| node.server.port).collect();
    assert_eq!(ports, [30004, 30002, 30003, 30005, 30001]);
    let parse = |text| parse_nodes(text, &asked(), &Endpoints::default());
    assert!(owner_of(&parse(""), 0).is_none());
    assert!(parse("junk\n a b c d e f g h").is_empty());
}

#[test]
fn every_topology_is_read_from_its_url() {
    for (url, is_cluster, has_sentinels) in [
        ("redis://127.0.0.1", false, false),
        ("valkey://user:p%40ss@h:1/2", false, false),
        ("redis-cluster://h:1?node=i:2&node=j:3", true, false),
        (
            "valkey-sentinel://h:1?sentinelServiceName=x&node=i:2&sentinelUsername=u\
             &sentinelPassword=p",
            false,
            true,
        ),
    ] {
        let topology = Topology::new(parse_url(url).unwrap(), ConnectSettings::default()).unwrap();
        assert_eq!(
            (topology.is_cluster(), topology.has_sentinels()),
            (is_cluster, has_sentinels),
            "{url}"
        );
    }
    let config = parse_url("redis://user:p%40ss@h:1/2").unwrap();
    assert_eq!((config.password.as_deref(), config.database), (Some("p@ss"), Some(2)));
}

#[test]
fn a_configuration_without_a_server_is_refused() {
    let config = Config {
        server: ServerConfig::new_clustered(Vec::<(String, u16)>::new()),
        ..Config::default()
    };
    assert_eq!(
        Topology::new(config, ConnectSettings::default()).err().unwrap().setting(),
        "config"
    );
}

#[test]
fn of_a_certificate_is_not_said_that_a_user_was_refused() {
    let sentinel = Server::new("sentinel-1", 26_379);
    let told = |details: &str| {
        let error = fred::error::Error::new(fred::error::ErrorKind::Unknown, details.to_owned());
        let error = super::super::connection::classify(&error);
        assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
        refused_by_sentinel(&error, &sentinel, "main", Some("app")).to_string()
    };
    let text = told("invalid peer certificate: UnknownIssuer");
    assert!(text.starts_with("redis: the sentinel sentinel-1:26379: the certificate"), "{text}");
    let text = told("WRONGPASS invalid username-password pair");
    assert!(text.contains("refused the user \"app\": WRONGPASS"), "{text}");
}

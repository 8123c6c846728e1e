//! A Redis server for a section; it ends with this value, or with this process, however that ends.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::resp::Connection;

/// The shell kills the server once its input ends, which only this process keeps open.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
"$@" >/dev/null 2>&1 &
echo started
read -r _
kill -9 $!
"#;

pub struct Redis {
    watchdog: Child,
    url: String,
}

impl Redis {
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = port.to_string();
        let args = [
            "redis-server",
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh"])
            .args(args)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "redis-server did not start; is it installed?"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { watchdog, url: format!("redis://127.0.0.1:{port}") }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        address_of(&self.url)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.watchdog.stdin = None;
        let _ = self.watchdog.wait();
    }
}

/// Host and port of a URL.
pub fn address_of(url: &str) -> &str {
    url.strip_prefix("redis://").unwrap_or(url)
}

/// What a server has done since it started.
#[derive(Clone, Copy)]
pub struct Stats {
    /// Seconds of a processor.
    pub cpu: f64,
    pub commands: f64,
    /// Bytes that it has sent.
    pub output: f64,
}

pub async fn stats(connection: &mut Connection) -> Stats {
    let info = connection.text(&["INFO"]).await.unwrap();
    let number = |name| number(&info, name);
    Stats {
        cpu: number("used_cpu_user") + number("used_cpu_sys"),
        commands: number("total_commands_processed"),
        output: number("total_net_output_bytes"),
    }
}

/// The memory of its data, in bytes.
pub async fn held(connection: &mut Connection) -> f64 {
    number(&connection.text(&["INFO", "memory"]).await.unwrap(), "used_memory_dataset")
}

fn number(info: &str, name: &str) -> f64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().parse().unwrap()
}

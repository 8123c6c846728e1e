//! A Redis server for a section; it ends with this value, or with this process, however that ends.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.watchdog.stdin = None;
        let _ = self.watchdog.wait();
    }
}

//! A real headless Chromium, driven through its debugging protocol over a pair of pipes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::Dir;

const NAMES: [&str; 6] = [
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// How long a browser on a busy machine may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The browser of this machine: what `BROWSER_FOR_TESTS` names, or one in the path.
pub(crate) fn installed() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BROWSER_FOR_TESTS") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name)));
    found.into_iter().find(|file| file.is_file())
}

/// Leaves the test early, and loudly, on a machine without a browser.
macro_rules! browser_or_skip {
    () => {
        match $crate::browser::installed() {
            Some(browser) => browser,
            None => {
                eprintln!(
                    "skipped: no Chromium is installed (apt-get install chromium-headless-shell)"
                );
                return;
            }
        }
    };
}
pub(crate) use browser_or_skip;

pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    calls: u64,
    _profile: Arc<Dir>,
}

/// A tab, by the session of the protocol that is attached to it.
#[derive(Clone)]
pub(crate) struct Tab(String);

impl Browser {
    pub(crate) fn start(program: &PathBuf) -> Self {
        let profile = Dir::new();
        // The protocol is spoken on the descriptors 3 and 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#, "sh"])
            .arg(program);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]);
        command.args([
            "--disable-background-networking",
            "--remote-debugging-pipe",
            "--window-size=1100,900",
        ]);
        command
            .arg(format!("--user-data-dir={}", profile.path("profile")))
            .env("HOME", profile.path("home"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) =
            (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from, calls: 0, _profile: profile }
    }

    pub(crate) fn open(&mut self, url: &str) -> Tab {
        let target =
            self.call(None, "Target.createTarget", &json!({ "url": url }))["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let session = self.call(None, "Target.attachToTarget", &attach)["sessionId"].clone();
        let tab = Tab(session.as_str().unwrap().to_owned());
        // Before it goes there, it is at an empty page, which is complete.
        self.until(
            &tab,
            &format!("location.href.startsWith('{url}') && document.readyState === 'complete'"),
        );
        tab
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&mut self, tab: &Tab, expression: &str) -> Value {
        let evaluate =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call(Some(tab), "Runtime.evaluate", &evaluate);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    #[track_caller]
    pub(crate) fn until(&mut self, tab: &Tab, condition: &str) {
        let start = Instant::now();
        while self.value(tab, &format!("Boolean({condition})")) != true {
            let is_late = start.elapsed() > PATIENCE;
            assert!(!is_late, "never: {condition}\n{}", self.value(tab, "document.body.innerText"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Clicks with the mouse in the middle of an element, which must be there to be clicked.
    #[track_caller]
    pub(crate) fn click(&mut self, tab: &Tab, selector: &str) {
        let find = format!(
            "(() => {{ const it = document.querySelector(`{selector}`); it.scrollIntoView({{ \
             block: 'center' }});
                const box = it.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                return it.disabled || document.elementFromPoint(x, y) !== it ? null : {{ x, y }}; \
                }})()"
        );
        let place = self.value(tab, &find);
        assert!(place.is_object(), "{selector} cannot be clicked");
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1,
            });
            self.call(Some(tab), "Input.dispatchMouseEvent", &event);
        }
    }

    /// Types into what has the focus.
    pub(crate) fn type_text(&mut self, tab: &Tab, text: &str) {
        self.call(Some(tab), "Input.insertText", &json!({ "text": text }));
    }

    /// Presses a key: `Tab` or `Enter`.
    pub(crate) fn press(&mut self, tab: &Tab, key: &str) {
        let (code, text) = if key == "Enter" { (13, "\r") } else { (9, "") };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
            });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call(Some(tab), "Input.dispatchKeyEvent", &event);
        }
    }

    /// Makes the window as large as that of a phone.
    pub(crate) fn resize(&mut self, tab: &Tab, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
        self.call(Some(tab), "Emulation.setDeviceMetricsOverride", &size);
    }

    /// Keeps a picture of the tab in the directory that `SCREENSHOTS` names, if it does.
    pub(crate) fn picture(&mut self, tab: &Tab, name: &str) {
        let Some(dir) = std::env::var_os("SCREENSHOTS") else { return };
        let answer = self.call(Some(tab), "Page.captureScreenshot", &json!({}));
        let png = STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
        std::fs::write(PathBuf::from(dir).join(format!("{name}.png")), png).unwrap();
    }

    fn call(&mut self, tab: Option<&Tab>, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(Tab(session)) = tab {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser has gone");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            // Everything else is an event.
            if answer["id"] == self.calls {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it takes its helpers along.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The processes under test, as their parent sees them.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::process::{Order, Reply, Setup};
use crate::support::stop_process;

const LIMIT: Duration = Duration::from_secs(30);

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>>;

/// One of them: this binary, once more.
pub struct Process {
    pub index: usize,
    child: Mutex<Child>,
    orders: mpsc::Sender<String>,
    /// None when it has ended.
    waiting: Waiting,
    next: AtomicU64,
    is_asleep: AtomicBool,
    is_leaving: AtomicBool,
}

impl Process {
    /// Starts it. It is ready when [`until_ready`](Self::until_ready) returns.
    fn spawn(index: usize, setup: &Setup) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["process", &serde_json::to_string(setup).unwrap()])
            .envs(setup.variables.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (orders, lines) = mpsc::channel::<String>();
        std::thread::spawn(move || {
            // It reads nothing while it is stopped; it may have been killed.
            for line in lines {
                if stdin.write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let waiting: Waiting = Arc::default();
        *waiting.lock().unwrap() = Some(HashMap::new());
        let answered = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                // Its last line may be cut.
                let Ok((id, reply)) = serde_json::from_str::<(u64, Reply)>(&line) else { break };
                let sender = answered.lock().unwrap().as_mut().and_then(|all| all.remove(&id));
                if let Some(sender) = sender {
                    let _ = sender.send(reply);
                }
            }
            *answered.lock().unwrap() = None;
        });
        Self {
            index,
            child: Mutex::new(child),
            orders,
            waiting,
            next: AtomicU64::new(1),
            is_asleep: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
        }
    }

    /// None if it ends before it answers.
    pub async fn call(&self, order: Order) -> Option<Reply> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let reply = self.expect(id)?;
        let _ = self.orders.send(serde_json::to_string(&(id, order)).unwrap() + "\n");
        reply.await.ok()
    }

    fn expect(&self, id: u64) -> Option<oneshot::Receiver<Reply>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap().as_mut()?.insert(id, sender);
        Some(receiver)
    }

    /// Whether requests are sent to it.
    pub fn serves(&self) -> bool {
        !self.is_asleep.load(Ordering::Relaxed) && !self.is_leaving.load(Ordering::Relaxed)
    }

    pub fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().as_ref().map_or(0, HashMap::len)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child.lock().unwrap())
    }

    /// Stops it in the midst of whatever it does.
    pub fn suspend(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        stop_process(self.pid());
    }

    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Ends it by SIGKILL.
    pub fn kill(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Lets it do what it has begun, and end.
    pub async fn quit(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        let _ = self.call(Order::Quit).await;
        let start = Instant::now();
        while !matches!(self.child.lock().unwrap().try_wait(), Ok(Some(_))) {
            assert!(start.elapsed() < LIMIT, "a process does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All of them, as they come and go.
pub struct Fleet {
    pub setup: Setup,
    processes: Mutex<Vec<Arc<Process>>>,
}

impl Fleet {
    pub fn new(setup: Setup) -> Self {
        Self { setup, processes: Mutex::default() }
    }

    /// Starts one more, which has yet to connect.
    pub fn begin(&self) -> (Arc<Process>, oneshot::Receiver<Reply>) {
        let mut processes = self.processes.lock().unwrap();
        let process = Process::spawn(processes.len(), &self.setup);
        let (sender, ready) = oneshot::channel();
        if let Some(waiting) = process.waiting.lock().unwrap().as_mut() {
            waiting.insert(0, sender);
        }
        let process = Arc::new(process);
        // Requests may come as soon as it reads them.
        processes.push(Arc::clone(&process));
        (process, ready)
    }

    pub fn all(&self) -> Vec<Arc<Process>> {
        self.processes.lock().unwrap().clone()
    }

    /// Those to which requests are sent.
    pub fn serving(&self) -> Vec<Arc<Process>> {
        let mut all = self.all();
        all.retain(|process| process.serves() && process.waiting.lock().unwrap().is_some());
        all
    }
}

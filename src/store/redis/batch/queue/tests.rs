//! Every order in which checks come, go and are answered. The worker is polled by hand, and only
//! when it was woken: one lost wake-up, and somebody waits for ever.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Wake;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::time::advance;

use super::*;

/// How much fits into a batch.
const ROOM: usize = 4;

struct Ask {
    number: usize,
    answer: oneshot::Sender<usize>,
}

/// What is in flight: its checks, and how to let it come back.
type Sent = (Vec<usize>, oneshot::Sender<()>);

/// An office whose batches come back when they are told to.
struct Fake {
    sent: Arc<Mutex<Vec<Sent>>>,
    /// Whether nothing can be sent.
    is_down: Arc<AtomicBool>,
}

impl BatchTransport for Fake {
    type Ask = Ask;
    type InFlight = BoxFuture<'static, Vec<Ask>>;
    type Reply = Vec<Ask>;

    const ROOM: usize = ROOM;

    fn size(_: &Ask) -> usize {
        1
    }

    fn send(&mut self, mut batch: Vec<Ask>) -> Option<Self::InFlight> {
        batch.retain(|ask| !ask.answer.is_closed());
        // Dropping the batch tells everyone in it.
        if batch.is_empty() || self.is_down.load(Ordering::Relaxed) {
            return None;
        }
        let (come_back, told) = oneshot::channel();
        let numbers = batch.iter().map(|ask| ask.number).collect();
        self.sent.lock().unwrap().push((numbers, come_back));
        Some(async move { told.await.map_or_else(|_| Vec::new(), |()| batch) }.boxed())
    }

    fn deliver(&mut self, reply: Vec<Ask>) {
        for ask in reply {
            let _ = ask.answer.send(ask.number);
        }
    }
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct World {
    queue: Arc<BatchQueue<Ask>>,
    worker: Pin<Box<dyn Future<Output = ()>>>,
    bell: Arc<Bell>,
    sent: Arc<Mutex<Vec<Sent>>>,
    is_down: Arc<AtomicBool>,
    waiting: Vec<(usize, oneshot::Receiver<usize>)>,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    /// One of those who wait goes away.
    Leave(usize),
    /// A batch comes back.
    Return(usize),
    /// The worker gets its turn, if it was woken.
    Poll,
    Wait(u64),
    SetDown(bool),
}

impl World {
    fn new() -> Self {
        let (queue, sent, is_down) =
            (Arc::new(BatchQueue::default()), Arc::default(), Arc::new(AtomicBool::new(false)));
        let office = Fake { sent: Arc::clone(&sent), is_down: Arc::clone(&is_down) };
        let bell = Arc::new(Bell(AtomicBool::new(true)));
        let worker = Box::pin(work(Arc::clone(&queue), office));
        Self { queue, worker, bell, sent, is_down, waiting: Vec::new(), count: 0 }
    }

    fn ask(&mut self) {
        let (answer, arrived) = oneshot::channel();
        self.queue.push(Ask { number: self.count, answer }).unwrap();
        self.waiting.push((self.count, arrived));
        self.count += 1;
    }

    fn poll(&mut self) {
        if self.bell.0.swap(false, Ordering::Relaxed) {
            let waker = Waker::from(Arc::clone(&self.bell));
            assert!(self.worker.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
    }

    fn poll_while_woken(&mut self) {
        while self.bell.0.load(Ordering::Relaxed) {
            self.poll();
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Ask => self.ask(),
            Step::Leave(n) if !self.waiting.is_empty() => {
                drop(self.waiting.swap_remove(n % self.waiting.len()));
            }
            Step::Return(n) => {
                let mut sent = self.sent.lock().unwrap();
                if !sent.is_empty() {
                    let n = n % sent.len();
                    let _ = sent.swap_remove(n).1.send(());
                }
            }
            Step::Poll => self.poll(),
            Step::Wait(micros) => advance(Duration::from_micros(micros)).await,
            Step::SetDown(is_down) => self.is_down.store(is_down, Ordering::Relaxed),
            Step::Leave(_) => {}
        }
        let in_flight = self.sent.lock().unwrap();
        assert!(in_flight.iter().all(|(batch, _)| (1..=ROOM).contains(&batch.len())));
    }

    /// Whoever still waits is answered, with an answer of its own.
    async fn settle(&mut self) {
        self.is_down.store(false, Ordering::Relaxed);
        for _ in 0..self.count + 2 {
            self.poll_while_woken();
            for (_, come_back) in self.sent.lock().unwrap().drain(..) {
                let _ = come_back.send(());
            }
            advance(PATIENCE * 2).await;
        }
        for (number, mut arrived) in self.waiting.drain(..) {
            match arrived.try_recv() {
                Ok(answer) => assert_eq!(answer, number),
                Err(oneshot::error::TryRecvError::Closed) => {} // It was told that nothing could be sent.
                Err(oneshot::error::TryRecvError::Empty) => {
                    panic!("nobody woke the worker for check {number}")
                }
            }
        }
    }
}

fn with_paused_time(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test());
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Ask),
        1 => any::<usize>().prop_map(Step::Leave),
        3 => any::<usize>().prop_map(Step::Return),
        6 => Just(Step::Poll),
        2 => (0..1500_u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::SetDown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_forgotten(steps in prop::collection::vec(any_step(), 0..120)) {
        with_paused_time(async || {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
            }
            world.settle().await;
        });
    }
}

/// The numbers of the checks in each batch that is in flight.
fn batches(world: &World) -> Vec<Vec<usize>> {
    world.sent.lock().unwrap().iter().map(|(batch, _)| batch.clone()).collect()
}

#[test]
fn what_is_asked_meanwhile_goes_together_after_it_or_after_a_millisecond() {
    with_paused_time(async || {
        let mut world = World::new();
        world.ask();
        world.poll_while_woken();
        assert_eq!(batches(&world), [[0]]);
        (0..3).for_each(|_| world.ask());
        world.poll_while_woken();
        advance(PATIENCE / 2).await;
        world.poll_while_woken();
        assert_eq!(batches(&world), [[0]], "the others wait for the first");
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert_eq!(batches(&world), [[1, 2, 3]]);
        (0..2).for_each(|_| world.ask());
        world.poll_while_woken();
        assert_eq!(batches(&world), [[1, 2, 3]]);
        // Timers are good to a millisecond.
        advance(PATIENCE * 2).await;
        world.poll_while_woken();
        assert_eq!(batches(&world), [vec![1, 2, 3], vec![4, 5]], "but not for long");
    });
}

#[test]
fn a_full_batch_holds_up_nobody() {
    with_paused_time(async || {
        let mut world = World::new();
        (0..=2 * ROOM).for_each(|_| world.ask());
        world.poll_while_woken();
        assert_eq!(batches(&world), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8]]);
    });
}

#[test]
fn a_check_joins_no_batch_that_has_been_sent() {
    with_paused_time(async || {
        let mut world = World::new();
        world.ask();
        world.poll_while_woken();
        world.ask();
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert!(
            world.waiting[1].1.try_recv().is_err(),
            "answered from a batch that was sent before"
        );
        assert_eq!(batches(&world), [[1]]);
    });
}

#[test]
fn who_is_alone_goes_alone_and_holds_up_nobody() {
    with_paused_time(async || {
        let mut world = World::new();
        world.poll_while_woken();
        let queue = Arc::clone(&world.queue);
        let alone = queue.try_direct().unwrap();
        assert!(queue.try_direct().is_none(), "the second takes the queue");
        world.ask();
        world.poll_while_woken();
        assert_eq!(batches(&world), [[0]]);
        drop(alone);
        assert!(queue.try_direct().is_none(), "a batch is in flight");
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert!(queue.try_direct().is_some());
        // Where many ask at once, they had better go together.
        world.ask();
        world.ask();
        world.poll_while_woken();
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert!(queue.try_direct().is_none());
        world.ask();
        world.poll_while_woken();
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert!(queue.try_direct().is_some());
    });
}

#[test]
fn when_the_clerk_ends_everyone_is_told() {
    with_paused_time(async || {
        let mut world = World::new();
        world.ask();
        world.poll_while_woken();
        world.ask();
        let World { queue, worker, mut waiting, .. } = world;
        drop(worker);
        assert!(
            waiting
                .iter_mut()
                .all(|(_, arrived)| arrived.try_recv() == Err(oneshot::error::TryRecvError::Closed))
        );
        let (answer, _arrived) = oneshot::channel();
        assert!(queue.push(Ask { number: 9, answer }).is_err());
        assert!(queue.try_direct().is_none());
    });
}

/// The same on threads, where the turns are those of the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nobody_is_forgotten_on_threads() {
    struct Echo;
    impl BatchTransport for Echo {
        type Ask = Ask;
        type InFlight = BoxFuture<'static, Vec<Ask>>;
        type Reply = Vec<Ask>;

        const ROOM: usize = ROOM;

        fn size(_: &Ask) -> usize {
            1
        }

        fn send(&mut self, batch: Vec<Ask>) -> Option<Self::InFlight> {
            Some(
                async move { tokio::spawn(async move { batch }).await.unwrap_or_default() }.boxed(),
            )
        }

        fn deliver(&mut self, reply: Vec<Ask>) {
            for ask in reply {
                let _ = ask.answer.send(ask.number);
            }
        }
    }
    let queue = Arc::new(BatchQueue::default());
    let worker = tokio::spawn(work(Arc::clone(&queue), Echo));
    let alone = Arc::new(AtomicUsize::new(0));
    let askers: Vec<_> = (0..8)
        .map(|asker| {
            let (queue, alone) = (Arc::clone(&queue), Arc::clone(&alone));
            tokio::spawn(async move {
                for number in 0..500 {
                    if let Some(_alone) = queue.try_direct() {
                        alone.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        continue;
                    }
                    let (answer, arrived) = oneshot::channel();
                    queue.push(Ask { number, answer }).unwrap();
                    if (number + asker) % 7 == 0 {
                        drop(arrived);
                    } else {
                        let answer = tokio::time::timeout(Duration::from_secs(20), arrived).await;
                        assert_eq!(answer.expect("nobody woke the worker").unwrap(), number);
                    }
                }
            })
        })
        .collect();
    for asker in askers {
        asker.await.unwrap();
    }
    worker.abort();
}

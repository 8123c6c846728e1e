//! Every order in which items are pushed, given up and answered. The worker is polled by hand, and
//! only when it was woken: after a lost wake-up, an item would wait for ever.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Wake;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::time::advance;

use super::*;

/// What fits into a batch.
const CAPACITY: usize = 4;

struct Item {
    number: usize,
    answer: oneshot::Sender<usize>,
}

/// A batch in flight: its items, and how to let it return.
type Sent = (Vec<usize>, oneshot::Sender<()>);

/// A transport whose batches return when the test lets them.
struct FakeTransport {
    sent: Arc<Mutex<Vec<Sent>>>,
    /// Whether nothing can be sent.
    is_down: Arc<AtomicBool>,
}

impl BatchTransport for FakeTransport {
    type Item = Item;
    type InFlight = BoxFuture<'static, Vec<Item>>;
    type Reply = Vec<Item>;

    const CAPACITY: usize = CAPACITY;

    fn size(_: &Item) -> usize {
        1
    }

    fn send(&mut self, mut batch: Vec<Item>) -> Option<Self::InFlight> {
        batch.retain(|item| !item.answer.is_closed());
        // Dropping the batch closes the channel of each item.
        if batch.is_empty() || self.is_down.load(Ordering::Relaxed) {
            return None;
        }
        let (returned, is_returned) = oneshot::channel();
        let numbers = batch.iter().map(|item| item.number).collect();
        self.sent.lock().unwrap().push((numbers, returned));
        Some(async move { is_returned.await.map_or_else(|_| Vec::new(), |()| batch) }.boxed())
    }

    fn deliver(&mut self, reply: Vec<Item>) {
        for item in reply {
            let _ = item.answer.send(item.number);
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
    queue: Arc<BatchQueue<Item>>,
    worker: Pin<Box<dyn Future<Output = ()>>>,
    bell: Arc<Bell>,
    sent: Arc<Mutex<Vec<Sent>>>,
    is_down: Arc<AtomicBool>,
    waiting: Vec<(usize, oneshot::Receiver<usize>)>,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    /// The caller of an item goes away.
    Leave(usize),
    /// A batch returns.
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
        let transport = FakeTransport { sent: Arc::clone(&sent), is_down: Arc::clone(&is_down) };
        let bell = Arc::new(Bell(AtomicBool::new(true)));
        let worker = Box::pin(run_worker(Arc::clone(&queue), transport));
        Self { queue, worker, bell, sent, is_down, waiting: Vec::new(), count: 0 }
    }

    fn push(&mut self) {
        let (answer, arrived) = oneshot::channel();
        self.queue.push(Item { number: self.count, answer }, None).unwrap();
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
            Step::Push => self.push(),
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
        assert!(in_flight.iter().all(|(batch, _)| (1..=CAPACITY).contains(&batch.len())));
    }

    /// Every item that still waits gets its own answer.
    async fn settle(&mut self) {
        self.is_down.store(false, Ordering::Relaxed);
        for _ in 0..self.count + 2 {
            self.poll_while_woken();
            for (_, returned) in self.sent.lock().unwrap().drain(..) {
                let _ = returned.send(());
            }
            advance(BATCH_DELAY * 2).await;
        }
        for (number, mut arrived) in self.waiting.drain(..) {
            match arrived.try_recv() {
                Ok(answer) => assert_eq!(answer, number),
                Err(oneshot::error::TryRecvError::Closed) => {} // Nothing could be sent.
                Err(oneshot::error::TryRecvError::Empty) => {
                    panic!("the worker was not woken for item {number}")
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
        6 => Just(Step::Push),
        1 => any::<usize>().prop_map(Step::Leave),
        3 => any::<usize>().prop_map(Step::Return),
        6 => Just(Step::Poll),
        2 => (0..1500_u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::SetDown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn every_item_is_answered(steps in prop::collection::vec(any_step(), 0..120)) {
        with_paused_time(async || {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
            }
            world.settle().await;
        });
    }
}

/// The numbers of the items in each batch that is in flight.
fn batches(world: &World) -> Vec<Vec<usize>> {
    world.sent.lock().unwrap().iter().map(|(batch, _)| batch.clone()).collect()
}

#[test]
fn items_pushed_meanwhile_share_the_next_batch_after_the_answer_or_a_millisecond() {
    with_paused_time(async || {
        let mut world = World::new();
        world.push();
        world.poll_while_woken();
        assert_eq!(batches(&world), [[0]]);
        (0..3).for_each(|_| world.push());
        world.poll_while_woken();
        advance(BATCH_DELAY / 2).await;
        world.poll_while_woken();
        assert_eq!(batches(&world), [[0]], "the others wait for the first");
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert_eq!(batches(&world), [[1, 2, 3]]);
        (0..2).for_each(|_| world.push());
        world.poll_while_woken();
        assert_eq!(batches(&world), [[1, 2, 3]]);
        // Timers are good to a millisecond.
        advance(BATCH_DELAY * 2).await;
        world.poll_while_woken();
        assert_eq!(batches(&world), [vec![1, 2, 3], vec![4, 5]], "but not for long");
    });
}

#[test]
fn a_full_batch_delays_no_other() {
    with_paused_time(async || {
        let mut world = World::new();
        (0..=2 * CAPACITY).for_each(|_| world.push());
        world.poll_while_woken();
        assert_eq!(batches(&world), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8]]);
    });
}

#[test]
fn an_item_joins_no_batch_that_has_been_sent() {
    with_paused_time(async || {
        let mut world = World::new();
        world.push();
        world.poll_while_woken();
        world.push();
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
fn a_single_item_is_sent_directly_and_delays_no_batch() {
    with_paused_time(async || {
        let mut world = World::new();
        world.poll_while_woken();
        let queue = Arc::clone(&world.queue);
        let direct = queue.try_direct().unwrap();
        assert!(queue.try_direct().is_none(), "the second goes into the queue");
        world.push();
        world.poll_while_woken();
        assert_eq!(batches(&world), [[0]]);
        drop(direct);
        assert!(queue.try_direct().is_none(), "a batch is in flight");
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert!(queue.try_direct().is_some());
        // After a batch of several items, items share batches.
        world.push();
        world.push();
        world.poll_while_woken();
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert!(queue.try_direct().is_none());
        world.push();
        world.poll_while_woken();
        world.step(Step::Return(0)).await;
        world.poll_while_woken();
        assert!(queue.try_direct().is_some());
    });
}

#[test]
fn when_the_worker_ends_every_item_is_closed() {
    with_paused_time(async || {
        let mut world = World::new();
        world.push();
        world.poll_while_woken();
        world.push();
        let World { queue, worker, mut waiting, .. } = world;
        drop(worker);
        assert!(
            waiting
                .iter_mut()
                .all(|(_, arrived)| arrived.try_recv() == Err(oneshot::error::TryRecvError::Closed))
        );
        let (answer, _arrived) = oneshot::channel();
        assert!(queue.push(Item { number: 9, answer }, None).is_err());
        assert!(queue.try_direct().is_none());
    });
}

/// The same on threads, which the system schedules.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_item_is_answered_on_threads() {
    struct Echo;
    impl BatchTransport for Echo {
        type Item = Item;
        type InFlight = BoxFuture<'static, Vec<Item>>;
        type Reply = Vec<Item>;

        const CAPACITY: usize = CAPACITY;

        fn size(_: &Item) -> usize {
            1
        }

        fn send(&mut self, batch: Vec<Item>) -> Option<Self::InFlight> {
            Some(
                async move { tokio::spawn(async move { batch }).await.unwrap_or_default() }.boxed(),
            )
        }

        fn deliver(&mut self, reply: Vec<Item>) {
            for item in reply {
                let _ = item.answer.send(item.number);
            }
        }
    }
    let queue = Arc::new(BatchQueue::default());
    let worker = tokio::spawn(run_worker(Arc::clone(&queue), Echo));
    let direct = Arc::new(AtomicUsize::new(0));
    let pushers: Vec<_> = (0..8)
        .map(|pusher| {
            let (queue, direct) = (Arc::clone(&queue), Arc::clone(&direct));
            tokio::spawn(async move {
                for number in 0..500 {
                    if let Some(_direct) = queue.try_direct() {
                        direct.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        continue;
                    }
                    let (answer, arrived) = oneshot::channel();
                    queue.push(Item { number, answer }, None).unwrap();
                    if (number + pusher) % 7 == 0 {
                        drop(arrived);
                    } else {
                        let answer = tokio::time::timeout(Duration::from_secs(20), arrived).await;
                        assert_eq!(answer.expect("the worker was not woken").unwrap(), number);
                    }
                }
            })
        })
        .collect();
    for pusher in pushers {
        pusher.await.unwrap();
    }
    worker.abort();
}

#[test]
fn only_what_was_not_sent_is_joined() {
    let queue = BatchQueue::<Vec<u32>>::default();
    let join = |hash, what| {
        queue.join(hash, |item| {
            let is_same = item.first() == Some(&what);
            item.extend(is_same.then_some(what));
            is_same
        })
    };
    assert!(!join(1, 10), "nothing waits");
    queue.push(vec![9], None).unwrap();
    queue.push(vec![10], Some(1)).unwrap();
    queue.push(vec![20], Some(2)).unwrap();
    assert!(join(1, 10) && join(1, 10) && join(2, 20));
    assert!(!join(3, 9), "it has no hash");
    assert!(!join(1, 11), "another question with the same hash");
    let (batch, more) = queue.take(2, |_| 1);
    assert_eq!((batch, more), (vec![vec![9], vec![10, 10, 10]], true));
    assert!(!join(1, 10), "it is in flight, and its answer may be older");
    queue.push(vec![10], Some(1)).unwrap();
    assert!(join(1, 10) && join(2, 20));
    let (batch, more) = queue.take(9, |_| 1);
    assert_eq!((batch, more), (vec![vec![20, 20, 20], vec![10, 10]], false));
    assert!(!join(1, 10) && !join(2, 20));
    assert!(queue.lock().joinable.is_empty());
}

//! A transmitter that fails, answers nonsense, or does not answer.

use super::*;

/// What a transmitter answers instead of events.
fn failures() -> Vec<(&'static str, Response<Bytes>)> {
    let with = |status: StatusCode, body: &'static [u8]| {
        let mut answer = Response::new(Bytes::from_static(body));
        *answer.status_mut() = status;
        answer
    };
    vec![
        ("error", with(StatusCode::INTERNAL_SERVER_ERROR, b"")),
        ("no access", with(StatusCode::FORBIDDEN, br#"{"sets":{}}"#)),
        ("redirect", with(StatusCode::FOUND, b"")),
        ("no JSON", with(StatusCode::OK, b"<html>")),
        ("no object", with(StatusCode::OK, b"[]")),
        ("odd sets", with(StatusCode::OK, br#"{"sets":[]}"#)),
        ("twice", with(StatusCode::OK, br#"{"sets":{},"sets":{"a":"b"}}"#)),
        ("an id twice", with(StatusCode::OK, br#"{"sets":{"a":"b","a":"c"}}"#)),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_transmitter_that_fails_is_asked_after_growing_pauses_and_told_again() {
    for (name, failure) in failures() {
        let parties = Parties::new();
        parties.transmitter.give_out(parties.event_about("alice"));
        // It gives out the event, and fails when that is acknowledged, until it is mended.
        let (is_mended, polls) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(vec![])));
        let endpoint = parties.transmitter.poll_endpoint();
        let (mended, kept) = (Arc::clone(&is_mended), Arc::clone(&polls));
        let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
        let running = Running::start(poller.with_transport(move |request: Request<Bytes>| {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            let mut polls = kept.lock().unwrap();
            polls.push((Instant::now(), body));
            let fails = polls.len() > 1 && !mended.load(Ordering::SeqCst);
            let (failure, endpoint) = (fails.then(|| failure.clone()), endpoint.clone());
            async move {
                Ok::<_, Infallible>(match failure {
                    Some(failure) => failure,
                    None => ask(&endpoint, request).await,
                })
            }
        }));
        until(|| polls.lock().unwrap().len() > 9).await;
        assert_eq!(parties.transmitter.outstanding().len(), 1, "{name}: it was not told");
        is_mended.store(true, Ordering::SeqCst);
        until(|| parties.transmitter.outstanding().is_empty()).await;
        running.stop().await;
        let polls = polls.lock().unwrap();
        let pauses: Vec<_> =
            polls[1..9].windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect();
        for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]) {
            assert!((expected * 0.75..=expected * 1.01).contains(pause), "{name}: {pauses:?}");
        }
        for (_, body) in &polls[1..9] {
            assert_eq!(body["ack"].as_array().map(Vec::len), Some(1), "{name}: it is told again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transmitter_says_how_long_it_wants_to_be_left_alone() {
    let parties = Parties::new();
    let polls = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&polls);
    let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
    let running = Running::start(poller.with_transport(move |_| {
        let mut polls = kept.lock().unwrap();
        polls.push(Instant::now());
        let seconds = ["100", "1000000", "soon"][(polls.len() - 1).min(2)];
        let answer = Response::builder().status(429).header("retry-after", seconds);
        ready(Ok::<_, Infallible>(answer.body(Bytes::new()).unwrap()))
    }));
    until(|| polls.lock().unwrap().len() > 3).await;
    running.stop().await;
    let polls = polls.lock().unwrap();
    let pause = |first: usize| (polls[first + 1] - polls[first]).as_secs();
    assert_eq!((pause(0), pause(1)), (100, 300));
    assert!(pause(2) < 60);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
    let parties = Parties::new();
    let polls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&polls);
    let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
    let running = Running::start(poller.with_transport(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        pending::<Result<Response<Bytes>, Infallible>>()
    }));
    until(|| polls.load(Ordering::Relaxed) > 2).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_an_answer_that_is_too_long_fewer_events_are_asked_for() {
    let parties = Parties::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
    let running = Running::start(poller.with_transport(move |request: Request<Bytes>| {
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        let most = body["maxEvents"].as_u64().unwrap();
        kept.lock().unwrap().push(most);
        let length = if most > 4 { MAX_ANSWER_BYTES } else { 0 };
        let answer = json!({ "sets": {}, "padding": "x".repeat(length) });
        ready(Ok::<_, Infallible>(Response::new(answer.to_string())))
    }));
    until(|| asked.lock().unwrap().len() > 4).await;
    running.stop().await;
    assert_eq!(asked.lock().unwrap()[..5], [32, 16, 8, 4, 8]);
}

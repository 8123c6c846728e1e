use tokio::time::{Instant, timeout};

use super::*;

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_families_are_tried_in_turn() {
    let given = addresses(&["[::1]:1", "[::2]:1", "10.0.0.1:1", "[::1]:1", "10.0.0.2:1"]);
    let expected = addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1"]);
    assert_eq!(interleaved(given), expected);
}

#[tokio::test(start_paused = true)]
async fn the_first_address_that_connects_wins() {
    const LIMIT: Duration = Duration::from_secs(1);
    // What each address does: connects or fails after so many milliseconds; which wins, and when.
    for (servers, winner, takes) in [
        (&[(10, true), (0, true)][..], Ok(0), 10),
        // The first swallows packets.
        (&[(10_000, true), (5, true)], Ok(1), 255),
        (&[(10_000, true), (10_000, true), (10_000, true), (5, true)], Ok(3), 605),
        // The first refuses.
        (&[(3, false), (5, true)], Ok(1), 8),
        // The first is slow, and still the first.
        (&[(300, true), (100, true)], Ok(0), 300),
        (&[(3, false), (5, false)], Err(()), 8),
    ] {
        let given = (0..servers.len())
            .map(|n| SocketAddr::from(([10, 0, 0, 1], u16::try_from(n).unwrap())))
            .collect();
        let start = Instant::now();
        let raced = race(given, LIMIT, |address| async move {
            let (after, is_well) = servers[usize::from(address.port())];
            sleep(Duration::from_millis(after)).await;
            let refused = || StoreError::new(StoreErrorKind::Unreachable, "refused");
            is_well.then_some(usize::from(address.port())).ok_or_else(refused)
        });
        let raced = timeout(LIMIT, raced).await.unwrap();
        assert_eq!(raced.map_err(|_| ()), winner, "{servers:?}");
        assert_eq!(start.elapsed().as_millis(), takes, "{servers:?}");
    }
}

//! A server is judged by the time that was told last, or by the machine's.

use std::time::Duration;

use signet_runtime::clock::Clock as _;

use super::*;

/// Covers INV-16. What a server said while its clock was wrong would else keep the agent away from it when it is right.
#[tokio::test]
async fn a_server_that_once_told_a_wrong_time_is_believed_by_the_machines() {
    let day = Duration::from_secs(86_400);
    for wrong in [at(0) - day, at(0) + 400 * day] {
        let bench = Bench::new(Odd::default()).await;
        // Elapsed time of zero means that there is none.
        while bench.time.elapsed().is_zero() {
            tokio::task::yield_now().await;
        }
        bench.time.tell(wrong);
        assert!(bench.time.is_doubtful());
        bench.attest().await.unwrap();
        assert!(!bench.time.is_doubtful(), "it has not been told the right time");
    }
}

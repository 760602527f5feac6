//! What is printed.

use std::time::Duration;

use serde_json::{Value, json};

/// One load's figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Certificates per second.
    per_second: f64,
    /// Median of the requests' latencies, ms.
    p50_ms: f64,
    /// 99th percentile, ms.
    p99_ms: f64,
}

impl Load {
    /// From sorted latencies of requests of `size` certificates answered within `duration`.
    pub(crate) fn new(sorted: &[Duration], size: usize, duration: Duration) -> Self {
        let percentile = |percent: usize| {
            let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted
                .get(index)
                .map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds' work")]
        let certificates = (sorted.len() * size) as f64;
        Self {
            per_second: certificates / duration.as_secs_f64(),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
        }
    }
}

/// All figures of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) batched: Load,
    pub(crate) single: Load,
    /// Certificates in a large request.
    pub(crate) batch: usize,
    pub(crate) crypto_limit: f64,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        json!({
            "benchmark": "issue",
            "issued_per_second": round(self.batched.per_second),
            "issued_p50_ms": hundredths(self.batched.p50_ms),
            "issued_p99_ms": hundredths(self.batched.p99_ms),
            "single_per_second": round(self.single.per_second),
            "single_p50_ms": hundredths(self.single.p50_ms),
            "single_p99_ms": hundredths(self.single.p99_ms),
            "crypto_limit_per_second": round(self.crypto_limit),
            "issued_share_of_limit": hundredths(self.batched.per_second / self.crypto_limit),
            "single_share_of_limit": hundredths(self.single.per_second / self.crypto_limit),
            "batch": self.batch,
            "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "seconds": self.seconds,
            "seed": self.seed,
        })
    }

    pub(crate) fn table(&self) -> String {
        let line = |what: &str, load: &Load| {
            format!(
                "{what:<16} {:>7.0}/s  {:>4.2} of the limit  p50 {:.2} ms  p99 {:.2} ms\n",
                load.per_second,
                load.per_second / self.crypto_limit,
                load.p50_ms,
                load.p99_ms
            )
        };
        let limit = format!("{:<16} {:>7.0}/s\n", "verify + sign", self.crypto_limit);
        line(&format!("{} a request", self.batch), &self.batched)
            + &line("1 a request", &self.single)
            + &limit
    }
}

fn round(value: f64) -> f64 {
    value.round()
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

//! What is printed.

use std::time::Duration;

use serde_json::{Value, json};

/// What slices of one load gave.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Of requests answered within them.
    pub(crate) latencies: Vec<Duration>,
    /// How long they were.
    pub(crate) time: Duration,
    /// Seconds of the server's process on the CPU within them.
    pub(crate) server_cpu: f64,
    /// The same of this process: load generator and fake Kubernetes API.
    pub(crate) client_cpu: f64,
}

impl Measured {
    pub(crate) fn add(&mut self, slice: Self) {
        self.latencies.extend(slice.latencies);
        self.time += slice.time;
        self.server_cpu += slice.server_cpu;
        self.client_cpu += slice.client_cpu;
    }

    /// The figures of requests of `size` certificates.
    pub(crate) fn load(mut self, size: usize) -> Load {
        self.latencies.sort_unstable();
        let sorted = &self.latencies;
        let percentile = |percent: usize| {
            let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted
                .get(index)
                .map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds' work")]
        let certificates = (sorted.len() * size) as f64;
        Load {
            per_second: certificates / self.time.as_secs_f64(),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            server_cpu: self.server_cpu,
            client_cpu: self.client_cpu,
            certificates,
        }
    }
}

/// One load's figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Certificates per second.
    per_second: f64,
    /// Median of the requests' latencies, ms.
    p50_ms: f64,
    /// 99th percentile, ms.
    p99_ms: f64,
    /// Seconds on the CPU: the server, and the load generator with the fake Kubernetes API.
    server_cpu: f64,
    client_cpu: f64,
    certificates: f64,
}

impl Load {
    fn micros(&self, cpu: f64) -> f64 {
        cpu * 1e6 / self.certificates
    }
}

/// One slice of the limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitSlice {
    /// Verified and signed, on all cores.
    pub(crate) pairs: f64,
    /// How long it was.
    pub(crate) time: Duration,
    /// Seconds on the CPU.
    pub(crate) cpu: f64,
}

/// All slices of the limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limit {
    pairs: f64,
    time: Duration,
    cpu: f64,
}

impl Limit {
    pub(crate) fn add(&mut self, slice: LimitSlice) {
        self.pairs += slice.pairs;
        self.time += slice.time;
        self.cpu += slice.cpu;
    }

    fn per_second(&self) -> f64 {
        self.pairs / self.time.as_secs_f64()
    }
}

/// All figures of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) batched: Load,
    pub(crate) single: Load,
    /// Certificates in a large request.
    pub(crate) batch: usize,
    pub(crate) limit: Limit,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let limit = self.limit.per_second();
        json!({
            "benchmark": "issue",
            "issued_per_second": round(self.batched.per_second),
            "issued_p50_ms": hundredths(self.batched.p50_ms),
            "issued_p99_ms": hundredths(self.batched.p99_ms),
            "issued_server_cpu_seconds": hundredths(self.batched.server_cpu),
            "issued_client_cpu_seconds": hundredths(self.batched.client_cpu),
            "single_per_second": round(self.single.per_second),
            "single_p50_ms": hundredths(self.single.p50_ms),
            "single_p99_ms": hundredths(self.single.p99_ms),
            "single_server_cpu_seconds": hundredths(self.single.server_cpu),
            "single_client_cpu_seconds": hundredths(self.single.client_cpu),
            "crypto_limit_per_second": round(limit),
            "crypto_limit_cpu_seconds": hundredths(self.limit.cpu),
            "issued_share_of_limit": hundredths(self.batched.per_second / limit),
            "single_share_of_limit": hundredths(self.single.per_second / limit),
            "batch": self.batch,
            "optimised": !cfg!(debug_assertions),
            "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "seconds": self.seconds,
            "seed": self.seed,
        })
    }

    pub(crate) fn table(&self) -> String {
        let limit = self.limit.per_second();
        let line = |what: &str, load: &Load| {
            format!(
                "{what:<16} {:>7.0}/s  {:>4.2} of the limit  p50 {:.2} ms  p99 {:.2} ms  CPU each: server {:.0} µs, load {:.0} µs\n",
                load.per_second,
                load.per_second / limit,
                load.p50_ms,
                load.p99_ms,
                load.micros(load.server_cpu),
                load.micros(load.client_cpu),
            )
        };
        let cpu = self.limit.cpu * 1e6 / self.limit.pairs;
        let limit = format!("{:<16} {limit:>7.0}/s  CPU each: {cpu:.0} µs\n", "verify + sign");
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

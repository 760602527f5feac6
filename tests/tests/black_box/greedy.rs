//! The worst client times all its allowances: one caller of each kind uses everything that it is granted at once, while an honest
//! neighbour works. Nobody else is refused, the program stays small, and all of it is given back.
//!
//! In `cargo test` the times are printed. The whole form lasts longer, goes through every kind of caller, one after the other, and
//! asserts the times too; CONTRIBUTING.md has its command.

mod admin;
mod agent;
mod honest;
mod pod;
mod proxy;
mod strangers;
pub(crate) mod tools;
mod uid;

use std::time::Duration;

use signet_tests::{http, wait::within};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::doors::none_has_failed;

/// How soon what an attack took is given back.
const GIVEN_BACK: Duration = Duration::from_secs(30);
/// How long the neighbour rests between two calls: it keeps to what one caller may do for ever, or it would wait for its own bounds.
const REST: Duration = Duration::from_millis(40);
/// Longer than any call of the neighbour takes, however busy the machine is.
const NEVER: Duration = Duration::from_secs(10);
/// What the whole form wants of the neighbour's 99th percentile.
const SOON: Duration = Duration::from_millis(250);

/// How thoroughly.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Beside the other tests.
    Short,
    /// Alone on a quiet machine.
    Whole,
}

impl Form {
    const fn undisturbed(self) -> Duration {
        match self {
            Self::Short => Duration::from_secs(1),
            Self::Whole => Duration::from_secs(5),
        }
    }

    const fn attack(self) -> Duration {
        match self {
            Self::Short => Duration::from_secs(5),
            Self::Whole => Duration::from_secs(20),
        }
    }
}

/// How large the attacked program may be.
#[derive(Clone, Copy)]
struct Size {
    /// Resident at any time (KiB).
    most: u64,
    /// Of its own memory, more than before when it is over (KiB).
    kept: u64,
}

const AGENT: Size = Size {
    most: 128 << 10,
    kept: 32 << 10,
};
const SERVER: Size = Size {
    most: 512 << 10,
    kept: 64 << 10,
};

/// What `/proc` says of a process under this name (KiB).
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How long the calls of the neighbour took.
struct Times(Vec<Duration>);

impl Times {
    fn percentile(&self, of_hundred: usize) -> Duration {
        self.0[(self.0.len() - 1) * of_hundred / 100]
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, slow, slowest] = [50, 99, 100].map(|of| self.percentile(of));
        write!(
            f,
            "{} calls, p50 {median:.1?}, p99 {slow:.1?}, max {slowest:.1?}",
            self.0.len()
        )
    }
}

/// The neighbour calls again and again for so long, and is served each time.
async fn work(time: Duration, mut call: impl AsyncFnMut(), mut look: impl FnMut()) -> Times {
    let (mut times, end) = (Vec::new(), Instant::now() + time);
    while Instant::now() < end {
        let begun = Instant::now();
        timeout(NEVER, call()).await.expect("the neighbour is served");
        times.push(begun.elapsed());
        look();
        tokio::time::sleep(REST).await;
    }
    times.sort();
    Times(times)
}

/// One kind of caller against one program.
struct Trial {
    caller: &'static str,
    pid: u32,
    /// Where its metrics are.
    telemetry: String,
    size: Size,
    form: Form,
}

impl Trial {
    /// How often the program has refused anything to anybody.
    async fn refused(&self) -> f64 {
        let text = http::metrics(&self.telemetry).await.unwrap();
        let refusals = text
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains("_refused_total"));
        let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        refusals.map(number).sum()
    }

    async fn run(&self, mut neighbour: impl AsyncFnMut(), attack: impl FnOnce() -> JoinSet<()>) {
        let Self {
            caller, pid, size, ..
        } = *self;
        let alone = work(self.form.undisturbed(), &mut neighbour, || {}).await;
        let before = memory(pid, "RssAnon");
        let refused = self.refused().await;
        let mut attack = attack();
        let mut most = 0;
        let beside = work(self.form.attack(), &mut neighbour, || {
            most = most.max(memory(pid, "VmRSS"));
        })
        .await;
        println!("{caller}: {before} KiB before, at most {most} KiB");
        println!("{caller}: the neighbour alone: {alone}; beside it: {beside}");
        assert!(most < size.most, "{caller}: it grew to {most} KiB");
        let refused = self.refused().await - refused;
        println!("{caller}: refused {refused} times");
        assert!(refused > 0.0, "{caller}: what it took was within its bounds");
        none_has_failed(&mut attack);
        drop(attack);
        let ended = Instant::now();
        let given_back = within(GIVEN_BACK, async || {
            (memory(pid, "RssAnon") < before + size.kept).then_some(())
        });
        let given_back = given_back.await.is_some();
        println!(
            "{caller}: {} KiB {:.1?} after its end",
            memory(pid, "RssAnon"),
            ended.elapsed()
        );
        assert!(given_back, "{caller}");
        if self.form == Form::Whole {
            let (alone, beside) = (alone.percentile(99), beside.percentile(99));
            assert!(
                beside < 10 * alone && beside < SOON,
                "{caller}: {alone:?}, {beside:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, alone on a quiet machine: cargo test --release --workspace --test black_box greedy::the_whole_form -- --ignored --nocapture"]
async fn the_whole_form() {
    pod::without_identity(Form::Whole).await;
    pod::with_identity(Form::Whole).await;
    pod::as_a_proxy(Form::Whole).await;
    uid::on_the_shared_socket(Form::Whole).await;
    strangers::of_many_addresses(Form::Whole).await;
    agent::of_another_node(Form::Whole).await;
    admin::beside_agents(Form::Whole).await;
}

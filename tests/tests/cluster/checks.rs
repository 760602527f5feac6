//! Checks with names, run one after the other in one world.

use std::{future::Future, io::Write, panic::AssertUnwindSafe, path::PathBuf, sync::Arc};

use anyhow::{Result, anyhow};
use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::api::Cluster;

/// One thing to prove.
pub(crate) struct Check<W> {
    /// What is proved, as a sentence.
    pub(crate) name: &'static str,
    /// How.
    pub(crate) run: for<'a> fn(&'a mut W) -> LocalBoxFuture<'a, Result<()>>,
}

/// What checks run in.
pub(crate) trait World {
    /// What its processes said, for a failed check.
    fn log(&self) -> String;
}

/// A list of checks: `"what is proved" => function`.
macro_rules! checks {
    ($($name:literal => $function:path),+ $(,)?) => {
        &[$($crate::checks::Check { name: $name, run: |world| Box::pin($function(world)) }),+]
    };
}
pub(crate) use checks;

/// Runs all checks against the cluster that the first of `variables` names.
///
/// # Panics
/// When a variable is not set: whoever asks for a test wants it run. With every check that failed, after everything made in the
/// cluster is gone again.
pub(crate) async fn run<W: World, F: Future<Output = Result<W>>>(
    variables: &[&str],
    checks: &[Check<W>],
    set_up: impl FnOnce(Arc<Cluster>) -> F,
) {
    let values: Vec<PathBuf> = variables
        .iter()
        .filter_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
        .map(PathBuf::from)
        .collect();
    assert!(
        values.len() == variables.len(),
        "set {} to a real cluster",
        variables.join(" and ")
    );
    let cluster = Cluster::connect(&values[0]).await;
    let cluster = Arc::new(cluster.unwrap_or_else(|error| panic!("no cluster: {error:#}")));
    let failures = in_world(checks, set_up(Arc::clone(&cluster))).await;
    cluster.clean_up().await;
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

async fn in_world<W: World>(checks: &[Check<W>], set_up: impl Future<Output = Result<W>>) -> Vec<String> {
    let mut world = match guarded(set_up).await {
        Ok(world) => world,
        Err(error) => return vec![format!("the test's world was not set up: {error:#}")],
    };
    let mut failures = Vec::new();
    for check in checks {
        match guarded((check.run)(&mut world)).await {
            Ok(()) => say(&format!("ok: {}", check.name)),
            Err(error) => {
                say(&format!("FAILED: {}: {error:#}", check.name));
                failures.push(format!("{}: {error:#}", check.name));
            }
        }
    }
    if !failures.is_empty() {
        say(&world.log());
    }
    failures
}

/// A panic of one check must not leave the cluster full of leftovers.
async fn guarded<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(anyhow!("panic: {}", text.unwrap_or("without words")))
    })
}

/// Past the test harness, which hides what a passing test prints: how far a long run is.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "cluster test: {line}");
}

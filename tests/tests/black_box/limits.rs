//! The table of limits: docs/limits.md is printed from what the programs go by, and each row can be found in the code and be watched.

use std::{collections::BTreeSet, fs};

use signet_runtime::limits::{Limit, markdown};
use signet_tests::{domain::Domain, http, repository::root};

const PAGE: &str = "docs/limits.md";
const UPDATE: &str = "SIGNET_UPDATE_LIMITS=1 cargo test -p signet-tests --test black_box limits::the_page";

const INTRO: &str = "# Limits

What one caller may use of a server or of an agent, however many others there are and whatever it does. The *share* is what it certainly gets,
the *cap* what it never gets more of; between the two it has what others leave. `counted in` names the module that does, `metric` what moves
when the bound is met.

The tables are printed from the constants that bound:
`SIGNET_UPDATE_LIMITS=1 cargo test -p signet-tests --test black_box limits::the_page`.
";

fn page() -> String {
    let (server, agent) = (signet_server::testing::limits(), signet_agent::testing::limits());
    format!(
        "{INTRO}\n## Server\n\n{}\n## Agent\n\n{}",
        markdown(&server),
        markdown(&agent)
    )
}

#[test]
fn the_page_says_what_the_programs_go_by() {
    let path = root().join(PAGE);
    if std::env::var_os("SIGNET_UPDATE_LIMITS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "{PAGE} is not what the programs go by; to write it anew: {UPDATE}"
    );
}

#[test]
fn every_row_names_a_module_of_its_program() {
    for (name, rows) in [
        ("server", signet_server::testing::limits()),
        ("agent", signet_agent::testing::limits()),
    ] {
        for row in rows {
            let mut modules = row.counted.split("::");
            let owner = modules.next().filter(|owner| [name, "runtime"].contains(owner));
            let source = root()
                .join(owner.unwrap_or_else(|| panic!("{row:?}")))
                .join("src");
            let path = modules.fold(source, |path, module| path.join(module));
            assert!(path.with_extension("rs").is_file(), "no such module: {row:?}");
            assert!(
                row.metric.starts_with(&format!("signet_{name}_")),
                "not its metric: {row:?}"
            );
        }
    }
}

/// What `/metrics` shows from the start of a program: an alert on a series that comes with the first event is blind to it.
async fn shown(telemetry_url: &str) -> BTreeSet<String> {
    let text = http::metrics(telemetry_url).await.unwrap();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let names = series.filter_map(|line| line.split(['{', ' ']).next());
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_row_can_be_watched() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let missing = |rows: Vec<Limit>, shown: &BTreeSet<String>| {
        let metrics = rows.into_iter().map(|row| row.metric);
        metrics
            .filter(|metric| !shown.contains(*metric))
            .collect::<Vec<_>>()
    };
    let of_server = shown(&domain.server.telemetry_url()).await;
    let of_agent = shown(&agent.telemetry_url()).await;
    assert_eq!(missing(signet_server::testing::limits(), &of_server), [""; 0]);
    assert_eq!(missing(signet_agent::testing::limits(), &of_agent), [""; 0]);
}

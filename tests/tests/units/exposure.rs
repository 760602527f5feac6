//! How much each unit leaves open, as `systemd-analyze security` weighs it, and that the unit says why.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use signet_tests::repository::root;

use crate::shape::{SAMPLE, path, read};

fn analyze(args: &[&str]) -> Output {
    Command::new("systemd-analyze").args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// What the unit's own comment has to name for a point that is open.
fn name_of(point: &str) -> &str {
    match point.split_once("=~") {
        None => point.split('=').next().unwrap(),
        Some((_, "AF_(INET|INET6)")) => "AF_INET6",
        Some((_, value)) => value,
    }
}

/// The table of docs/systemd.md: what a unit is said to leave open.
fn documented(unit: &str) -> f64 {
    let page = fs::read_to_string(root().join("docs/systemd.md")).unwrap();
    let row = page
        .lines()
        .find(|line| line.starts_with(&format!("| `{unit}.service` | ")));
    row.unwrap().split('|').nth(2).unwrap().trim().parse().unwrap()
}

mod needs_systemd {
    use super::*;

    fn is_within(unit: &str, threshold: u32) {
        let file = path(unit).display().to_string();
        let threshold = format!("--threshold={threshold}");
        let judged = analyze(&["security", "--offline=true", "--no-pager", &threshold, &file]);
        let said = said(&judged);
        assert!(judged.status.success(), "{said}");
        let (_, overall) = said.split_once("Overall exposure level for ").unwrap();
        let score: f64 = overall.split_whitespace().nth(1).unwrap().parse().unwrap();
        // Other versions weigh more and other points.
        if self::said(&analyze(&["--version"])).starts_with("systemd 252 ") {
            assert!(
                (score - documented(unit)).abs() < 0.01,
                "{unit}: {score}: say so in docs/systemd.md"
            );
        }
    }

    fn says_what_is_open(unit: &str) {
        let file = path(unit).display().to_string();
        let judged = analyze(&["security", "--offline=true", "--json=short", &file]);
        let points: Vec<Value> = serde_json::from_slice(&judged.stdout).unwrap();
        assert!(points.len() > 50, "{}", said(&judged));
        let (_, comments) = read(unit);
        for point in points.iter().filter(|point| point["set"] == false) {
            let name = name_of(point["name"].as_str().unwrap());
            assert!(comments.contains(name), "{unit} does not say why {name} is open");
        }
    }

    #[test]
    #[ignore = "needs systemd: `.ci/step units` runs it"]
    fn the_server_is_shut_but_for_the_network() {
        is_within("signet-server", 20);
        says_what_is_open("signet-server");
    }

    #[test]
    #[ignore = "needs systemd: `.ci/step units` runs it"]
    fn the_agent_of_processes_is_shut_but_for_the_network_and_a_look_at_them() {
        is_within("signet-agent", 30);
        says_what_is_open("signet-agent");
    }

    #[test]
    #[ignore = "needs systemd: `.ci/step units` runs it"]
    fn the_agent_of_pods_is_as_shut_as_mounts_allow() {
        is_within("signet-agent-csi", 45);
        says_what_is_open("signet-agent-csi");
    }

    #[test]
    #[ignore = "needs systemd: `.ci/step units` runs it"]
    fn the_writer_of_files_is_shut_but_for_a_signal_to_the_program() {
        is_within(SAMPLE, 10);
        says_what_is_open(SAMPLE);
    }
}

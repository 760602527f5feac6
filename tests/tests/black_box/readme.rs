//! What the README shows of one terminal is what the programs answer while `signet-dev` runs in another.

use std::{collections::BTreeSet, fs, path::Path};

use signet_tests::{
    process::{Process, binary, run},
    repository::root,
    wait::eventually,
};

/// Sections whose examples are typed as they stand.
const SECTIONS: [&str; 2] = ["### Rotate a CA key", "### Revoke an identity"];

/// Commands, each with the lines that are shown below it.
fn examples(readme: &str, section: &str) -> Vec<(String, String)> {
    let (_, text) = readme.split_once(&format!("{section}\n")).expect(section);
    let text = text.split("\n#").next().unwrap_or_default();
    let blocks = text.split("```").skip(1).step_by(2);
    let mut all: Vec<(String, String)> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        if let Some(command) = line.strip_prefix("$ ") {
            all.push((command.to_owned(), String::new()));
        } else if let Some((_, shown)) = all.last_mut() {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    all
}

/// What is said on the way, as often as there is something new.
const ON_THE_WAY: [&str; 4] = ["spreading ", "draining ", "leaving ", "reported by "];

/// Without what differs from one time to the next: ids, numbers, times. What ends it, and what is said on the way.
fn plain(text: &str) -> (Vec<String>, BTreeSet<String>) {
    let word = |word: &str| {
        let differs = word.contains(|c: char| c.is_ascii_digit());
        if differs { "#".to_owned() } else { word.to_owned() }
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    let (mut said, mut on_the_way) = (Vec::new(), BTreeSet::new());
    for text in text.lines().filter(|text| !text.trim().is_empty()) {
        if ON_THE_WAY.iter().any(|begins| text.starts_with(begins)) {
            // Whoever is waited for, and why, is the moment's.
            on_the_way.insert(line(text.split("; wait").next().unwrap_or(text)));
        } else {
            said.push(line(text));
        }
    }
    (said, on_the_way)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_shows_is_what_is_answered() {
    let folder = tempfile::tempdir_in(signet_testkit::machine::short_parent()).unwrap();
    let program = binary("signet-dev");
    let args = [Path::new("--dir"), folder.path()];
    let mut dev = Process::start("signet-dev", &program, args, &[]).unwrap();
    let env = folder.path().join("env");
    eventually("signet-dev to run", async || env.exists().then_some(())).await;
    let programs = binary("signet-server").parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for section in SECTIONS {
        let all = examples(&readme, section);
        assert!(!all.is_empty(), "{section}");
        for (command, shown) in all {
            let script = format!(". {}; {{ {command}; }} 2>&1", env.display());
            let answer = run(Path::new("/bin/sh"), ["-c", &script], &[("PATH", &path)]).await;
            let answer = answer.unwrap().stdout;
            let ((said, way), (expected, shown)) = (plain(&answer), plain(&shown));
            assert_eq!(said, expected, "$ {command}\n{answer}");
            assert!(way.is_subset(&shown), "$ {command}\n{answer}");
        }
    }
    dev.stop().await.unwrap();
}

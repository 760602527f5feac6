//! One list of steps: what CI runs stands in `.ci/step`, `.ci/run` calls it in order and the justfile by name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signet_tests::repository::{root, rust_files};
use tempfile::TempDir;

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The steps in order, each with its minutes.
fn steps() -> Vec<(String, u32)> {
    let output = Command::new("bash")
        .args([".ci/step", "--list"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let line = |line: &str| {
        let (name, minutes) = line.split_once(' ').unwrap();
        (name.to_owned(), minutes.parse().unwrap())
    };
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(line)
        .collect()
}

/// What follows `before` in the lines that begin with it.
fn after<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    text.lines()
        .filter_map(|line| line.strip_prefix(before))
        .collect()
}

#[test]
fn the_steps_the_run_and_the_justfile_agree() {
    let steps = steps();
    let names: BTreeSet<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), steps.len(), "a step stands twice");
    assert!(
        steps.iter().all(|(_, minutes)| (1..=12).contains(minutes)),
        "{steps:?}"
    );

    let step = text(".ci/step");
    let held: BTreeSet<String> = after(&step, "step_")
        .iter()
        .map(|rest| rest[..rest.find("()").unwrap()].replace('_', "-"))
        .collect();
    assert_eq!(
        held.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        names,
        "held by .ci/step"
    );

    let recipes = text("justfile");
    assert_eq!(after(&recipes, "    .ci/step "), names, "called by the justfile");
    for name in names {
        assert!(
            recipes.contains(&format!("\n{name}:\n    .ci/step {name}\n")),
            "the recipe of `{name}` bears its name"
        );
    }

    let run = text(".ci/run");
    assert!(
        run.contains("steps=$(.ci/step --list)")
            && run.contains("bash -c 'set -o pipefail; .ci/step \"$1\" | ")
    );
}

#[test]
fn no_command_stands_twice() {
    let commands = |path: &str| -> BTreeSet<String> {
        let tools = ["cargo ", "rustup ", "tests/"];
        let text = text(path);
        let called = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        called
            .filter(|line| tools.iter().any(|tool| line.contains(tool)))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(commands(".ci/run"), BTreeSet::new(), "steps are held by .ci/step");
    let both: Vec<String> = commands(".ci/step")
        .intersection(&commands("justfile"))
        .cloned()
        .collect();
    assert_eq!(both, [] as [&str; 0]);
}

/// `.ci/step` asks the fuzz crates for their targets; so each must be in its crate's list, and nowhere else.
#[test]
fn every_fuzz_target_is_listed_by_its_crate_alone() {
    let mut crates = BTreeSet::new();
    for file in rust_files().unwrap() {
        let Some((fuzz, target)) = file.path.split_once("/fuzz_targets/") else {
            continue;
        };
        let target = target.trim_end_matches(".rs");
        let manifest = text(&format!("{fuzz}/Cargo.toml"));
        assert!(
            manifest.contains(&format!("\n[[bin]]\nname = \"{target}\"\n")),
            "{} is not built",
            file.path
        );
        for path in [".ci/step", ".ci/run", "justfile"] {
            let text = text(path);
            let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            // `id` is also the program that says who runs this.
            assert!(
                words.all(|word| word != target || word == "id"),
                "{path} names {target}"
            );
        }
        crates.insert(fuzz.to_owned());
    }
    for fuzz in crates {
        assert!(
            root().join(&fuzz).join("Cargo.lock").exists(),
            "{fuzz} has no lock file"
        );
        assert!(
            fuzz.ends_with("/fuzz") && fuzz.split('/').count() == 2,
            "`*/fuzz` does not find {fuzz}"
        );
    }
}

/// A repository with this run, and steps that are played.
fn played(list: &str, steps: &str) -> TempDir {
    let dir = signet_testkit::folder();
    let ci = dir.path().join(".ci");
    fs::create_dir(&ci).unwrap();
    fs::copy(root().join(".ci/run"), ci.join("run")).unwrap();
    let step = format!("#!/bin/bash\ncase $1 in --list) {list} ;;\n{steps}\nesac\n");
    fs::write(ci.join("step"), step).unwrap();
    fs::set_permissions(ci.join("step"), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn start(dir: &TempDir) -> Child {
    Command::new("bash")
        .arg(".ci/run")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child) -> (Option<i32>, String) {
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

#[test]
fn a_run_goes_on_after_a_failure_and_says_how_each_step_ended() {
    let dir = played(
        "echo 'a 1'; echo 'b 1'; echo 'c 1'; echo 'd 0.001'; echo 'e 1'",
        "a) exit 3 ;; b) echo 'skipped: no moon'; exit 77 ;; c) read -r line || echo 'nobody answers' ;; d) sleep 60 ;; e) ;;",
    );
    let (status, output) = end(start(&dir));
    assert_eq!(status, Some(1), "{output}");
    let lines: Vec<String> = output
        .lines()
        .map(|line| line.replace(" in 1 s", " in 0 s"))
        .collect();
    assert_eq!(
        lines,
        [
            "== a",
            "== a: FAILED: status 3 after 0 s",
            "== b",
            "skipped: no moon",
            "== b: skipped",
            "== c",
            "nobody answers",
            "== c: ok in 0 s",
            "== d",
            "== d: FAILED: it may take 0.001 min",
            "== e",
            "== e: ok in 0 s",
            "skipped: b",
            "failed: a d",
        ]
    );
}

#[test]
fn a_run_succeeds_when_no_step_fails_and_not_without_a_list() {
    let (status, output) = end(start(&played("echo 'a 1'; echo 'b 1'", "a) ;; b) exit 77 ;;")));
    assert_eq!((status, output.lines().last()), (Some(0), Some("no step failed")));
    assert_eq!(end(start(&played("exit 1", ""))).0, Some(1));
    assert_eq!(end(start(&played(":", ""))).0, Some(1));
}

#[test]
fn a_run_names_the_tests_that_no_step_has_run_and_why() {
    let dir = played(
        "echo 'a 1'; echo 'b 1'",
        "a) echo 'test x::moon ... ignored, needs the moon'; echo 'test x::sun ... ignored, needs the sun'; echo 'test x::air ... ok';;
         b) echo 'test x::sun ... ok'; echo 'test y - z (line 3) ... ignored' ;;",
    );
    let (status, output) = end(start(&dir));
    assert_eq!(status, Some(0), "{output}");
    let named = "ignored, and run by no step:\n  x::moon, needs the moon\n  y - z (line 3)\nno step failed\n";
    assert!(output.ends_with(named), "{output}");
}

#[test]
fn who_interrupts_a_run_ends_its_step() {
    let dir = played("echo 'a 1'", "a) echo started; sleep 60; echo never ;;");
    let mut run = start(&dir);
    let mut output = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    while line != "started\n" {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the step did not start");
    }
    kill(Pid::from_raw(run.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    // The end of the output is the end of everyone who could write to it.
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "interrupted\n");
    assert_eq!(run.wait().unwrap().code(), Some(143));
}

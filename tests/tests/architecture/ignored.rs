//! What was not tried is reported as ignored, never as ok: a test that this machine may not let run has `#[ignore = "needs …"]`, which also
//! names who runs it; and whoever names a step is run by it.

use std::fs;

use signet_tests::repository::{SourceFile, root, rust_files};

use crate::tokens::tokens;

/// One test of a file.
#[derive(Debug, PartialEq)]
pub(crate) struct Test<'a> {
    /// With the modules of the file, as filters see it.
    pub(crate) name: String,
    /// The reason; empty where there is none.
    pub(crate) ignored: Option<&'a str>,
    body: Vec<&'a str>,
}

/// The tests of a file, as rustfmt lays them out.
pub(crate) fn tests_of(SourceFile { path, text }: &SourceFile) -> Vec<Test<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let outer = |at: usize| {
        let inline = lines[..at].iter().enumerate().filter_map(|(from, line)| {
            let name = line.trim_start().strip_prefix("mod ")?.strip_suffix(" {")?;
            let end = end_of_block(&lines, from);
            (end > at).then_some(name)
        });
        inline.collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let attribute = line.trim_start();
        if !attribute.starts_with("#[test]") && !attribute.starts_with("#[tokio::test") {
            continue;
        }
        let Some(head) = (at..lines.len()).find(|at| lines[*at].contains("fn ")) else {
            continue;
        };
        let (_, name) = lines[head].split_once("fn ").unwrap();
        let attributes = lines[at..head].iter().map(|line| line.trim_start());
        let ignored = attributes.filter_map(|line| line.strip_prefix("#[ignore"));
        let mut parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
        parts.extend(outer(at));
        parts.push(name.split(['(', '<']).next().unwrap());
        found.push(Test {
            name: parts.join("::"),
            ignored: ignored.map(|rest| rest.split('"').nth(1).unwrap_or("")).next(),
            body: lines[head + 1..end_of_block(&lines, head)].to_vec(),
        });
    }
    found
}

/// The line that closes what a line opens.
fn end_of_block(lines: &[&str], from: usize) -> usize {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let closes = |line: &str| line.trim() == "}" && depth(line) == depth(lines[from]);
    (from..lines.len())
        .find(|at| closes(lines[*at]))
        .unwrap_or(lines.len())
}

/// The commands of a step of `.ci/step`; `None` when there is no such step.
fn commands<'a>(steps: &'a str, name: &str) -> Option<&'a str> {
    let head = format!("\nstep_{}() {{", name.replace('-', "_"));
    let (_, body) = steps.split_once(&head)?;
    body.split("\n}").next()
}

/// Whether these commands run a test that is ignored: by target, and by filter when there are filters. Scripts of others are believed.
fn runs(commands: &str, test: &str) -> bool {
    match commands.matches("cargo test ").count() {
        0 => return true,
        1 => {}
        // Each by what it has for itself.
        _ => {
            let mut each = commands.split("cargo test ").skip(1);
            return each.any(|command| runs(&format!("cargo test {command}"), test));
        }
    }
    let words: Vec<&str> = commands
        .split(|c: char| c.is_whitespace() || "()\"".contains(c))
        .collect();
    let after = |flag: &str| {
        words
            .windows(2)
            .filter_map(move |two| (two[0] == flag).then_some(two[1]))
            .collect::<Vec<_>>()
    };
    let targets = after("--test");
    let by_target = targets.is_empty()
        || targets
            .iter()
            .any(|target| test.contains(&format!("::{target}::")));
    let is_filter = |word: &&str| word.ends_with("::") && !word.contains(['*', '$']);
    let mut filters: Vec<&str> = words.iter().copied().filter(|word| is_filter(word)).collect();
    let is_name = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    filters.extend(after("--ignored").into_iter().filter(is_name));
    by_target && (filters.is_empty() || filters.iter().any(|filter| test.contains(filter)))
}

/// What is wrong with the reason that a test is ignored for.
fn problem(name: &str, reason: &str, steps: &str) -> Option<String> {
    let by_another = ["run by the test", "started by the test"];
    if by_another.iter().any(|way| reason.contains(way))
        || reason.contains("cargo test ")
        || reason.contains("just ")
    {
        return None;
    }
    let Some((_, rest)) = reason.split_once("`.ci/step ") else {
        return Some(format!("{name} does not say who runs it: {reason:?}"));
    };
    let step = rest.split('`').next().unwrap_or_default();
    match commands(steps, step) {
        None => Some(format!("{name} names the step {step}, which is not there")),
        Some(commands) if !runs(commands, name) => {
            Some(format!("{name} is not run by the step {step} that it names"))
        }
        Some(_) => None,
    }
}

fn all_tests() -> Vec<(String, Option<String>, Vec<String>)> {
    let mut all = Vec::new();
    for file in rust_files().unwrap() {
        all.extend(tests_of(&file).into_iter().map(|test| {
            let body = test.body.iter().map(|line| (*line).to_owned()).collect();
            (test.name, test.ignored.map(str::to_owned), body)
        }));
    }
    all
}

#[test]
fn whoever_is_ignored_is_run_by_somebody() {
    let steps = fs::read_to_string(root().join(".ci/step")).unwrap();
    let all = all_tests();
    assert!(all.len() > 1000, "{} tests were found", all.len());
    let ignored = all
        .iter()
        .filter_map(|(name, reason, _)| Some((name, reason.as_ref()?)));
    let problems: Vec<String> = ignored
        .filter_map(|(name, reason)| problem(name, reason, &steps))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The first line of a body that ends a test before it has tried anything, or says that it was not tried.
fn early(body: &str) -> Option<usize> {
    let words = tokens(body);
    let texts: Vec<&str> = words.iter().map(|word| word.text).collect();
    let ways: [&[&str]; 4] = [
        &["return", ";"],
        &["return", "}"],
        &["return", "Ok", "(", "(", ")", ")"],
        &["skipped", "("],
    ];
    let at = (0..texts.len()).find(|at| ways.iter().any(|way| texts[*at..].starts_with(way)))?;
    Some(words[at].line)
}

#[test]
fn no_test_ends_early_and_is_ok() {
    for (name, _, body) in all_tests() {
        let found = early(&body.join("\n"));
        assert_eq!(
            found, None,
            "{name}, this line of its body: what a machine lacks is a reason to be ignored, not to be ok"
        );
    }
    assert_eq!(early("a();\nif x {\n    return;\n}"), Some(3));
    assert_eq!(early("let Some(x) = y else { return };"), Some(1));
    assert_eq!(early("return Ok(());"), Some(1));
    assert_eq!(early("return skipped(\"x\");"), Some(1));
    assert_eq!(early("say(\"return;\");\nlet f = || { return 5; };"), None);
}

#[test]
fn tests_and_those_who_run_them_are_found() {
    let file = SourceFile {
        path: "tests/tests/black_box/disk.rs".to_owned(),
        text: "mod other {\n}\nmod needs_root {\n    #[tokio::test]\n    #[ignore = \"needs root: `.ci/step a-b` runs it\"]\n    \
               async fn full() {\n        return;\n    }\n}\n#[test]\n#[ignore]\nfn bare() {\n}\n"
            .to_owned(),
    };
    let found = tests_of(&file);
    assert_eq!(found.len(), 2);
    let full = "tests::tests::black_box::disk::needs_root::full";
    assert_eq!(
        (found[0].name.as_str(), found[0].body.as_slice()),
        (full, ["        return;"].as_slice())
    );
    assert_eq!(
        (found[1].name.as_str(), found[1].ignored),
        ("tests::tests::black_box::disk::bare", Some(""))
    );

    let steps = |body: &str| format!("\nstep_a_b() {{\n  {body}\n}}\nstep_c() {{\n}}\n");
    let reason = found[0].ignored.unwrap();
    for (body, is_run) in [
        ("cargo test --test black_box -- --ignored", true),
        ("cargo test --test black_box -- --ignored full", true),
        ("cargo test --test black_box -- --ignored clock:: disk::", true),
        (
            "local tests=(needs_root::)\n  cargo test -- --ignored \"${tests[@]}\"",
            true,
        ),
        ("tests/run.sh", true),
        ("cargo test --test life -- --ignored", false),
        ("cargo test --test black_box -- --ignored clock::", false),
        ("cargo test --test black_box -- --ignored empty", false),
    ] {
        assert_eq!(problem(full, reason, &steps(body)).is_none(), is_run, "{body}");
    }
    for reason in ["", "needs the moon", "needs the moon: `.ci/step moon` runs it"] {
        assert!(problem(full, reason, &steps("true")).is_some(), "{reason}");
    }
    assert_eq!(problem(full, "minutes: cargo test --workspace -- full", ""), None);
    assert_eq!(problem(full, "run by the test above", ""), None);
}

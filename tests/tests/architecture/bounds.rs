//! Every constant that bounds a caller has its row in the table of limits.

use signet_tests::repository::rust_files;

/// The types of such constants.
const TYPES: [&str; 3] = [": Rate = ", ": Division = ", ": Limits = "];

/// Constants of these types that no row names, and why.
const WITHOUT: [(&str, &str, &str); 6] = [
    (
        "agent/src/write/publisher/pace.rs",
        "RATE",
        "it bounds how often a set is written for whoever started `write`, who is no caller",
    ),
    (
        "server/src/store/budget.rs",
        "WORKLOAD",
        "made of the two numbers that the row tells",
    ),
    (
        "server/src/audit/sampler.rs",
        "WRITTEN",
        "it bounds what is written of a caller, not what he may do",
    ),
    (
        "server/src/api/agent/sync.rs",
        "OTHER_REASONS",
        "it bounds what is sent to an agent of the server's own accord",
    ),
    (
        "server/src/live_rules/owner.rs",
        "JUDGED",
        "it bounds how often the configuration file is judged, which no caller writes",
    ),
    (
        "server/src/live_rules/owner.rs",
        "EDITS",
        "it bounds how often admins move agents by their rules, whoever of them it is",
    ),
];

/// What the functions say that make rows: those that return some.
fn makes_rows(text: &str) -> String {
    let begins = |line: &str| line.contains("fn ") && line.contains("Limit") && line.contains("->");
    let mut found = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if begins(line) {
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            for line in lines.by_ref().take_while(|line| *line != end) {
                found.push_str(line);
                found.push('\n');
            }
        }
    }
    found
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|found| found == word)
}

#[test]
fn every_bound_of_a_caller_has_a_row() {
    let files = rust_files().unwrap();
    let mut faults = Vec::new();
    let mut seen = 0;
    for name in ["server", "agent"] {
        let of_crate: Vec<_> = files
            .iter()
            .filter(|file| file.path.starts_with(&format!("{name}/src/")))
            .collect();
        let rows: String = of_crate.iter().map(|file| makes_rows(&file.text)).collect();
        for file in of_crate {
            let program = file
                .text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default();
            for line in program.lines() {
                let Some(of_type) = TYPES.iter().find(|of_type| line.contains(**of_type)) else {
                    continue;
                };
                let Some((_, constant)) = line
                    .split(of_type)
                    .next()
                    .unwrap_or_default()
                    .rsplit_once("const ")
                else {
                    continue;
                };
                seen += 1;
                let excepted = WITHOUT
                    .iter()
                    .any(|(path, known, _)| (*path, *known) == (file.path.as_str(), constant));
                if excepted == has_word(&rows, constant) {
                    faults.push(format!("{}: {constant}", file.path));
                }
            }
        }
    }
    assert!(seen > 10, "only {seen} constants: what do they look like?");
    assert!(
        faults.is_empty(),
        "no row of the table of limits is made from these, or they need no line in WITHOUT: {faults:#?}"
    );
}

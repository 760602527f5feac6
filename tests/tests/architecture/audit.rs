//! What the audit log can say is said somewhere: a line that nobody writes is a promise that nobody keeps.

use std::collections::BTreeSet;

use signet_tests::repository::{SourceFile, rust_files};

use crate::tokens::{Token, shipped, tokens};

const EVENTS: &str = "server/src/audit_event.rs";
/// What lines say that have no variant: the store renders the first from its ledger, the emitter signs the second.
const NO_VARIANT: [&str; 2] = ["issued", "head"];
/// What every line begins with (`server/src/audit/line.rs`), and what every event has.
const CHAIN: [&str; 6] = ["server", "boot", "sequence", "previous", "time", "event"];

/// The variants of `enum AuditAction`.
fn variants(text: &str) -> Vec<&str> {
    let words: Vec<&str> = tokens(text).iter().map(|token| token.text).collect();
    let begin = words
        .windows(3)
        .position(|three| three == ["enum", "AuditAction", "{"]);
    let (mut found, mut depth) = (Vec::new(), 0);
    for pair in words[begin.expect("the enum has moved") + 2..].windows(2) {
        match pair {
            ["{" | "(" | "[", _] => depth += 1,
            ["}" | ")" | "]", _] => depth -= 1,
            [name, "{"] if depth == 1 => found.push(*name),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// Whether a value of this variant is made, not only matched: a pattern has `=`, `|` or `if` behind it, or leaves fields out.
fn is_made(words: &[Token<'_>], variant: &str) -> bool {
    let words: Vec<&str> = words.iter().map(|token| token.text).collect();
    let starts = words
        .windows(4)
        .enumerate()
        .filter(|(_, four)| *four == ["AuditAction", "::", variant, "{"]);
    starts.map(|(at, _)| &words[at + 3..]).any(|rest| {
        let mut depth = 0;
        let end = rest.iter().position(|word| {
            depth += match *word {
                "{" => 1,
                "}" => -1,
                _ => 0,
            };
            depth == 0
        });
        end.is_some_and(|end| {
            let leaves_out = rest[..end].windows(2).any(|two| two == [".", "."]);
            !leaves_out && !matches!(rest.get(end + 1), Some(&("=" | "|" | "if")))
        })
    })
}

#[test]
fn every_kind_of_audit_line_is_written_by_something_that_ships() {
    let files = rust_files().unwrap();
    let events = files.iter().find(|file| file.path == EVENTS).expect(EVENTS);
    let variants = variants(&events.text);
    assert!(variants.len() > 10, "{variants:?}");
    let ours = |file: &&SourceFile| file.path.starts_with("server/src/") && !file.path.ends_with("/tests.rs");
    let shipped: Vec<Vec<Token<'_>>> = files
        .iter()
        .filter(ours)
        .map(|file| shipped(&file.text))
        .collect();
    let unwritten: Vec<&str> = variants
        .into_iter()
        .filter(|variant| !shipped.iter().any(|words| is_made(words, variant)))
        .collect();
    assert!(
        unwritten.is_empty(),
        "nothing writes {unwritten:?}: write it, or take it out of {EVENTS}"
    );
}

/// `NodeAttested` is `node_attested` in the log.
fn in_the_log(variant: &str) -> String {
    let mut name = String::new();
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// What a test says that it has provoked, by asserting that the log has it.
fn provoked(text: &str) -> Vec<String> {
    let dense: String = text.split_whitespace().collect();
    let calls = dense.split("provoked(\"").skip(1);
    calls
        .filter_map(|rest| rest.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_kind_of_audit_line_is_provoked_by_a_test() {
    let files = rust_files().unwrap();
    let events = files.iter().find(|file| file.path == EVENTS).expect(EVENTS);
    let mut known: Vec<String> = variants(&events.text).into_iter().map(in_the_log).collect();
    known.extend(NO_VARIANT.map(str::to_owned));
    let of_tests = files
        .iter()
        .filter(|file| !file.path.ends_with("architecture/audit.rs"));
    let found: BTreeSet<String> = of_tests.flat_map(|file| provoked(&file.text)).collect();
    let missing: Vec<&String> = known.iter().filter(|name| !found.contains(*name)).collect();
    assert!(
        missing.is_empty(),
        "no test provokes {missing:?}: one that does says `provoked(\"…\", &lines)` (testkit/src/audit.rs), best in tests/tests/life/audited.rs"
    );
    let strangers: Vec<&String> = found.iter().filter(|name| !known.contains(name)).collect();
    assert!(
        strangers.is_empty(),
        "{strangers:?} are in no line of the audit log"
    );
}

/// JSON readers go by the last of two members of one name, and the first places the line in the chain.
#[test]
fn no_action_has_a_member_of_the_chain() {
    let files = rust_files().unwrap();
    let events = files.iter().find(|file| file.path == EVENTS).expect(EVENTS);
    let actions = events.text.split_once("enum AuditAction").unwrap().1;
    let lines: Vec<&str> = actions.lines().collect();
    for two in lines.windows(2) {
        let member = two[1]
            .strip_prefix("        ")
            .and_then(|rest| rest.split_once(':'));
        let is_taken = member.is_some_and(|(name, _)| CHAIN.contains(&name));
        assert!(
            !is_taken || two[0].contains("rename = "),
            "{}: give it another name in the log",
            two[1]
        );
    }
}

#[test]
fn calls_are_found_however_they_are_broken_into_lines() {
    assert_eq!(provoked("provoked(\n    \"a_b\",\n    &lines)"), ["a_b"]);
    assert_eq!(provoked("provoked(name, &lines)"), [""; 0]);
    assert_eq!(in_the_log("NodeAttested"), "node_attested");
}

#[test]
fn a_pattern_makes_nothing() {
    let made = |text: &str| is_made(&tokens(text), "Refused");
    assert!(made(
        "record(AuditAction::Refused { caller, kind: \"x\", inner: Inner { a } })"
    ));
    assert!(made("let action = AuditAction::Refused {};"));
    assert!(!made(
        "let AuditAction::Refused { caller, .. } = action else { return };"
    ));
    assert!(!made("match action { AuditAction::Refused { caller } => {} }"));
}

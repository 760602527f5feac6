//! What the audit log can say is said somewhere: a line that nobody writes is a promise that nobody keeps.

use signet_tests::repository::{SourceFile, rust_files};

use crate::tokens::{Token, shipped, tokens};

const EVENTS: &str = "server/src/audit_event.rs";

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

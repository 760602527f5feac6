//! The form of docs/adr: whoever opens a decision anew finds when it was taken, whether it holds, and what was turned down.

use std::fs;

use signet_tests::repository::{SourceFile, root, text_files};

const FOLDER: &str = "docs/adr/";
const INDEX: &str = "docs/adr/README.md";
/// The parts of a page, in this order.
const PARTS: [&str; 4] = ["Context", "Decision", "Alternatives", "Consequences"];

/// What is wrong with a page, or its line in the index.
fn judged(path: &str, text: &str) -> Result<String, String> {
    let file = path.trim_start_matches(FOLDER);
    let mut lines = text.lines();
    let title = lines
        .next()
        .unwrap_or_default()
        .strip_prefix("# ")
        .unwrap_or_default();
    let (number, title) = title.split_once(' ').unwrap_or_default();
    let is_number = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || !file.starts_with(&format!("{number}-")) || title.is_empty() {
        return Err(format!(
            "{path} begins with `# 0000 What was decided`, and the number is the file's"
        ));
    }
    let dated = lines.next().and_then(date_and_status);
    let (date, status) = dated.ok_or_else(|| {
        format!("{path}: the second line is `Date: 2026-01-31. Status: accepted.`; `, amended DATE` or `superseded by 0000` may follow")
    })?;
    let mut from = 0;
    for part in PARTS {
        let head = format!("\n**{part}.**");
        let at = text[from..]
            .find(&head)
            .ok_or_else(|| format!("{path} has no `**{part}.**`, or not in its place: {PARTS:?}"))?;
        from += at + head.len();
        let said = text[from..].split("\n\n**").next().unwrap_or_default();
        if said.trim().len() < 40 || text[from..].contains(&head) {
            return Err(format!("{path}: `**{part}.**` says something, and once"));
        }
    }
    Ok(format!("| [{number}]({file}) | {title} | {date} | {status} |"))
}

fn date_and_status(line: &str) -> Option<(&str, &str)> {
    let (date, status) = line
        .strip_prefix("Date: ")?
        .strip_suffix('.')?
        .split_once(". Status: ")?;
    let (verdict, amended) = status.split_once(", amended ").unwrap_or((status, date));
    let verdict_is_known = match verdict.strip_prefix("superseded by ") {
        Some(number) => number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()),
        None => ["accepted", "proposed", "rejected"].contains(&verdict),
    };
    (verdict_is_known && is_date(date) && is_date(amended)).then_some((date, status))
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [4, 2, 2]
        && parts
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[test]
fn every_decision_has_its_form_and_stands_in_the_list() {
    let files = text_files().unwrap().into_iter();
    let is_page = |file: &SourceFile| file.path.starts_with(FOLDER) && file.path != INDEX;
    let judged: Vec<_> = files
        .filter(is_page)
        .map(|file| judged(&file.path, &file.text))
        .collect();
    let wrong: Vec<&String> = judged.iter().filter_map(|page| page.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let lines: Vec<&String> = judged.iter().filter_map(|page| page.as_ref().ok()).collect();
    let index = fs::read_to_string(root().join(INDEX)).unwrap();
    let listed: Vec<&str> = index.lines().filter(|line| line.starts_with("| [")).collect();
    assert_eq!(listed, lines, "the list in {INDEX}");
    for (number, line) in (1..).zip(&lines) {
        assert!(
            line.starts_with(&format!("| [{number:04}]")),
            "a number is missing, or taken twice, before {line}"
        );
    }
}

#[test]
fn a_decision_without_its_form_is_refused() {
    let body = "**Context.** C\n\n**Decision.** D\n\n**Alternatives.** A\n\n**Consequences.** E\n"
        .replace(" C\n", " What pressed, in a sentence that is long enough.\n")
        .replace(" D\n", " What was decided, in a sentence that is long enough.\n")
        .replace(
            " A\n",
            " What was turned down and why, in a long enough sentence.\n",
        )
        .replace(
            " E\n",
            " What follows from it, in a sentence that is long enough.\n",
        );
    let page = |title: &str, second: &str, body: &str| {
        judged("docs/adr/0007-x.md", &format!("# {title}\n{second}\n\n{body}"))
    };
    let good = "Date: 2026-01-31. Status: accepted.";
    assert_eq!(
        page("0007 X", good, &body).unwrap(),
        "| [0007](0007-x.md) | X | 2026-01-31 | accepted |"
    );
    for second in [
        "Date: 2026-01-31. Status: accepted, amended 2026-02-01.",
        "Date: 2026-01-31. Status: superseded by 0008.",
    ] {
        page("0007 X", second, &body).unwrap();
    }
    for second in [
        "",
        "2026-01-31, in force.",
        "Date: 31.1.2026. Status: accepted.",
        "Date: 2026-01-31. Status: superseded by X.",
        "Date: 2026-01-31.",
    ] {
        page("0007 X", second, &body).unwrap_err();
    }
    page("0008 X", good, &body).unwrap_err();
    page("7 X", good, &body).unwrap_err();
    for part in PARTS {
        page("0007 X", good, &body.replace(part, "Other")).unwrap_err();
    }
    page(
        "0007 X",
        good,
        &body.replace(
            "What was turned down and why, in a long enough sentence.",
            "None.",
        ),
    )
    .unwrap_err();
    page("0007 X", good, &format!("{body}{body}")).unwrap_err();
}

//! `docs/conformance.md` says of every requirement which tests check it. This keeps the page true: tests name the
//! requirements they check in their doc comments, `Covers X509-06, BC-08.`, and page and comments must agree.
//! `SIGNET_UPDATE_CONFORMANCE=1` rewrites the third column from the comments.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use signet_tests::repository::{SourceFile, root, rust_files};

const PAGE: &str = "docs/conformance.md";
const UPDATE: &str = "SIGNET_UPDATE_CONFORMANCE=1 cargo test -p signet-tests --test conformance";
const DOES_NOT_APPLY: &str = "does not apply: ";
const LATER: &str = "later: ";

/// The families of requirements, and how many each has.
const FAMILIES: [(&str, usize); 31] = [
    ("INV", 16),
    ("ID", 25),
    ("X509", 20),
    ("CA", 16),
    ("VAL", 17),
    ("JWT", 24),
    ("WIT", 22),
    ("BND", 23),
    ("MAP", 4),
    ("FED", 31),
    ("EP", 29),
    ("API", 17),
    ("X5S", 15),
    ("X5B", 5),
    ("JWS", 9),
    ("JWB", 8),
    ("VJS", 8),
    ("WTS", 5),
    ("WTB", 3),
    ("BRE", 9),
    ("BRK", 20),
    ("SDS", 13),
    ("CRL", 37),
    ("RS", 15),
    ("BI", 20),
    ("BC", 16),
    ("BT", 13),
    ("BJ", 25),
    ("BG", 24),
    ("BB", 8),
    ("BD", 21),
];

/// Tests by the requirement they cover.
type Coverage = BTreeMap<String, BTreeSet<String>>;

/// One row of the page.
#[derive(Debug, PartialEq)]
struct Row<'a> {
    id: &'a str,
    asks: &'a str,
    verdict: &'a str,
}

/// What the third column says.
#[derive(Debug, Default, PartialEq)]
struct Verdict {
    tests: BTreeSet<String>,
    does_not_apply: Option<String>,
    later: Option<String>,
}

#[test]
fn the_page_and_the_tests_agree() {
    let coverage = coverage(&rust_files().unwrap()).unwrap();
    let path = root().join(PAGE);
    let mut page = fs::read_to_string(&path).unwrap();
    if std::env::var_os("SIGNET_UPDATE_CONFORMANCE").is_some() {
        page = updated(&page, &coverage);
        fs::write(&path, &page).unwrap();
    }
    let problems = problems(&page, &coverage);
    assert!(
        problems.is_empty(),
        "{PAGE} and the tests disagree:\n{}\n\nTo write the third column anew: {UPDATE}",
        problems.join("\n")
    );
}

/// Whether `id` is a requirement this project knows.
fn is_known(id: &str) -> bool {
    let Some((family, number)) = id.rsplit_once('-') else {
        return false;
    };
    let Ok(value) = number.parse::<usize>() else {
        return false;
    };
    FAMILIES
        .iter()
        .any(|(name, count)| *name == family && (1..=*count).contains(&value) && id == id_of(family, value))
}

fn id_of(family: &str, number: usize) -> String {
    if family == "INV" {
        format!("INV-{number}")
    } else {
        format!("{family}-{number:02}")
    }
}

/// Every `Covers …` of the doc comments, by requirement. The error is a comment that belongs to no function.
fn coverage(files: &[SourceFile]) -> Result<Coverage, String> {
    let mut coverage = Coverage::new();
    for file in files {
        let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
        let mut at = 0;
        while at < lines.len() {
            let doc: Vec<&str> = lines[at..]
                .iter()
                .map_while(|line| line.strip_prefix("///"))
                .collect();
            let ids = covered_ids(&doc.join(" "));
            at += doc.len().max(1);
            if ids.is_empty() {
                continue;
            }
            let function = function_after(&lines[at..])
                .ok_or_else(|| format!("{}:{at}: `Covers` stands before no function", file.path))?;
            let test = format!("{}::{function}", module_of(&file.path));
            for id in ids {
                coverage.entry(id).or_default().insert(test.clone());
            }
        }
    }
    Ok(coverage)
}

/// The ids behind every `Covers` of a doc comment.
fn covered_ids(doc: &str) -> Vec<String> {
    let looks_like_an_id = |word: &str| {
        word.split_once('-').is_some_and(|(family, number)| {
            family.starts_with(|c: char| c.is_ascii_uppercase())
                && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    doc.split("Covers ")
        .skip(1)
        .flat_map(|rest| {
            rest.split([',', ' ', '.'])
                .filter(|word| !word.is_empty())
                .take_while(|word| looks_like_an_id(word))
        })
        .map(str::to_owned)
        .collect()
}

/// The function that a doc comment belongs to: attributes stand between.
fn function_after<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let line = lines
        .iter()
        .take(12)
        .find(|line| line.starts_with("fn ") || line.contains(" fn "))?;
    let (_, name) = line.split_once("fn ")?;
    name.split(['(', '<', '!']).next()
}

/// `certs/src/csr/tests.rs` is `certs::csr`: the crate's folder and the parts of the path that say something.
fn module_of(path: &str) -> String {
    let path = path.strip_prefix("deploy/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let (package, rest) = path.split_once('/').unwrap_or((path, ""));
    let parts = rest
        .split('/')
        .filter(|part| !["src", "tests", "mod", "main", "lib"].contains(part));
    std::iter::once(package)
        .chain(parts)
        .collect::<Vec<_>>()
        .join("::")
}

/// The rows of all tables of the page.
fn rows(page: &str) -> impl Iterator<Item = Row<'_>> {
    page.lines().filter_map(row)
}

fn row(line: &str) -> Option<Row<'_>> {
    let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let mut cells = line.split(" | ");
    let row = Row {
        id: cells.next()?,
        asks: cells.next()?,
        verdict: cells.next()?,
    };
    (cells.next().is_none() && row.id != "id").then_some(row)
}

/// Reads the third column; the error says what is wrong with it.
fn verdict(cell: &str) -> Result<Verdict, String> {
    let mut verdict = Verdict::default();
    let reason = |text: &str| {
        let text = text.trim();
        if text.len() > 2 {
            Ok(Some(text.to_owned()))
        } else {
            Err("gives no reason".to_owned())
        }
    };
    if let Some(text) = cell.strip_prefix(DOES_NOT_APPLY) {
        verdict.does_not_apply = reason(text)?;
        return Ok(verdict);
    }
    let separator = format!("; {LATER}");
    let (tests, later) = match cell.strip_prefix(LATER) {
        Some(later) => ("", Some(later)),
        None => match cell.split_once(&separator) {
            Some((tests, later)) => (tests, Some(later)),
            None => (cell, None),
        },
    };
    if let Some(later) = later {
        verdict.later = reason(later)?;
    }
    for quoted in tests
        .split(", ")
        .filter(|name| later.is_none() || !name.is_empty())
    {
        let name = quoted.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
        let name = name.filter(|name| name.contains("::"));
        let name = name.ok_or_else(|| {
            format!("says neither tests nor `{DOES_NOT_APPLY}reason` nor `{LATER}which part`: {cell:?}")
        })?;
        if !verdict.tests.insert(name.to_owned()) {
            return Err(format!("names {name} twice"));
        }
    }
    Ok(verdict)
}

/// Everything in which page and tests disagree, with the line to write.
fn problems(page: &str, coverage: &Coverage) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for row in rows(page) {
        if !is_known(row.id) {
            problems.push(format!(
                "the page lists {}, which is no known requirement",
                row.id
            ));
        }
        if !seen.insert(row.id.to_owned()) {
            problems.push(format!("the page lists {} twice", row.id));
        }
        if row.asks.trim().is_empty() {
            problems.push(format!("the row of {} does not say what it asks", row.id));
        }
        match verdict(row.verdict) {
            Ok(verdict) => problems.extend(disagreements(&row, &verdict, coverage)),
            Err(problem) => problems.push(format!("the row of {} {problem}", row.id)),
        }
    }
    for (family, count) in FAMILIES {
        let missing = (1..=count)
            .map(|number| id_of(family, number))
            .filter(|id| !seen.contains(id));
        problems.extend(missing.map(|id| format!("the page lacks a row for {id}")));
    }
    let unknown = coverage.iter().filter(|(id, _)| !is_known(id));
    problems
        .extend(unknown.map(|(id, tests)| format!("{tests:?} cover {id}, which is no known requirement")));
    problems
}

fn disagreements(row: &Row<'_>, verdict: &Verdict, coverage: &Coverage) -> Vec<String> {
    let nothing = BTreeSet::new();
    let covering = coverage.get(row.id).unwrap_or(&nothing);
    let mut problems = Vec::new();
    if row.id.starts_with("INV-") && verdict.tests.is_empty() && verdict.does_not_apply.is_none() {
        problems.push(format!("{} is an invariant and has no test", row.id));
    }
    for test in verdict.tests.difference(covering) {
        problems.push(format!(
            "the page says that {test} covers {}, but there is no such test with `/// Covers {}.`",
            row.id, row.id
        ));
    }
    if covering.difference(&verdict.tests).next().is_some() {
        problems.push(format!("write: {}", line(row, verdict, covering)));
    }
    problems
}

/// The row as it should be, given the tests that cover it.
fn line(row: &Row<'_>, verdict: &Verdict, covering: &BTreeSet<String>) -> String {
    let mut parts = Vec::new();
    if !covering.is_empty() {
        parts.push(
            covering
                .iter()
                .map(|test| format!("`{test}`"))
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    match (&verdict.does_not_apply, &verdict.later) {
        (Some(reason), _) if covering.is_empty() => parts.push(format!("{DOES_NOT_APPLY}{reason}")),
        (_, Some(part)) if covering.is_empty() || !verdict.tests.is_empty() => {
            parts.push(format!("{LATER}{part}"));
        }
        _ if covering.is_empty() => parts.push(format!("{LATER}a test")),
        _ => {}
    }
    format!("| {} | {} | {} |", row.id, row.asks, parts.join("; "))
}

/// The page with the third column of every row written anew, but of those that cannot be read.
fn updated(page: &str, coverage: &Coverage) -> String {
    let nothing = BTreeSet::new();
    let mut fresh = String::new();
    for text in page.lines() {
        match row(text).and_then(|row| Some((verdict(row.verdict).ok()?, row))) {
            Some((verdict, row)) => {
                fresh += &line(&row, &verdict, coverage.get(row.id).unwrap_or(&nothing));
            }
            None => fresh += text,
        }
        fresh.push('\n');
    }
    fresh
}

#[test]
fn comments_are_found_whatever_stands_around_them() {
    let text = "/// Says more. Covers ID-01,\n/// ID-02. And Covers BI-03.\n#[tokio::test(flavor = \"x\")]\nasync fn a_b() {}\n\
                proptest! {\n    /// Covers ID-01.\n    #[test]\n    fn c(x in any()) {}\n}\n/// Covers nothing.\nfn d() {}\n";
    let file = SourceFile {
        path: "certs/src/id/tests.rs".into(),
        text: text.into(),
    };
    let found = coverage(&[file]).unwrap();
    let tests = |id: &str| found[id].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(tests("ID-01"), ["certs::id::a_b", "certs::id::c"]);
    assert_eq!(tests("ID-02"), ["certs::id::a_b"]);
    assert_eq!(tests("BI-03"), ["certs::id::a_b"]);
    assert_eq!(found.len(), 3);
    assert_eq!(module_of("agent/tests/endpoint/main.rs"), "agent::endpoint");
    assert_eq!(module_of("deploy/dev/src/demo/story.rs"), "dev::demo::story");
}

#[test]
fn a_page_that_is_not_true_is_refused() {
    let coverage = Coverage::from([("ID-01".into(), BTreeSet::from(["certs::id::a".into()]))]);
    let says = |page: &str, part: &str| {
        let problems = problems(page, &coverage);
        assert!(
            problems.iter().any(|problem| problem.contains(part)),
            "{part}: {problems:?}"
        );
    };
    says(
        "| ID-01 | x | `certs::id::b` |",
        "certs::id::b covers ID-01, but there is no such test",
    );
    says(
        "| ID-01 | x | later: one day |",
        "write: | ID-01 | x | `certs::id::a` |",
    );
    says(
        "| ID-01 | x | `certs::id::a` |\n| ID-01 | x | `certs::id::a` |",
        "lists ID-01 twice",
    );
    says(
        "| ID-99 | x | later: one day |",
        "ID-99, which is no known requirement",
    );
    says(
        "| ID-1 | x | later: one day |",
        "ID-1, which is no known requirement",
    );
    says("| ID-02 | x | perhaps |", "says neither");
    says("| ID-02 | x | does not apply: |", "says neither");
    says("| ID-02 | x | later: ? |", "gives no reason");
    says(
        "| ID-02 | x | `certs::id::a`, `certs::id::a` |",
        "names certs::id::a twice",
    );
    says(
        "| INV-3 | x | later: one day |",
        "is an invariant and has no test",
    );
    says("", "lacks a row for BD-21");
}

#[test]
fn updating_keeps_the_words_and_what_is_still_to_come() {
    let coverage = Coverage::from([("ID-01".into(), BTreeSet::from(["certs::id::a".into()]))]);
    let row = |cell: &str| updated(&format!("| ID-01 | words | {cell} |\n"), &coverage);
    assert_eq!(row("later: one day"), "| ID-01 | words | `certs::id::a` |\n");
    assert_eq!(
        row("`certs::id::z`; later: the rest"),
        "| ID-01 | words | `certs::id::a`; later: the rest |\n"
    );
    assert_eq!(
        updated("text\n| ID-02 | words | `certs::id::z` |\n", &coverage),
        "text\n| ID-02 | words | later: a test |\n"
    );
}

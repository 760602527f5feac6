//! `docs/conformance.md` lists what is asked; tests name the rows they check in their doc comments, `Covers X509-06, BC-08.` This holds
//! the two together, and prints the page with the tests of each row (`just conformance`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use signet_tests::repository::{SourceFile, root, rust_files};

const PAGE: &str = "docs/conformance.md";
const DOES_NOT_APPLY: &str = "does not apply: ";
const LATER: &str = "later: ";
/// Heads the third column: as it stands on the page, and as it is printed.
const OPEN: &str = "open";
const COVERED_BY: &str = "covered by";
/// Functions of this folder are no tests: a macro makes a test of each for every adapter.
const SUITE: &str = "server/src/store/suite/";

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

/// What tests cover: by requirement, the tests, each with whether it is ignored.
type Coverage = BTreeMap<String, BTreeMap<String, bool>>;

/// One row of the page.
#[derive(Debug, PartialEq)]
struct Row<'a> {
    id: &'a str,
    asks: &'a str,
    open: &'a str,
}

/// What the third column says of the part that no test shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Open {
    Nothing,
    Later,
    DoesNotApply,
}

#[test]
fn the_page_and_the_tests_agree() {
    let problems = problems(&page(), &coverage(&rust_files().unwrap()).unwrap());
    assert!(
        problems.is_empty(),
        "{PAGE} and the tests disagree:\n{}",
        problems.join("\n")
    );
}

#[test]
#[ignore = "prints the page with its tests: just conformance"]
fn the_page_with_its_tests() {
    println!("{}", printed(&page(), &coverage(&rust_files().unwrap()).unwrap()));
}

fn page() -> String {
    fs::read_to_string(root().join(PAGE)).unwrap()
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

/// Every `Covers …` of the doc comments, by requirement. The error is a comment that belongs to no test.
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
            let first = at;
            at += doc.len().max(1);
            if ids.is_empty() {
                continue;
            }
            let (attributes, function) = function_after(&lines[at..])
                .ok_or_else(|| format!("{}:{at}: `Covers` stands before no function", file.path))?;
            let before = lines[..first]
                .iter()
                .rev()
                .take_while(|line| line.starts_with('#'));
            let attributes: Vec<&str> = before.chain(attributes).copied().collect();
            let test = format!("{}::{function}", module_of(&file.path));
            if !file.path.starts_with(SUITE) && !attributes.iter().any(|line| line.contains("test")) {
                return Err(format!(
                    "{}:{at}: `Covers` stands before {test}, which is no test",
                    file.path
                ));
            }
            let is_ignored = attributes.iter().any(|line| line.starts_with("#[ignore"));
            for id in ids {
                coverage.entry(id).or_default().insert(test.clone(), is_ignored);
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

/// The function that a doc comment belongs to, and the attributes that stand between.
fn function_after<'a, 'b>(lines: &'b [&'a str]) -> Option<(&'b [&'a str], &'a str)> {
    let at = lines
        .iter()
        .take(12)
        .position(|line| line.starts_with("fn ") || line.contains(" fn "))?;
    let (_, name) = lines[at].split_once("fn ")?;
    Some((&lines[..at], name.split(['(', '<', '!']).next()?))
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

/// The row of a table of the page, its head included.
fn row(line: &str) -> Option<Row<'_>> {
    let line = line.strip_prefix("| ")?.strip_suffix('|')?;
    let mut cells = line.split(" |");
    let row = Row {
        id: cells.next()?,
        asks: cells.next()?.trim(),
        open: cells.next()?.trim(),
    };
    (cells.next().is_none_or(str::is_empty)).then_some(row)
}

fn is_head(row: &Row<'_>) -> bool {
    row.id == "id"
}

/// Reads the third column; the error says what is wrong with it.
fn open(cell: &str) -> Result<Open, String> {
    let (open, reason) = match (cell.strip_prefix(LATER), cell.strip_prefix(DOES_NOT_APPLY)) {
        (Some(part), _) => (Open::Later, part),
        (_, Some(reason)) => (Open::DoesNotApply, reason),
        _ if cell.is_empty() => return Ok(Open::Nothing),
        _ => {
            return Err(format!(
                "says neither nothing nor `{DOES_NOT_APPLY}reason` nor `{LATER}which part`: {cell:?}"
            ));
        }
    };
    if reason.trim().len() > 2 {
        Ok(open)
    } else {
        Err("gives no reason".to_owned())
    }
}

/// Everything in which page and tests disagree.
fn problems(page: &str, coverage: &Coverage) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for row in page.lines().filter_map(row) {
        if is_head(&row) {
            if row.open != OPEN {
                problems.push(format!("the third column is headed {:?}, not {OPEN:?}", row.open));
            }
            continue;
        }
        if !is_known(row.id) {
            problems.push(format!(
                "the page lists {}, which is no known requirement",
                row.id
            ));
        }
        if !seen.insert(row.id.to_owned()) {
            problems.push(format!("the page lists {} twice", row.id));
        }
        if row.asks.is_empty() {
            problems.push(format!("the row of {} does not say what it asks", row.id));
        }
        match open(row.open) {
            Ok(open) => problems.extend(disagreement(row.id, open, coverage)),
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
    problems.extend(
        unknown.map(|(id, tests)| format!("{:?} cover {id}, which is no known requirement", tests.keys())),
    );
    problems
}

/// What is wrong with a row, given the tests that cover it. One that is ignored shows nothing by itself.
fn disagreement(id: &str, open: Open, coverage: &Coverage) -> Option<String> {
    let nothing = BTreeMap::new();
    let covering = coverage.get(id).unwrap_or(&nothing);
    let runs = covering.values().any(|is_ignored| !is_ignored);
    match open {
        Open::DoesNotApply if !covering.is_empty() => {
            Some(format!("{id} does not apply, and {:?} cover it", covering.keys()))
        }
        Open::Later if !runs && id.starts_with("INV-") => {
            Some(format!("{id} is an invariant and has no test"))
        }
        Open::Nothing if covering.is_empty() => Some(format!(
            "no test covers {id}: write one that says so, or `{LATER}…` in its row, or `{DOES_NOT_APPLY}…`"
        )),
        Open::Nothing if !runs => Some(format!(
            "{id} is covered only by tests that are ignored, {:?}: write one that runs, or `{LATER}…` in its row",
            covering.keys()
        )),
        _ => None,
    }
}

/// The page with the tests of every row in its third column.
fn printed(page: &str, coverage: &Coverage) -> String {
    let mut printed = String::new();
    for text in page.lines() {
        let _ = match row(text) {
            Some(row) if is_head(&row) => writeln!(printed, "| {} | {} | {COVERED_BY} |", row.id, row.asks),
            Some(row) if is_known(row.id) => {
                let tests = coverage.get(row.id).into_iter().flatten();
                let tests: Vec<String> = tests.map(|(test, is_ignored)| named(test, *is_ignored)).collect();
                let cell = [tests.join(", "), row.open.to_owned()];
                let cell: Vec<&str> = cell
                    .iter()
                    .map(String::as_str)
                    .filter(|part| !part.is_empty())
                    .collect();
                writeln!(printed, "| {} | {} | {} |", row.id, row.asks, cell.join("; "))
            }
            _ => writeln!(printed, "{text}"),
        };
    }
    printed
}

fn named(test: &str, is_ignored: bool) -> String {
    format!("`{test}`{}", if is_ignored { " (ignored)" } else { "" })
}

#[test]
fn comments_are_found_whatever_stands_around_them() {
    let text = "/// Says more. Covers ID-01,\n/// ID-02. And Covers BI-03.\n#[tokio::test(flavor = \"x\")]\nasync fn a_b() {}\n\
                proptest! {\n    /// Covers ID-01.\n    #[test]\n    fn c(x in any()) {}\n}\n/// Covers nothing.\nfn d() {}\n\
                #[ignore = \"slow\"]\n/// Covers ID-02.\n#[test]\nfn e() {}\n/// Covers ID-03.\n#[test]\n#[ignore]\nfn f() {}\n";
    let found = coverage(&[file("certs/src/id/tests.rs", text)]).unwrap();
    let tests = |id: &str| {
        found[id]
            .iter()
            .map(|(test, ignored)| named(test, *ignored))
            .collect::<Vec<_>>()
    };
    assert_eq!(tests("ID-01"), ["`certs::id::a_b`", "`certs::id::c`"]);
    assert_eq!(tests("ID-02"), ["`certs::id::a_b`", "`certs::id::e` (ignored)"]);
    assert_eq!(tests("ID-03"), ["`certs::id::f` (ignored)"]);
    assert_eq!(tests("BI-03"), ["`certs::id::a_b`"]);
    assert_eq!(found.len(), 4);
    assert_eq!(module_of("agent/tests/endpoint/main.rs"), "agent::endpoint");
    assert_eq!(module_of("deploy/dev/src/demo/story.rs"), "dev::demo::story");
}

#[test]
fn what_is_no_test_covers_nothing() {
    let text = "/// Covers ID-01.\nfn helper() {}\n";
    let refused = coverage(&[file("certs/src/id/tests.rs", text)]).unwrap_err();
    assert!(
        refused.contains("certs::id::helper, which is no test"),
        "{refused}"
    );
    assert!(coverage(&[file(&format!("{SUITE}lists.rs"), text)]).is_ok());
    assert!(coverage(&[file("certs/src/id/tests.rs", "/// Covers ID-01.\nstruct Word;\n")]).is_err());
}

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

/// ID-01 has a test, and one that is ignored; ID-03 and INV-3 only such.
fn some_coverage() -> Coverage {
    let covering = |tests: &[(&str, bool)]| {
        tests
            .iter()
            .map(|(test, ignored)| ((*test).to_owned(), *ignored))
            .collect()
    };
    Coverage::from([
        (
            "ID-01".into(),
            covering(&[("certs::id::a", false), ("certs::id::b", true)]),
        ),
        ("ID-03".into(), covering(&[("certs::id::b", true)])),
        ("ID-99".into(), covering(&[("certs::id::c", false)])),
        ("INV-3".into(), covering(&[("certs::id::b", true)])),
    ])
}

#[test]
fn a_page_that_is_not_true_is_refused() {
    let says = |page: &str, part: &str| {
        let problems = problems(page, &some_coverage());
        assert!(
            problems.iter().any(|problem| problem.contains(part)),
            "{part}: {problems:?}"
        );
    };
    says("| id | asks | covered by |", "headed \"covered by\"");
    says(
        "| ID-01 | x | does not apply: for a reason |",
        "ID-01 does not apply, and [\"certs::id::a\"",
    );
    says(
        "| ID-03 | x | does not apply: for a reason |",
        "ID-03 does not apply, and [\"certs::id::b\"",
    );
    says(
        "| ID-03 | x | |",
        "ID-03 is covered only by tests that are ignored",
    );
    says("| ID-02 | x | |", "no test covers ID-02");
    says("| ID-01 | x | |\n| ID-01 | x | |", "lists ID-01 twice");
    says("| ID-01 | | |", "the row of ID-01 does not say what it asks");
    says(
        "| ID-98 | x | later: one day |",
        "ID-98, which is no known requirement",
    );
    says(
        "| ID-1 | x | later: one day |",
        "ID-1, which is no known requirement",
    );
    says("| ID-01 | x | `certs::id::a` |", "says neither");
    says("| ID-02 | x | does not apply: |", "says neither");
    says("| ID-02 | x | later: ? |", "gives no reason");
    says(
        "| INV-3 | x | later: one day |",
        "is an invariant and has no test",
    );
    says("", "cover ID-99, which is no known requirement");
    says("", "lacks a row for BD-21");
}

#[test]
fn what_tests_leave_open_may_be_said_and_what_they_show_need_not() {
    for row in [
        "| ID-01 | x | |",
        "| ID-01 | x | later: the rest |",
        "| ID-02 | x | later: all |",
        "| ID-02 | x | does not apply: why |",
    ] {
        let problems = problems(row, &some_coverage());
        let of_the_row = problems
            .iter()
            .filter(|problem| !problem.contains("lacks") && !problem.contains("ID-99"));
        assert_eq!(of_the_row.count(), 0, "{row}: {problems:?}");
    }
}

#[test]
fn the_printed_page_has_the_tests_of_every_row() {
    let page = "# Head\n| id | asks | open |\n|---|---|---|\n| ID-01 | x y | |\n\
                | ID-03 | z | later: the rest |\n| ID-02 | w | does not apply: why |\n";
    assert_eq!(
        printed(page, &some_coverage()),
        "# Head\n| id | asks | covered by |\n|---|---|---|\n| ID-01 | x y | `certs::id::a`, `certs::id::b` (ignored) |\n\
         | ID-03 | z | `certs::id::b` (ignored); later: the rest |\n| ID-02 | w | does not apply: why |\n"
    );
}

//! What ARCHITECTURE.md says of bounds is what the code says.

use signet_tests::repository::root;

/// What a row says, where it is so, and by which words.
const SAID: [(&str, &str, &str); 7] = [
    (
        "3 MiB at 56 bytes each",
        "server/src/publisher/plan.rs",
        "const ENTRY_BYTES: usize = 56;",
    ),
    (
        "3 MiB at 56 bytes each",
        "server/src/publisher.rs",
        "const CRL_MAX_BYTES: usize = 3 * 1024 * 1024;",
    ),
    (
        "at most once in 200 ms",
        "server/src/publisher.rs",
        "const COALESCE: Duration = Duration::from_millis(200);",
    ),
    (
        "20,000 from",
        "server/src/app/rooms.rs",
        "const AGENTS: Wish = wish(64, 20_000);",
    ),
    (
        "200 a second, by turns of nodes (`attestation.calls_per_second`)",
        "server/src/attest/config/raw.rs",
        "CALLS_PER_SECOND: u32 = 200;",
    ),
    (
        "1,000,000, then nothing is issued",
        "server/src/audit/backlog.rs",
        "const MAX_BACKLOG: u64 = 1_000_000;",
    ),
    (
        "10,000, from a scan of all of it",
        "server/src/store/ledger.rs",
        "limit.min(10_000)",
    ),
];

/// Rows whose numbers stand elsewhere.
const ELSEWHERE: [&str; 2] = ["README.md#how-fast", "docs/limits.md"];

#[test]
fn the_table_of_what_bounds_growth_says_what_the_code_says() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let page = read("ARCHITECTURE.md");
    let (_, section) = page.split_once("## What bounds growth").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    for (says, path, words) in SAID {
        assert!(section.contains(says), "ARCHITECTURE.md no more says: {says}");
        assert!(
            read(path).contains(words),
            "{path} has no `{words}`, and ARCHITECTURE.md says: {says}"
        );
    }
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    for row in rows {
        let is_held = SAID.iter().any(|(says, ..)| row.contains(says));
        assert!(
            is_held || ELSEWHERE.iter().any(|page| row.contains(page)),
            "nothing holds this row: {row}"
        );
    }
}

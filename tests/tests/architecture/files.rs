//! How long a file may be.

use signet_tests::repository::rust_files;

/// Lines of a source file at which it wants to be two. Tests in a file of their own are lists of cases, and may be longer.
const MAX_LINES: usize = 500;

#[test]
fn no_source_file_outgrows_a_reader() {
    for file in rust_files().unwrap() {
        let lines = file.text.lines().count();
        let free = !file.path.contains("src/") || file.path.ends_with("/tests.rs");
        assert!(
            free || lines <= MAX_LINES,
            "{} has {lines} lines, of {MAX_LINES}: split it along what it says",
            file.path
        );
    }
}

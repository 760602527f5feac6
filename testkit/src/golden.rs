//! What a program prints, compared with a file that people have read.

use std::fs;
use std::path::Path;

/// Set, it has the files written anew.
const UPDATE: &str = "SIGNET_UPDATE_GOLDEN";

/// Compares `found` with `tests/golden/<name>.txt` of the crate whose `CARGO_MANIFEST_DIR` is given.
///
/// # Panics
/// When they differ: at the first line that does.
pub fn golden(crate_dir: &str, name: &str, found: &str) {
    let path = Path::new(crate_dir)
        .join("tests/golden")
        .join(format!("{name}.txt"));
    if std::env::var_os(UPDATE).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected != found {
        let differs = expected
            .lines()
            .zip(found.lines())
            .position(|(one, other)| one != other);
        let line = differs.unwrap_or_else(|| expected.lines().count().min(found.lines().count()));
        let of = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_owned();
        panic!(
            "{}:{}: expected\n  {}\nfound\n  {}\nIf that is meant: {UPDATE}=1 cargo test --workspace",
            path.display(),
            line + 1,
            of(&expected),
            of(found)
        );
    }
}

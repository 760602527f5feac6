//! The files of this repository, for tests that judge its text.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// One text file.
pub struct SourceFile {
    /// Path below the repository's root, with `/` between its parts.
    pub path: String,
    /// Content.
    pub text: String,
}

/// The root of the repository this crate was built from.
pub fn root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_owned()
}

/// Every text file that belongs to the repository, sorted by path. What builds and fuzzers leave behind does not, nor
/// does what is not UTF-8.
///
/// # Errors
/// A folder or file that cannot be read.
pub fn text_files() -> io::Result<Vec<SourceFile>> {
    let mut found = Vec::new();
    walk(&root(), "", &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// As [`text_files`], those in Rust that people wrote.
///
/// # Errors
/// As [`text_files`].
pub fn rust_files() -> io::Result<Vec<SourceFile>> {
    let mut files = text_files()?;
    files.retain(|file| file.path.ends_with(".rs") && !file.path.starts_with("proto/src/gen/"));
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<SourceFile>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() && belongs(&name, prefix) {
            walk(&entry.path(), &format!("{path}/"), found)?;
        } else if kind.is_file()
            && name != ".git"
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
        {
            found.push(SourceFile { path, text });
        }
    }
    Ok(())
}

/// Whether a folder holds what people wrote; the same list as `.gitignore`.
fn belongs(name: &str, prefix: &str) -> bool {
    let built = ["target", ".git", "__pycache__"].contains(&name);
    let fuzzed = prefix.ends_with("fuzz/") && ["corpus", "artifacts"].contains(&name);
    !built && !fuzzed
}

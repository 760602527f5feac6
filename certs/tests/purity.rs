//! The crate takes time and randomness as arguments and does no I/O; its sources are read to make sure.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Ways to reach a clock, a random source, a file, a socket, the environment, a process or the terminal.
const FORBIDDEN: [&str; 27] = [
    "SystemTime::now",
    "Instant::now",
    "UnixTime::now",
    "ASN1Time::now",
    "now_utc",
    "now_local",
    "SystemRandom::new",
    "KeyPair::generate()",
    "KeyPair::generate_for",
    "thread_rng",
    "getrandom",
    "std::fs",
    "File::",
    "OpenOptions",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "tokio",
    "println!",
    "eprintln!",
    "dbg!",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let test_only = path
            .file_name()
            .is_some_and(|name| name == "tests.rs" || name == "testing.rs");
        if path.is_dir() {
            sources(&path, found)?;
        } else if !test_only {
            found.push(path);
        }
    }
    Ok(())
}

/// The part before the file's own test module.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn forbidden(text: &str) -> Vec<&'static str> {
    FORBIDDEN.into_iter().filter(|name| text.contains(name)).collect()
}

/// Covers INV-1.
#[test]
fn the_crate_touches_no_clock_random_source_file_or_socket() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files).unwrap();
    assert!(files.len() > 15, "only {} source files were found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(forbidden(production(&text)), [""; 0], "in {}", file.display());
    }
}

#[test]
fn the_search_finds_what_it_looks_for() {
    assert_eq!(forbidden("let now = SystemTime::now();"), ["SystemTime::now"]);
    assert_eq!(
        production("a\n#[cfg(test)]\nmod tests {\nSystemTime::now()"),
        "a\n"
    );
}

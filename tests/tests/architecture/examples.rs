//! What people copy from docs/files.md and deploy/examples is what `tests/interop` runs: it takes the commands from the headers there.

use signet_tests::repository::{root, text_files};

/// The command in a header, its lines joined.
fn command(text: &str) -> Option<String> {
    let from = text
        .lines()
        .skip_while(|line| !line.starts_with("#   signet-agent write "));
    let mut words = Vec::new();
    for line in from {
        let line = line.trim_start_matches(['#', ' ']);
        words.extend(line.split_whitespace().filter(|word| *word != "\\"));
        if !line.ends_with('\\') {
            break;
        }
    }
    (!words.is_empty()).then(|| words.join(" "))
}

#[test]
fn the_command_of_the_page_is_that_of_an_example() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let page = read("docs/files.md");
    let (_, block) = page.split_once("```\n").unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    let said: Vec<_> = block.split_whitespace().filter(|word| *word != "\\").collect();
    // In a pod the socket is in the environment.
    let socket = said.iter().position(|word| *word == "--socket").unwrap();
    let said = [&said[..socket], &said[socket + 2..]].concat().join(" ");
    let nginx = command(&read("deploy/examples/nginx/nginx.conf")).unwrap();
    assert_eq!(said, nginx);
}

/// Programs whose examples are run by `tests/interop`.
const PROGRAMS: [&str; 5] = ["haproxy", "nginx", "pkcs12", "postgresql", "redis"];

#[test]
fn each_program_that_is_run_says_once_how_its_files_are_kept() {
    let mut saying = Vec::new();
    for file in text_files().unwrap() {
        let Some(path) = file.path.strip_prefix("deploy/examples/") else {
            continue;
        };
        if let Some(command) = command(&file.text) {
            assert!(
                command.starts_with("signet-agent write --dir /run/signet-files --"),
                "{path}: {command}"
            );
            saying.push(path.split('/').next().unwrap().to_owned());
        }
    }
    assert_eq!(saying, PROGRAMS);
}

//! What `--help` says of every command of every program, compared with files that people have read: tests/tests/golden/help.

use std::path::Path;

use signet_testkit::golden;
use signet_tests::process::{binary, run};

const PROGRAMS: [&str; 5] = [
    "signet-server",
    "signet-agent",
    "signet-dev",
    "signet-bench",
    "signet-image",
];

/// Names of the commands that a help lists.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let named = listed.take_while(|line| !line.is_empty());
    // Names stand two columns in; what they mean may go on below, further in.
    let names = named.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

/// The help of a command and of all below it, each behind the command line that prints it.
async fn helps(program: &Path, words: &[String]) -> String {
    let asked = run(program, words.iter().map(String::as_str).chain(["--help"]), &[]);
    let help = asked.await.unwrap();
    assert!(help.status.success(), "{words:?}: {}", help.stderr);
    let name = program.file_name().unwrap().to_str().unwrap();
    let line: Vec<&str> = [name]
        .into_iter()
        .chain(words.iter().map(String::as_str))
        .collect();
    let mut text = format!("$ {} --help\n{}\n", line.join(" "), help.stdout);
    for command in commands(&help.stdout) {
        let below = [words, &[command.to_owned()]].concat();
        text.push_str(&Box::pin(helps(program, &below)).await);
    }
    text
}

#[tokio::test]
async fn the_help_of_every_command_is_as_people_have_read_it() {
    for program in PROGRAMS {
        let text = helps(&binary(program), &[]).await;
        golden(env!("CARGO_MANIFEST_DIR"), &format!("help/{program}"), &text);
    }
}

//! Whatever documents and samples tell people to type exists: commands and options, as their help has it.

use std::{collections::BTreeMap, fs};

use signet_tests::repository::{root, text_files};

const PROGRAMS: [&str; 5] = [
    "signet-server",
    "signet-agent",
    "signet-dev",
    "signet-bench",
    "signet-image",
];

/// The help of every command, by the words that lead to it.
struct Helps(BTreeMap<String, String>);

impl Helps {
    /// As the golden files have it.
    fn read() -> Self {
        let mut sections = BTreeMap::new();
        for program in PROGRAMS {
            let path = root().join(format!("tests/tests/golden/help/{program}.txt"));
            let text = fs::read_to_string(path).unwrap();
            for section in text.split("$ ").filter(|section| section.starts_with(program)) {
                let (line, help) = section.split_once(" --help\n").unwrap();
                sections.insert(line.to_owned(), help.to_owned());
            }
        }
        Self(sections)
    }

    fn has_option(&self, command: &str, option: &str) -> bool {
        let name = option.split('=').next().unwrap_or(option);
        let words = self.0[command].split(|c: char| c.is_whitespace() || "[],=`".contains(c));
        words.into_iter().any(|word| word == name)
    }

    /// What of a command line does not exist.
    fn stranger(&self, program: &str, words: &[&str]) -> Option<String> {
        let mut command = program.to_owned();
        for word in words {
            let below = format!("{command} {word}");
            if word.len() > 1 && word.starts_with('-') {
                if !self.has_option(&command, word) {
                    return Some(format!("`{command}` has no option {word}"));
                }
            } else if self.0.contains_key(&below) {
                command = below;
            } else if self.0[&command].contains("\nCommands:\n") && is_name(word) {
                return Some(format!("`{command}` has no command {word}"));
            }
        }
        None
    }
}

/// Whether a word could be a command, not only the value of an option.
fn is_name(word: &str) -> bool {
    word.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Pieces of code: in Markdown what stands between fences and between single backquotes, in samples every line.
fn code<'t>(path: &str, text: &'t str) -> Vec<(&'t str, bool)> {
    let (mut found, mut fenced) = (Vec::new(), !path.ends_with(".md"));
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            // What a sample says in comments is prose.
            let is_prose = !path.ends_with(".md") && line.trim_start().starts_with('#');
            found.extend((!is_prose).then_some((line, false)));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(|span| (span, true)));
        }
    }
    found
}

/// The words of a command line, up to where the shell or a comment takes over.
fn words(text: &str) -> Vec<&str> {
    let end = text.find(['|', ';', '>', '&', '#', '─']).unwrap_or(text.len());
    let words = text[..end].split(|c: char| c.is_whitespace() || "[],()\"'".contains(c));
    words.filter(|word| !word.is_empty() && *word != "--").collect()
}

/// Command lines of a piece: the program, and what stands behind it.
fn lines<'t>(helps: &Helps, piece: &'t str, is_span: bool) -> Vec<(&'static str, Vec<&'t str>)> {
    let mut found = Vec::new();
    for program in PROGRAMS {
        for (at, _) in piece.match_indices(program) {
            let before = piece[..at].chars().next_back();
            let after = &piece[at + program.len()..];
            let stands_alone = before.is_none_or(|c| " [(`".contains(c)) && after.starts_with([' ', ',']);
            if stands_alone {
                found.push((program, words(after)));
            }
        }
    }
    // `revoke --force` in a sentence is the server's, `fetch x509` the agent's.
    let first = piece.split_whitespace().next().unwrap_or_default();
    let is_command = is_span && found.is_empty() && piece.contains(' ');
    for program in ["signet-server", "signet-agent"] {
        if is_command && found.is_empty() && helps.0.contains_key(&format!("{program} {first}")) {
            found.push((program, words(piece)));
        }
    }
    found
}

#[test]
fn what_documents_tell_people_to_type_exists() {
    let helps = Helps::read();
    let (mut read, mut strangers) = (0, Vec::new());
    for file in text_files().unwrap() {
        let is_document = file.path.ends_with(".md") && file.path != "CHANGELOG.md";
        if !is_document
            && !file.path.starts_with("deploy/config/")
            && !file.path.starts_with("deploy/kubernetes/")
        {
            continue;
        }
        for (piece, is_span) in code(&file.path, &file.text) {
            for (program, words) in lines(&helps, piece, is_span) {
                read += 1;
                let stranger = helps.stranger(program, &words);
                strangers.extend(stranger.map(|what| format!("{}: {piece}: {what}", file.path)));
            }
        }
    }
    assert!(strangers.is_empty(), "{}", strangers.join("\n"));
    assert!(read > 60, "only {read} command lines were found");
}

#[test]
fn commands_and_options_that_do_not_exist_are_told() {
    let helps = Helps::read();
    let stranger = |piece: &str| {
        let (program, words) = lines(&helps, piece, true).remove(0);
        helps.stranger(program, &words)
    };
    for good in [
        "signet-server revoke --spiffe-id /ns/shop/sa/x --comment \"laptop stolen\"",
        "kubectl exec signet-server-0 -- signet-server ca show | head",
        "cargo run --bin signet-bench -- issue --seconds=3",
        "revoke --serial S --reason keyCompromise",
        "fetch x509",
    ] {
        assert_eq!(stranger(good), None, "{good}");
    }
    for bad in [
        "signet-server ca sho",
        "signet-server status --verbose",
        "crl list",
        "revoke --id x",
    ] {
        assert!(stranger(bad).is_some(), "{bad}");
    }
}

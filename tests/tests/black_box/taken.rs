//! Answers of commands that nobody takes: no command panics, and its status says what became of what was asked for.

use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;
use signet_tests::{
    domain::{Domain, Plan},
    http,
    process::binary,
    wait::eventually,
};

use super::commands::leaves;

/// Where an answer goes that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nowhere {
    /// Its reader has gone.
    GonePipe,
    /// The disk is full.
    FullDisk,
    /// The descriptor is closed.
    Closed,
}

const NOWHERE: [Nowhere; 3] = [Nowhere::GonePipe, Nowhere::FullDisk, Nowhere::Closed];

impl Nowhere {
    fn open(self) -> Stdio {
        match self {
            Self::GonePipe => {
                let (_, writer) = std::io::pipe().unwrap();
                writer.into()
            }
            Self::FullDisk => File::options().write(true).open("/dev/full").unwrap().into(),
            Self::Closed => Stdio::null(),
        }
    }
}

/// Status and standard error of a command, either of whose streams leads nowhere.
fn run(
    program: &str,
    args: &[&str],
    env: &[(&str, String)],
    out: Option<Nowhere>,
    err: Option<Nowhere>,
) -> (i32, String) {
    let closes = |stream: Option<Nowhere>, what| match stream {
        Some(Nowhere::Closed) => what,
        _ => "",
    };
    let script = format!(
        "exec \"$0\" \"$@\" {} {}",
        closes(out, ">&-"),
        closes(err, "2>&-")
    );
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &script])
        .arg(binary(program))
        .args(args)
        .env_clear()
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(out.map_or_else(Stdio::piped, Nowhere::open))
        .stderr(err.map_or_else(Stdio::piped, Nowhere::open));
    let ended = command.output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    let status = ended.status;
    let code = status
        .code()
        .unwrap_or_else(|| panic!("{program} {args:?}: ended by {:?}: {said}", status.signal()));
    (code, said)
}

/// Each command of a program that answers, with the status that it has where its answer is taken.
struct Asked {
    program: &'static str,
    commands: Vec<(Vec<String>, i32)>,
    env: Vec<(&'static str, String)>,
}

impl Asked {
    /// Nothing that the program can be asked is left out.
    fn has_all_of(&self, command: &clap::Command) {
        for (leaf, _) in leaves(command) {
            let is_it = |(words, _): &&(Vec<String>, i32)| {
                format!("{} ", words.join(" ")).starts_with(&format!("{leaf} "))
            };
            assert!(
                self.commands.iter().any(|asked| is_it(&asked)),
                "{} {leaf}",
                self.program
            );
        }
    }

    fn check(&self) {
        for (args, status) in &self.commands {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            for nowhere in NOWHERE {
                self.check_answer(&args, *status, nowhere);
                let (code, _) = run(self.program, &args, &self.env, None, Some(nowhere));
                assert_eq!(
                    code, *status,
                    "{} {args:?} with errors on {nowhere:?}",
                    self.program
                );
                let (code, _) = run(self.program, &args, &self.env, Some(nowhere), Some(nowhere));
                assert!(
                    [*status, 1].contains(&code),
                    "{} {args:?} on {nowhere:?}: {code}",
                    self.program
                );
            }
        }
    }

    fn check_answer(&self, args: &[&str], status: i32, nowhere: Nowhere) {
        let (code, said) = run(self.program, args, &self.env, Some(nowhere), None);
        let what = format!("{} {args:?} on {nowhere:?}: {said}", self.program);
        assert!(!said.contains("panicked"), "{what}");
        if nowhere != Nowhere::FullDisk || status != 0 {
            assert_eq!(code, status, "{what}");
            return;
        }
        assert_eq!(code, 1, "{what}");
        let last = said.trim_end().lines().last().unwrap_or_default();
        assert!(
            last.contains("cannot be written") && last.contains("space"),
            "{what}"
        );
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(ToOwned::to_owned).collect()
}

fn of(lines: &[(&str, i32)]) -> Vec<(Vec<String>, i32)> {
    lines
        .iter()
        .map(|(line, status)| (words(line), *status))
        .collect()
}

/// What both programs are asked alike.
fn of_both(config: &Path) -> Vec<(Vec<String>, i32)> {
    of(&[
        ("--help", 0),
        ("--version", 0),
        ("frobnicate", 2),
        (&format!("validate --config {}", config.display()), 0),
        ("validate --config /nowhere.yaml", 78),
        ("run --config /nowhere.yaml", 78),
        ("healthcheck", 0),
        ("status", 0),
        ("status -o json", 0),
    ])
}

/// What the server alone is asked; the rule in this file can be set.
fn of_the_server(rule: &Path) -> Vec<(Vec<String>, i32)> {
    of(&[
        ("ca show", 0),
        ("ca anchors", 0),
        ("ca activate", 1),
        ("ca prepare --no-wait", 0),
        ("ca rotate --force -o json", 0),
        ("ca emergency --no-wait", 0),
        ("ca taint 0000000000000000000000000000000000000000", 1),
        ("ca revoke nonsense", 1),
        ("ca wait x509-99", 1),
        ("svid list", 0),
        ("svid list --output json", 0),
        ("svid list --id spiffe://other.org/x", 1),
        ("revoke --spiffe-id /ns/shop/sa/leaver", 0),
        ("allow no-such-denial", 1),
        ("denials", 0),
        ("crl show", 0),
        ("explain --pod shop/none", 1),
        ("explain --pod nonsense -o json", 2),
        ("explain --spiffe-id /ns/shop/sa/front", 0),
        ("revoke --prefix /ns/leavers --dry-run", 0),
        ("revoke --pod shop/none", 1),
        ("revoke --spiffe-id /ns/shop/sa/waiter --wait -o json", 0),
        ("agent list", 0),
        ("agent ban no-such-node", 1),
        ("rule list", 0),
        (&format!("rule set {}", rule.display()), 0),
        ("rule set /nowhere.yaml", 1),
        ("rule delete nobodys", 1),
        ("rule test --pod shop/none", 2),
        (&format!("rule test --rule {}", rule.display()), 0),
        ("rule confirm 0123456789abcdef", 1),
        ("audit tail --last 3", 0),
        ("audit tail -n 3 -o json", 0),
        ("audit tail --serial nonsense", 1),
        ("audit key", 0),
        ("audit head", 0),
        ("audit verify /nowhere.log", 2),
        ("clock show", 0),
        ("clock confirm 2001-01-01T00:00:00Z", 1),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_of_the_server_panics_and_its_status_is_that_of_the_deed() {
    let domain = Domain::start().await.unwrap();
    let issues = format!("{}/ready/issue", domain.server.telemetry_url());
    eventually("the server to issue", async || {
        let answer = http::get(&issues).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    let config = domain.server.config_path();
    let folder = signet_testkit::folder();
    let rule = folder.path().join("rule.yaml");
    std::fs::write(
        &rule,
        "name: taken\nmatch: {namespaces: [shop]}\nspiffe_id: /taken\n",
    )
    .unwrap();
    let asked = Asked {
        program: "signet-server",
        commands: [of_both(&config), of_the_server(&rule)].concat(),
        env: vec![(
            "SIGNET_ADMIN_SOCKET",
            domain.server.admin_socket().display().to_string(),
        )],
    };
    asked.has_all_of(&signet_server::cli::command());
    eventually("a signed head of the audit log", async || {
        let (code, _) = run("signet-server", &["audit", "head"], &asked.env, None, None);
        (code == 0).then_some(())
    })
    .await;
    asked.check();

    // Who reads the status of 1 also reads that it was done.
    let args = ["revoke", "--spiffe-id", "/ns/shop/sa/other"];
    let (code, said) = run("signet-server", &args, &asked.env, Some(Nowhere::FullDisk), None);
    assert!(
        code == 1 && said.contains("the command was carried out"),
        "{said}"
    );
    let denials = domain.server.admin(&["denials"]).await.unwrap();
    assert!(denials.to_string().contains("/ns/shop/sa/other"), "{denials}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_of_the_agent_and_of_the_tools_panics() {
    let shell = json!([{
        "name": "shell",
        "match": { "evidence": ["unix"], "unix": { "uids": [nix::unistd::getuid().as_raw()] } },
        "spiffe_id": "/shell/{uid}",
    }]);
    let domain = Plan::default().server("/rules", shell).start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let config = agent.folder().join("agent.yaml");
    let fetched = agent.folder().join("fetched");
    let set = fetched.display();
    let fetch = ["fetch", "x509", "--write", fetched.to_str().unwrap()];
    assert!(agent.command(&fetch).await.unwrap().status.success());
    let asked = Asked {
        program: "signet-agent",
        commands: [
            of_both(&config),
            of(&[
                ("explain", 0),
                ("explain --socket unix:///nowhere.sock -o json", 1),
                ("fetch x509", 0),
                ("fetch x509 -o json", 0),
                ("fetch x509 --socket tcp://127.0.0.1:1", 1),
                ("fetch x509 --socket unix:///nowhere.sock --timeout 300ms", 1),
                // It has no answer.
                ("write --dir /nowhere --socket tcp://127.0.0.1:1", 1),
                (&format!("show {set}"), 0),
                ("show /nowhere -o json", 1),
                (&format!("verify {set}/svid.pem --bundle {set}"), 0),
                (
                    &format!("verify {set}/svid.pem --bundle {set} --spiffe-id spiffe://example.org/x"),
                    1,
                ),
                ("verify /nowhere --bundle /nowhere", 2),
                ("watch --limit 1", 0),
                ("watch --socket tcp://127.0.0.1:1", 1),
            ]),
        ]
        .concat(),
        env: vec![
            (
                "SIGNET_AGENT_ADMIN_SOCKET",
                agent.admin_socket().display().to_string(),
            ),
            (
                "SPIFFE_ENDPOINT_SOCKET",
                format!("unix://{}", agent.shell_socket().display()),
            ),
        ],
    };
    asked.has_all_of(&signet_agent::cli::command());
    asked.check();
    let tool = Asked {
        program: "signet-bench",
        commands: of(&[("--help", 0), ("--version", 0), ("frobnicate", 2)]),
        env: Vec::new(),
    };
    tool.check();
}

//! Rules that an admin sets, deletes and tries.

use std::{
    cell::Cell,
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use signet_runtime::{
    cli::exit,
    config::{self, MAX_BYTES},
};

use super::{
    PROGRAM,
    admin::{AdminClient, TestRule},
    args::{DeleteRuleArgs, SetRuleArgs, TestRuleArgs},
    ask,
};
use crate::config::RuleFile;

pub(super) fn set(args: SetRuleArgs) -> ExitCode {
    ask(args.admin, async move |client| {
        let rule = read(&args.file)?;
        let place = named(&args.file);
        let set = client.set_rule(rule, args.before).await;
        set.with_context(|| place.to_owned())
    })
}

pub(super) fn delete(args: DeleteRuleArgs) -> ExitCode {
    ask(args.admin, async move |client| {
        client.delete_rule(args.name).await
    })
}

/// Exits 1 where the pod gets nothing, and 2 where there is no answer, or none yet.
pub(super) fn test(args: TestRuleArgs) -> ExitCode {
    let is_open = Cell::new(false);
    let status = PROGRAM.judge(args.admin.answer.output, async {
        let rule = args.rule.as_deref().map(read).transpose()?;
        let mut client = AdminClient::connect(&args.admin.admin_socket).await?;
        let test = TestRule {
            pod: args.pod,
            cluster: args.cluster,
            rule,
            before: args.before,
        };
        let (answer, open) = client.test_rule(test).await?;
        is_open.set(open);
        Ok(answer)
    });
    if is_open.get() {
        ExitCode::from(exit::USAGE)
    } else {
        status
    }
}

/// The name of a file in messages.
fn named(path: &Path) -> &str {
    match path.to_str() {
        Some("-") => "standard input",
        Some(path) => path,
        None => "the file",
    }
}

/// The rule of a file, JSON. What is wrong with its form is said as of a configuration; whether it makes sense the server says.
fn read(path: &Path) -> anyhow::Result<String> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text);
        read.context("standard input cannot be read")?;
        if text.len() as u64 > MAX_BYTES {
            bail!("standard input is larger than {MAX_BYTES} bytes; is it a rule?");
        }
        text
    } else {
        config::read(path)?
    };
    match config::check::<RuleFile>(Path::new(named(path)), &text) {
        Ok((rule, _)) => Ok(rule.to_json()),
        Err(report) => {
            let errors: Vec<_> = report.errors().iter().map(ToString::to_string).collect();
            bail!("{}", errors.join("\n"))
        }
    }
}

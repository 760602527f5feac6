//! The command line of `signet-server`.

pub mod admin;
mod args;
mod audit;
mod ca;
mod rule;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::CommandFactory;
use signet_runtime::{
    cli::{Answer, Program},
    output::complain,
};

use self::{
    admin::{AdminClient, Revoke, Target},
    args::{
        AdminArgs, AgentCommand, AuditCommand, BanArgs, Cli, ClockCommand, Command, CrlCommand, ExplainArgs,
        RevokeArgs, RuleCommand, SvidCommand,
    },
};
use crate::{
    app::{self, DRAIN_LIMIT, Server, trials},
    config::Config,
};

const PROGRAM: Program = Program("signet-server");

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// The command line itself, for who wants to look at it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs a command line; `args` begins with the program's name. Other binaries that embed the server call this.
pub fn run_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli: Cli = match PROGRAM.parse(args) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Run(args) => run(&args.config),
        Command::Validate(args) => PROGRAM.validate::<Config>(&args.how, trials, &args.config.config),
        Command::Healthcheck(args) => ask(args.admin, async move |client| {
            client.healthcheck(args.serving).await
        }),
        Command::Status(args) => ask(args, AdminClient::status),
        Command::Ca(command) => ca::run(command),
        Command::Svid(SvidCommand::List(args)) => ask(args.admin, async move |client| {
            client
                .svids(args.id, args.pod, args.node, args.live, args.limit)
                .await
        }),
        Command::Revoke(args) => revoke(args),
        Command::Allow(args) => ask(args.admin, async move |client| client.allow(args.denial).await),
        Command::Denials(args) => ask(args.admin, async move |client| client.denials(args.all).await),
        Command::Explain(args) => explain(args),
        Command::Crl(CrlCommand::Show(args)) => ask(args, AdminClient::crls),
        Command::Rule(RuleCommand::List(args)) => ask(args, AdminClient::rules),
        Command::Rule(RuleCommand::Set(args)) => rule::set(args),
        Command::Rule(RuleCommand::Delete(args)) => rule::delete(args),
        Command::Rule(RuleCommand::Test(args)) => rule::test(args),
        Command::Rule(RuleCommand::Confirm(args)) => ask(args.admin, async move |client| {
            client.confirm_rules(args.revision).await
        }),
        Command::Agent(AgentCommand::List(args)) => ask(args, AdminClient::agents),
        Command::Agent(AgentCommand::Ban(args)) => ban(args),
        Command::Audit(AuditCommand::Verify(args)) => {
            PROGRAM.judge(args.admin.answer.output, audit::verify(args))
        }
        Command::Audit(AuditCommand::Tail(args)) => PROGRAM.run(audit::tail(args)),
        Command::Audit(AuditCommand::Key(args)) => ask(args, audit::key),
        Command::Audit(AuditCommand::Head(args)) => ask(args, audit::head),
        Command::Clock(ClockCommand::Show(args)) => ask(args, AdminClient::clock),
        Command::Clock(ClockCommand::Confirm(args)) => ask(args.admin, async move |client| {
            client.confirm_clock(&args.time, args.force).await
        }),
    }
}

fn run(config: &Path) -> ExitCode {
    let build = |loaded| app::build(loaded, config);
    PROGRAM.serve(config, DRAIN_LIMIT, trials, build, <Server>::run)
}

fn ask(args: AdminArgs, question: impl AsyncFnOnce(&mut AdminClient) -> anyhow::Result<Answer>) -> ExitCode {
    PROGRAM.ask(args.answer.output, async {
        question(&mut AdminClient::connect(&args.admin_socket).await?).await
    })
}

/// Exits 1 where the pod or the identity gets nothing, and 2 where there is no answer.
fn explain(args: ExplainArgs) -> ExitCode {
    PROGRAM.judge(args.admin.answer.output, async {
        let mut client = AdminClient::connect(&args.admin.admin_socket).await?;
        client.explain(args.pod, args.cluster, args.spiffe_id).await
    })
}

fn revoke(args: RevokeArgs) -> ExitCode {
    let targets = [
        args.serial.map(Target::Serial),
        args.spiffe_id.map(Target::SpiffeId),
        args.prefix.map(Target::Prefix),
        args.pod.map(Target::Pod),
        args.node.map(Target::Node),
        args.issued_by.map(Target::IssuedBy),
    ];
    let order = Revoke {
        target: targets.into_iter().flatten().next(),
        authority: args.authority,
        cluster: args.cluster,
        reason: args.reason,
        invalid_since: args.invalid_since,
        comment: args.comment,
        expires: args.expires.map(|expires| expires.get()),
        keep_issuing: args.keep_issuing,
        force: args.force,
        dry_run: args.dry_run,
    };
    // Progress goes to standard error, so that standard output stays one object.
    let progress = |line: &str| complain(&format!("{line}\n"));
    ask(args.admin, async move |client| {
        recorded(if args.wait {
            client.revoke_and_wait(order, progress).await
        } else {
            client.revoke(order).await
        })
    })
}

fn ban(args: BanArgs) -> ExitCode {
    let order = Revoke {
        reason: args.reason,
        comment: args.comment,
        expires: args.expires.map(|expires| expires.get()),
        force: true,
        ..Revoke::default()
    };
    ask(args.admin, async move |client| {
        recorded(client.ban(&args.agent, order).await)
    })
}

/// What is wrong with an answer is no reason to think that nothing was done.
fn recorded(answer: anyhow::Result<Answer>) -> anyhow::Result<Answer> {
    let mut answer = answer?;
    let what = |problem| format!("recorded, not yet published: {problem}");
    answer.problem = answer.problem.map(what);
    Ok(answer)
}

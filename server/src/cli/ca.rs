//! `ca`: what is asked of the server about authorities.

use std::process::ExitCode;

use signet_runtime::{output::Narration, signal::end_of_session};

use super::{
    admin::{AdminClient, CaOrder},
    args::{AdminArgs, Algorithm, CaCommand, WaitArgs},
    ask,
};

pub(super) fn run(command: CaCommand) -> ExitCode {
    match command {
        CaCommand::Show(args) => ask(args, AdminClient::authorities),
        CaCommand::Anchors(args) => ask(args, AdminClient::anchors),
        CaCommand::Prepare(args) => {
            let order = CaOrder::Prepare {
                kind: args.kind.name().to_owned(),
                algorithm: algorithm(args.algorithm),
            };
            ordered(order, &args.wait, args.admin)
        }
        CaCommand::Activate(args) => {
            let order = CaOrder::Activate {
                kind: args.kind.name().to_owned(),
                force: args.force,
            };
            ordered(order, &args.wait, args.admin)
        }
        CaCommand::Rotate(args) => {
            let order = CaOrder::Rotate {
                kind: args.kind.name().to_owned(),
                force: args.force,
                algorithm: algorithm(args.algorithm),
                retire: args.retire,
            };
            ordered(order, &args.wait, args.admin)
        }
        CaCommand::Emergency(args) => {
            let order = CaOrder::Emergency {
                kind: args.kind.name().to_owned(),
                algorithm: algorithm(args.algorithm),
            };
            ordered(order, &args.wait, args.admin)
        }
        CaCommand::Taint(args) => {
            let authority = args.authority;
            ordered(CaOrder::Taint { authority }, &args.wait, args.admin)
        }
        CaCommand::Revoke(args) => {
            let order = CaOrder::Revoke {
                authority: args.authority,
                force: args.force,
            };
            ordered(order, &args.wait, args.admin)
        }
        CaCommand::Wait(args) => ask(args.admin, async move |client| {
            let narration = Narration::on_stderr();
            client.wait_for(args.operation, narration, left()).await
        }),
    }
}

/// An admin who leaves is told how to come back.
async fn left() {
    end_of_session().await;
}

fn algorithm(chosen: Option<Algorithm>) -> String {
    chosen.map_or("", Algorithm::name).to_owned()
}

fn ordered(order: CaOrder, wait: &WaitArgs, admin: AdminArgs) -> ExitCode {
    // To wait is what happens anyway.
    let waits = wait.wait || !wait.no_wait;
    ask(admin, async move |client| {
        let narration = Narration::on_stderr();
        client.order(order, waits, narration, left()).await
    })
}

//! What kube says of a failure, fit for a log: kube itself shows how a program was called that makes credentials, what it has
//! written, and the lines of a kubeconfig around a mistake.

use kube::client::AuthError;
use kube::config::KubeconfigError;
use signet_runtime::error::{causes, chain};

/// Why a client could not be made, or a call failed before there was an answer.
pub(super) fn of_client(error: &kube::Error) -> String {
    let of_program = causes(error).find_map(|cause| match cause.downcast_ref() {
        Some(AuthError::AuthExecRun { out, .. }) => Some(format!(
            "the program that makes the credentials has failed ({})",
            out.status
        )),
        Some(AuthError::AuthExecParse(error)) => Some(format!(
            "what the program that makes the credentials has written cannot be read{}",
            place(error.location().map(|at| (at.line(), at.column())))
        )),
        _ => None,
    });
    of_program.unwrap_or_else(|| chain(error))
}

/// Why a kubeconfig cannot be used.
pub(super) fn of_kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => format!(
            "it does not have the form of one{}",
            place(error.location().map(|at| (at.line(), at.column())))
        ),
        error => error.to_string(),
    }
}

fn place(line_and_column: Option<(u64, u64)>) -> String {
    line_and_column.map_or_else(String::new, |(line, column)| {
        format!(" (line {line}, column {column})")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{ExitStatus, Output};

    use super::*;

    /// Credentials are made anew while a call is made, so the failure comes as one of the call.
    #[test]
    fn of_a_program_that_fails_in_a_call_only_the_status_is_said() {
        let out = Output {
            status: ExitStatus::from_raw(3 << 8),
            stdout: b"open-sesame".to_vec(),
            stderr: Vec::new(),
        };
        let failed = AuthError::AuthExecRun {
            cmd: "SECRET=open-sesame login".to_owned(),
            out: Box::new(out),
        };
        let said = of_client(&kube::Error::Service(Box::new(failed)));
        assert!(
            said.contains("exit status: 3") && !said.contains("sesame"),
            "{said}"
        );
    }
}

//! gRPC's codes.

use std::fmt;

/// How a call of gRPC ended. <https://grpc.io/docs/guides/status-codes/> says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Without an error.
    Ok,
    /// It was cancelled.
    Cancelled,
    /// For a reason without a code, or with one that is not known.
    Unknown,
    /// The call is wrong, whatever the state is.
    InvalidArgument,
    /// Time ran out.
    DeadlineExceeded,
    /// What was asked for does not exist.
    NotFound,
    /// What was to be made exists.
    AlreadyExists,
    /// The caller may not; for a workload: there is no identity for it.
    PermissionDenied,
    /// A bound was reached.
    ResourceExhausted,
    /// The state forbids it.
    FailedPrecondition,
    /// Something else got in the way.
    Aborted,
    /// Beyond what there is or may be.
    OutOfRange,
    /// There is no such call.
    Unimplemented,
    /// The other side is at fault.
    Internal,
    /// The other side cannot answer at the moment.
    Unavailable,
    /// Data is lost.
    DataLoss,
    /// The caller did not say who it is.
    Unauthenticated,
}

/// By number.
const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

impl Code {
    /// The code that a header states in decimal digits; [`Unknown`](Self::Unknown) for anything else.
    pub(super) fn from_text(text: &[u8]) -> Self {
        let number = std::str::from_utf8(text)
            .ok()
            .and_then(|digits| digits.parse::<usize>().ok());
        number
            .and_then(|number| CODES.get(number).copied())
            .unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

//! Reading a log back: is it whole, unchanged and in order? What the tests hold the emitter to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;

use super::AuditCursor;
use super::key::Head;
use super::line::hash_of;

/// What a whole log says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainSummary {
    /// Its last line.
    pub end: AuditCursor,
    /// Different lines.
    pub lines: u64,
    /// Lines that appear more than once, as they may after a crash.
    pub repeated: u64,
    /// The last position whose hash a head vouches for.
    pub signed_to: Option<u64>,
}

/// Where a log is broken. Lines are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    /// Not the JSON of an audit line, and not followed by the same line in full.
    #[error("line {line} is no audit line")]
    Unreadable {
        /// Which.
        line: usize,
    },
    /// Positions are missing.
    #[error("line {line} has sequence {found} where {expected} is due: lines are missing")]
    Gap {
        /// Which.
        line: usize,
        /// The position it should have.
        expected: u64,
        /// The position it has.
        found: u64,
    },
    /// It does not follow what stands before it: one of the two was changed.
    #[error("line {line} does not continue the line before: one of them was changed")]
    Broken {
        /// Which.
        line: usize,
    },
    /// The signature of a head does not verify.
    #[error("line {line} is a head that the audit key did not sign")]
    ForgedHead {
        /// Which.
        line: usize,
    },
    /// A head vouches for lines that are not there, or for others.
    #[error("line {line} is a head for sequence {sequence}, which the log does not have like that")]
    HeadMismatch {
        /// Which.
        line: usize,
        /// The position it vouches for.
        sequence: u64,
    },
}

#[derive(Deserialize)]
struct Position {
    sequence: u64,
    previous: String,
}

/// Checks a log, or a part of it that begins behind `start` (its first line continues that end; the default is the
/// beginning of the store). `public_key` is the audit key's, as [`AuditKey::public_key`](super::AuditKey::public_key)
/// gives it.
pub(crate) fn verify_chain<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    start: AuditCursor,
    public_key: &str,
) -> Result<ChainSummary, ChainError> {
    let mut chain = Chain {
        hashes: Vec::new(),
        start,
        torn: None,
    };
    let mut summary = ChainSummary {
        end: start,
        lines: 0,
        repeated: 0,
        signed_to: None,
    };
    for (index, text) in lines.into_iter().enumerate() {
        let line = index + 1;
        if let Ok(head) = serde_json::from_str::<Head>(text) {
            chain.check_head(line, &head, public_key)?;
            summary.signed_to = Some(head.sequence);
        } else if let Ok(position) = serde_json::from_str::<Position>(text) {
            let is_new = chain.add(line, &position, text)?;
            if is_new {
                summary.lines += 1;
            } else {
                summary.repeated += 1;
            }
        } else if chain.torn.is_none() && !text.is_empty() {
            // The writer died in the middle of a line; it is written again in full.
            chain.torn = Some(line);
        } else {
            return Err(ChainError::Unreadable { line });
        }
    }
    if let Some(line) = chain.torn {
        return Err(ChainError::Unreadable { line });
    }
    summary.end = chain.end();
    Ok(summary)
}

impl Head {
    /// Whether the key made this head.
    fn is_signed_by(&self, public_key: &str) -> bool {
        let (Ok(point), Ok(signature)) = (BASE64.decode(public_key), BASE64.decode(&self.signature)) else {
            return false;
        };
        self.public_key == public_key
            && UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                .verify(&self.statement(), &signature)
                .is_ok()
    }
}

struct Chain {
    start: AuditCursor,
    /// Hash of every line, from `start.sequence + 1` on.
    hashes: Vec<[u8; 32]>,
    /// A line that did not read and has not been followed by a whole one.
    torn: Option<usize>,
}

impl Chain {
    fn end(&self) -> AuditCursor {
        match self.hashes.last() {
            Some(hash) => AuditCursor {
                sequence: self.start.sequence + self.hashes.len() as u64,
                hash: *hash,
            },
            None => self.start,
        }
    }

    fn hash_at(&self, sequence: u64) -> Option<[u8; 32]> {
        if sequence == self.start.sequence {
            return Some(self.start.hash);
        }
        let index = usize::try_from(sequence.checked_sub(self.start.sequence + 1)?).ok()?;
        self.hashes.get(index).copied()
    }

    /// Whether the line is new.
    fn add(&mut self, line: usize, position: &Position, text: &str) -> Result<bool, ChainError> {
        let (end, found, hash) = (self.end(), position.sequence, hash_of(text));
        if let Some(known) = self.hash_at(found).filter(|_| found > self.start.sequence) {
            self.torn = None;
            return if known == hash {
                Ok(false)
            } else {
                Err(ChainError::Broken { line })
            };
        }
        if found != end.sequence + 1 {
            return Err(ChainError::Gap {
                line,
                expected: end.sequence + 1,
                found,
            });
        }
        if position.previous != hex::encode(end.hash) {
            return Err(ChainError::Broken { line });
        }
        self.torn = None;
        self.hashes.push(hash);
        Ok(true)
    }

    fn check_head(&self, line: usize, head: &Head, public_key: &str) -> Result<(), ChainError> {
        if !head.is_signed_by(public_key) {
            return Err(ChainError::ForgedHead { line });
        }
        match self.hash_at(head.sequence) {
            Some(hash) if hex::encode(hash) == head.hash => Ok(()),
            _ => Err(ChainError::HeadMismatch {
                line,
                sequence: head.sequence,
            }),
        }
    }
}

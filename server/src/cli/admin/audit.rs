//! By what the audit log is verified, as the server says it.

use anyhow::Context as _;
use signet_proto::admin as wire;

use super::{AdminClient, said};
use crate::audit::verify::Written;
use crate::audit::{AuditCursor, AuditPublicKey};

/// What a running server says of its log.
pub(in crate::cli) struct AuditOfServer {
    /// The key that signs its heads.
    pub key: AuditPublicKey,
    /// How far it has written.
    pub written: Written,
    /// The newest head, as it stands in the log; none before the first.
    pub head: Option<String>,
}

impl AdminClient {
    /// By what the log is verified.
    ///
    /// # Errors
    /// What the server answered, or that it makes no sense.
    pub(in crate::cli) async fn audit(&mut self) -> anyhow::Result<AuditOfServer> {
        let asked = self.inner.show_audit(wire::ShowAuditRequest {}).await;
        let audit = asked.map_err(said)?.into_inner();
        let hash = audit.hash.as_ref().try_into();
        let hash = hash.context("the server names no line of its log: is it of another release?")?;
        let end = AuditCursor {
            sequence: audit.sequence,
            hash,
        };
        Ok(AuditOfServer {
            key: AuditPublicKey::from_base64(&audit.public_key)?,
            written: Written {
                server: audit.server_id,
                end,
            },
            head: Some(audit.head).filter(|head| !head.is_empty()),
        })
    }

    /// Lines of the log.
    ///
    /// # Errors
    /// What the server answered.
    pub(in crate::cli) async fn tail(&mut self, question: AuditQuestion) -> anyhow::Result<AuditLines> {
        let request = wire::TailAuditRequest {
            spiffe_id: question.spiffe_id.unwrap_or_default(),
            pod: question.pod.unwrap_or_default(),
            serial: question.serial.unwrap_or_default(),
            author: question.author.unwrap_or_default(),
            follow: question.follow,
            last: question.last,
        };
        let lines = self.inner.tail_audit(request).await.map_err(said)?;
        Ok(AuditLines(lines.into_inner()))
    }
}

/// Which lines of the log somebody wants to see.
pub(in crate::cli) struct AuditQuestion {
    pub(in crate::cli) spiffe_id: Option<String>,
    pub(in crate::cli) pod: Option<String>,
    pub(in crate::cli) serial: Option<String>,
    pub(in crate::cli) author: Option<String>,
    /// Those that come, too.
    pub(in crate::cli) follow: bool,
    /// So many of those before.
    pub(in crate::cli) last: u32,
}

/// Something that he is told.
pub(in crate::cli) enum AuditTold {
    /// A line, as it stands in the log.
    Line(String),
    /// For people, beside the lines.
    Note(String),
}

/// Lines of the log as they come.
pub(in crate::cli) struct AuditLines(tonic::Streaming<wire::AuditLine>);

impl AuditLines {
    /// The next one; none after the last.
    ///
    /// # Errors
    /// Why there will be no more.
    pub(in crate::cli) async fn next(&mut self) -> anyhow::Result<Option<AuditTold>> {
        let told = self.0.message().await.map_err(said)?;
        Ok(told.map(|told| match told {
            wire::AuditLine { lagged: 1.., .. } => AuditTold::Note(format!(
                "{} lines went by before they were taken; the files of the log have them",
                told.lagged
            )),
            wire::AuditLine { note, .. } if !note.is_empty() => AuditTold::Note(note),
            wire::AuditLine { line, .. } => AuditTold::Line(line),
        }))
    }
}

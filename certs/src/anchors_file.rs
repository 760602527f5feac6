//! The file of control anchors: whom agents recognise their server by, and whom never again.
//!
//! Certificates are PEM blocks. Lines `distrusted: ID [ID…]` outside them name authorities that are not to be trusted, whoever names
//! them. Other text between blocks means nothing, so that readers that do not know such lines read the certificates alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::authority::{AuthorityCertificate, AuthorityId};
use crate::bundle::parse_pem_certificates;

/// Largest file that is read, in bytes.
pub const MAX_ANCHORS_FILE: usize = 1024 * 1024;
/// Most authorities that a file distrusts.
pub const MAX_DISTRUSTED: usize = 1024;

/// Begins a line that names authorities which are not to be trusted.
const DISTRUSTED: &str = "distrusted:";

/// What such a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnchorsFile {
    certificates: Vec<AuthorityCertificate>,
    distrusted: BTreeSet<AuthorityId>,
}

/// Why a file is refused. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsFileError {
    /// More than [`MAX_ANCHORS_FILE`].
    #[error("it holds {0} bytes, of at most {MAX_ANCHORS_FILE}")]
    Large(usize),
    /// Neither a certificate nor a distrusted authority.
    #[error("it holds no certificate")]
    Empty,
    /// A block without an end, without a beginning, or with another one inside.
    #[error("line {line}: {what}")]
    Block {
        /// Where.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A block that is not the certificate of an authority.
    #[error("line {line}: {problem}")]
    Certificate {
        /// Where the block begins.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A word after `distrusted:` that is no authority's ID.
    #[error("line {line}: {word:?} is no authority's ID, which is 40 hexadecimal digits")]
    Id {
        /// Where.
        line: usize,
        /// As it stands there, cut short.
        word: String,
    },
    /// More than [`MAX_DISTRUSTED`].
    #[error("it distrusts more than {MAX_DISTRUSTED} authorities")]
    Many,
}

impl AnchorsFile {
    /// A file with these. A certificate of a distrusted authority is left out.
    #[must_use]
    pub fn new(
        certificates: impl IntoIterator<Item = AuthorityCertificate>,
        distrusted: impl IntoIterator<Item = AuthorityId>,
    ) -> Self {
        let distrusted: BTreeSet<_> = distrusted.into_iter().collect();
        let trusted = certificates
            .into_iter()
            .filter(|one| !distrusted.contains(&one.id()));
        Self {
            certificates: trusted.collect(),
            distrusted,
        }
    }

    /// Reads a file. One that only distrusts is read as well, and names no certificate.
    ///
    /// # Errors
    /// [`AnchorsFileError`]; what it distrusts all the same says [`readable_distrust`].
    pub fn parse(file: &[u8]) -> Result<Self, AnchorsFileError> {
        if file.len() > MAX_ANCHORS_FILE {
            return Err(AnchorsFileError::Large(file.len()));
        }
        let (mut certificates, mut distrusted) = (Vec::new(), BTreeSet::new());
        let mut block: Option<Block> = None;
        for (line, text) in lines(file) {
            let begins = text.starts_with(b"-----BEGIN ");
            let ends = text.starts_with(b"-----END ");
            match (&mut block, begins, ends) {
                (Some(_), true, _) => return Err(wrong(line, "a block begins inside another one")),
                (Some(open), _, _) => {
                    open.take(text);
                    if ends && let Some(whole) = block.take() {
                        certificates.push(whole.certificate()?);
                    }
                }
                (None, true, _) => block = Some(Block::begun(line, text)),
                (None, _, true) => return Err(wrong(line, "a block ends that has not begun")),
                (None, false, false) if is_mistyped(text) => {
                    return Err(wrong(
                        line,
                        "it names whom not to trust and does not begin with `distrusted:`",
                    ));
                }
                (None, false, false) => {
                    for word in words(text).into_iter().flatten() {
                        distrusted.insert(id(word).ok_or_else(|| not_an_id(line, word))?);
                    }
                }
            }
        }
        if let Some(open) = block {
            return Err(wrong(open.line, "a block begins that does not end"));
        }
        match (certificates.is_empty(), distrusted.len()) {
            (true, 0) => Err(AnchorsFileError::Empty),
            (_, number) if number > MAX_DISTRUSTED => Err(AnchorsFileError::Many),
            _ => Ok(Self::new(certificates, distrusted)),
        }
    }

    /// The file's text: equal contents in equal order give equal text, which [`parse`](Self::parse) reads back.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for id in &self.distrusted {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{DISTRUSTED} {id}");
        }
        text.extend(self.certificates.iter().map(AuthorityCertificate::pem));
        text
    }

    /// The control authorities that it trusts, in its order.
    #[must_use]
    pub fn certificates(&self) -> &[AuthorityCertificate] {
        &self.certificates
    }

    /// The authorities that are not to be trusted.
    #[must_use]
    pub fn distrusted(&self) -> &BTreeSet<AuthorityId> {
        &self.distrusted
    }
}

/// What a file distrusts so far as it can be read, whatever else is wrong with it: a mistake beside a name must not make the bearer
/// of that name trusted. Looks at [`MAX_ANCHORS_FILE`] bytes, and takes [`MAX_DISTRUSTED`] names.
#[must_use]
pub fn readable_distrust(file: &[u8]) -> BTreeSet<AuthorityId> {
    let looked_at = file.get(..MAX_ANCHORS_FILE).unwrap_or(file);
    let words = lines(looked_at).flat_map(|(_, text)| {
        let mistyped = is_mistyped(text).then(|| text.split(is_end));
        words(text)
            .into_iter()
            .flatten()
            .chain(mistyped.into_iter().flatten())
    });
    let mut distrusted = BTreeSet::new();
    for id in words.filter_map(id) {
        if distrusted.len() == MAX_DISTRUSTED {
            break;
        }
        distrusted.insert(id);
    }
    distrusted
}

/// A PEM block so far as it was read.
struct Block {
    line: usize,
    text: Vec<u8>,
}

impl Block {
    fn begun(line: usize, text: &[u8]) -> Self {
        let mut block = Self {
            line,
            text: Vec::new(),
        };
        block.take(text);
        block
    }

    fn take(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
        self.text.push(b'\n');
    }

    fn certificate(self) -> Result<AuthorityCertificate, AnchorsFileError> {
        let line = self.line;
        let refused = |problem: String| AnchorsFileError::Certificate { line, problem };
        let text = String::from_utf8(self.text).map_err(|error| refused(error.to_string()))?;
        let blocks = parse_pem_certificates(&text).map_err(|error| refused(error.to_string()))?;
        let der = blocks.first().map(Vec::as_slice).unwrap_or_default();
        AuthorityCertificate::from_der(der).map_err(|error| refused(error.to_string()))
    }
}

/// With their numbers, without the white space at their ends; an editor's byte order mark is none of the first.
fn lines(file: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    (1..).zip(file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii))
}

/// The words after `distrusted:`; `None` where the line does not begin so.
fn words(line: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let begin = line.get(..DISTRUSTED.len())?;
    let rest = line.get(DISTRUSTED.len()..)?;
    let words = rest.split(is_end).filter(|word| !word.is_empty());
    begin.eq_ignore_ascii_case(DISTRUSTED.as_bytes()).then_some(words)
}

fn is_end(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || *byte == b','
}

/// Speaks of distrust, names an authority, and is no line that does so.
fn is_mistyped(line: &[u8]) -> bool {
    let speaks = line
        .windows(b"distrust".len())
        .any(|word| word.eq_ignore_ascii_case(b"distrust"));
    speaks && words(line).is_none() && line.split(is_end).any(|word| id(word).is_some())
}

fn id(word: &[u8]) -> Option<AuthorityId> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn wrong(line: usize, what: &'static str) -> AnchorsFileError {
    AnchorsFileError::Block { line, what }
}

fn not_an_id(line: usize, word: &[u8]) -> AnchorsFileError {
    /// A word that is longer is cut: it goes into messages.
    const MOST: usize = 60;
    let word = String::from_utf8_lossy(word.get(..MOST).unwrap_or(word)).into_owned();
    AnchorsFileError::Id { line, word }
}

#[cfg(test)]
mod tests;

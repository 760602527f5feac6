//! Reads whatever is in a file, PEM or DER, and says what each object is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use signet_certs::authority::AuthorityCertificate;
use signet_certs::crl::inspect_crl;
use signet_certs::signer::LeafKey;
use signet_certs::split_certificates;
use signet_certs::verify::inspect_leaf;
use signet_runtime::error::chain;
use zeroize::Zeroizing;

use super::{Found, Paper};

/// The largest list that anybody would publish is smaller.
const LONGEST: u64 = 64 << 20;
/// Bits of a mode that let others than owner and group read.
const OTHERS: u32 = 0o004;
/// The link by which a set of files is found.
const DATA: &str = "..data";

/// All objects of a file; of a folder, of all its files. A folder that holds a set is resolved once, so that what is read fits together.
///
/// # Errors
/// When it cannot be read, or there is nothing in it.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Found>> {
    let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
    if !metadata.is_dir() {
        return read_file(path);
    }
    let data = path.join(DATA);
    let folder = data.canonicalize().unwrap_or_else(|_| path.to_owned());
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.is_file());
    files.sort();
    if files.is_empty() {
        bail!("{}: there is no file in it", path.display());
    }
    let mut found = Vec::new();
    for file in files {
        found.extend(read_file(&file)?);
    }
    Ok(found)
}

fn read_file(path: &Path) -> anyhow::Result<Vec<Found>> {
    let shown = || path.display().to_string();
    let bytes = Zeroizing::new(signet_runtime::files::read(path, LONGEST).with_context(shown)?);
    let mode = fs::metadata(path).with_context(shown)?.permissions().mode();
    let is_open = mode & OTHERS != 0;
    let papers = if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        of_pem(&bytes, is_open)
    } else {
        of_der(&bytes, is_open)
    };
    let found = |paper| Found {
        file: path.to_owned(),
        paper,
    };
    Ok(papers.into_iter().map(found).collect())
}

fn of_pem(text: &[u8], is_open: bool) -> Vec<Paper> {
    let mut papers = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        papers.push(match section {
            Ok((SectionKind::Certificate, der)) => certificate(&der),
            Ok((SectionKind::Crl, der)) => list(&der),
            Ok((SectionKind::PrivateKey, der)) => key(Zeroizing::new(der), is_open),
            Ok((kind, _)) => unusable(
                &format!("{kind:?}"),
                "only PKCS#8 keys, certificates and lists are read",
            ),
            Err(error) => {
                papers.push(unusable("PEM", error));
                break;
            }
        });
    }
    papers
}

/// One object behind the other. Nothing says what each is, so all is tried.
fn of_der(bytes: &[u8], is_open: bool) -> Vec<Paper> {
    if bytes.is_empty() {
        // A list of no authority, for instance.
        return Vec::new();
    }
    let objects = match split_certificates(bytes) {
        Ok(objects) => objects,
        Err(error) => return vec![unusable("bytes", format!("neither PEM nor DER: {error}"))],
    };
    let paper = |der: &[u8]| match (
        certificate(der),
        list(der),
        key(Zeroizing::new(der.to_vec()), is_open),
    ) {
        (paper @ (Paper::Svid(..) | Paper::Authority(_)), ..) => paper,
        (_, paper @ Paper::Crl(..), _) => paper,
        (.., paper @ Paper::Key { .. }) => paper,
        (Paper::Unusable { why, .. }, ..) => {
            unusable("DER", format!("no list and no key; as a certificate: {why}"))
        }
        _ => unusable("DER", "it is nothing that is read here"),
    };
    objects.into_iter().map(paper).collect()
}

fn certificate(der: &[u8]) -> Paper {
    if let Ok(authority) = AuthorityCertificate::from_der(der) {
        return Paper::Authority(authority);
    }
    match inspect_leaf(der) {
        Ok(leaf) => Paper::Svid(leaf, der.to_vec()),
        Err(error) => unusable("certificate", chain(&error)),
    }
}

fn list(der: &[u8]) -> Paper {
    match inspect_crl(der) {
        Ok(info) => Paper::Crl(info, der.to_vec()),
        Err(error) => unusable("list", chain(&error)),
    }
}

fn key(pkcs8: Zeroizing<Vec<u8>>, is_open: bool) -> Paper {
    match LeafKey::from_pkcs8(pkcs8, &SystemRandom::new()) {
        Ok(key) => {
            let mut spki_sha256 = [0; 32];
            spki_sha256.copy_from_slice(digest(&SHA256, &key.public_key_spki()).as_ref());
            Paper::Key { spki_sha256, is_open }
        }
        Err(error) => unusable("key", chain(&error)),
    }
}

fn unusable(label: &str, why: impl ToString) -> Paper {
    Paper::Unusable {
        label: label.to_owned(),
        why: why.to_string(),
    }
}

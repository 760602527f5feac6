//! An identity as files, for programs that read files: which files, in what form, by what name, mode and owner. They belong together and are
//! published as one [set](signet_runtime::files::publish).

mod named;

use std::path::Path;

use ring::digest::{Context, SHA256};
use signet_certs::pem;
use signet_certs::svid::X509Svid;
use signet_certs::verify::TrustedAuthority;
use signet_runtime::files::{FileError, NewFile, Owner, Shown, publish};
use zeroize::Zeroizing;

pub(crate) use self::named::{NamedError, key_mode, mode};

/// Mode of what others may read, where nobody says otherwise.
pub(crate) const PUBLIC: u32 = 0o644;
/// Mode of what holds the key, where nobody says otherwise.
pub(crate) const PRIVATE: u32 = 0o600;

/// What a file holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// The SVID and what stands between it and its authority.
    Svid,
    /// Its key, as PKCS#8.
    Key,
    /// Both, in this order, for programs that open one file.
    SvidAndKey,
    /// The authorities of the SVID's trust domain.
    Bundle,
    /// Their CRLs: of each authority the one that there is.
    Crl,
    /// Both, in this order, for programs that read lists among the authorities.
    BundleAndCrl,
}

/// How it is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Form {
    /// RFC 7468.
    #[default]
    Pem,
    /// Objects one behind the other.
    Der,
}

/// One file of a set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct File {
    pub part: Part,
    pub form: Form,
    pub name: String,
    /// Its own; else that of all that hold a key, or of all that hold none.
    pub mode: Option<u32>,
}

/// The files of a set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Layout {
    files: Vec<File>,
    pub key_mode: u32,
    pub public_mode: u32,
    pub owner: Owner,
}

impl Default for Layout {
    fn default() -> Self {
        let file = |(part, name): (Part, &str)| File {
            part,
            form: Form::Pem,
            name: name.to_owned(),
            mode: None,
        };
        let usual = [
            (Part::Svid, "svid.pem"),
            (Part::Key, "svid_key.pem"),
            (Part::SvidAndKey, "svid_with_key.pem"),
            (Part::Bundle, "bundle.pem"),
            (Part::Crl, "crl.pem"),
        ];
        Self {
            files: usual.map(file).to_vec(),
            key_mode: PRIVATE,
            public_mode: PUBLIC,
            owner: Owner::default(),
        }
    }
}

impl Layout {
    /// These files and no others.
    ///
    /// # Errors
    /// When two have one name.
    pub(crate) fn of(files: Vec<File>) -> Result<Self, NamedError> {
        named::all_differ(&files)?;
        Ok(Self {
            files,
            ..Self::default()
        })
    }

    /// The names, in their order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }

    /// What is written of an identity, its bundle and the CRLs.
    pub(crate) fn fill(&self, svid: &X509Svid, bundle: &[TrustedAuthority]) -> Set {
        let contents = |file: &File| (file.clone(), file.content(svid, bundle));
        Set {
            files: self.files.iter().map(contents).collect(),
            key_mode: self.key_mode,
            public_mode: self.public_mode,
            owner: self.owner,
        }
    }
}

impl Part {
    /// Whether who reads it can act as the workload.
    pub(crate) const fn has_key(self) -> bool {
        matches!(self, Self::Key | Self::SvidAndKey)
    }

    /// Labels and objects, in their order.
    fn objects<'a>(
        self,
        svid: &'a X509Svid,
        bundle: &'a [TrustedAuthority],
    ) -> Vec<(&'static str, &'a [u8])> {
        let chain = || svid.chain().iter().map(|der| ("CERTIFICATE", der.as_slice()));
        let key = || std::iter::once(("PRIVATE KEY", svid.key().pkcs8_der()));
        let authorities = || bundle.iter().map(|one| ("CERTIFICATE", one.certificate.der()));
        let crls = || {
            let there = bundle.iter().filter_map(|one| one.crl.as_ref());
            there.map(|crl| ("X509 CRL", crl.der().as_ref()))
        };
        match self {
            Self::Svid => chain().collect(),
            Self::Key => key().collect(),
            Self::SvidAndKey => chain().chain(key()).collect(),
            Self::Bundle => authorities().collect(),
            Self::Crl => crls().collect(),
            Self::BundleAndCrl => authorities().chain(crls()).collect(),
        }
    }
}

impl File {
    fn content(&self, svid: &X509Svid, bundle: &[TrustedAuthority]) -> Zeroizing<Vec<u8>> {
        let objects = self.part.objects(svid, bundle);
        let written = objects.into_iter().map(|(label, der)| match self.form {
            Form::Pem => Zeroizing::new(pem::encode(label, der).into_bytes()),
            Form::Der => Zeroizing::new(der.to_vec()),
        });
        let written: Vec<_> = written.collect();
        // In one piece of memory that is not moved while it fills.
        let mut all = Zeroizing::new(Vec::with_capacity(written.iter().map(|one| one.len()).sum()));
        written.iter().for_each(|one| all.extend_from_slice(one));
        all
    }
}

/// All that is written at once.
pub(crate) struct Set {
    files: Vec<(File, Zeroizing<Vec<u8>>)>,
    key_mode: u32,
    public_mode: u32,
    owner: Owner,
}

impl Set {
    /// Two sets are the same if this is.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut digest = Context::new(&SHA256);
        for (_, content) in &self.files {
            digest.update(&u64::try_from(content.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(content);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        bytes
    }

    /// Writes them into `directory`, which is made when it is missing. Any number of processes of one user may do so at once: each publishes
    /// a whole set, and the last one stays. Blocks for as long as others write.
    ///
    /// # Errors
    /// [`FileError`]; then readers find what they found before.
    pub(crate) fn write(&self, directory: &Path) -> Result<Shown, FileError> {
        let mode = |file: &File| match file.mode {
            Some(mode) => mode,
            None if file.part.has_key() => self.key_mode,
            None => self.public_mode,
        };
        let files: Vec<NewFile<'_>> = self
            .files
            .iter()
            .map(|(file, content)| NewFile {
                name: &file.name,
                bytes: content,
                mode: mode(file),
                owner: self.owner,
            })
            .collect();
        publish(directory, &files)
    }
}

#[cfg(test)]
mod tests;

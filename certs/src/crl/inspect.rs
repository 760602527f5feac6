//! What a list says of itself, for people who look at a file.

use std::time::SystemTime;

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{CrlError, CrlNumber};
use crate::authority::AuthorityId;
use crate::der;
use crate::time::from_unix_seconds;

/// What a CRL says about itself. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlInfo {
    /// Its issuer's key, from AuthorityKeyIdentifier, if that has 160 bits.
    pub authority_id: Option<AuthorityId>,
    /// Its number, if it has one of 64 bits.
    pub number: Option<CrlNumber>,
    /// When it was made.
    pub this_update: SystemTime,
    /// When it ends, if it says so.
    pub next_update: Option<SystemTime>,
    /// How many serials it lists.
    pub entries: usize,
}

/// Reads a CRL and verifies nothing: for use there is [`Crl::verify`](super::Crl::verify).
///
/// # Errors
/// When the bytes are none.
pub fn inspect_crl(der: &[u8]) -> Result<CrlInfo, CrlError> {
    der::signed(der)?;
    let (_, list) =
        CertificateRevocationList::from_der(der).map_err(|error| CrlError::Malformed(error.to_string()))?;
    let mut info = CrlInfo {
        authority_id: None,
        number: None,
        this_update: from_unix_seconds(list.last_update().timestamp()),
        next_update: list.next_update().map(|end| from_unix_seconds(end.timestamp())),
        entries: list.iter_revoked_certificates().count(),
    };
    for extension in list.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::CRLNumber(value) => info.number = u64::try_from(value).ok().map(CrlNumber),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                let id = id
                    .key_identifier
                    .as_ref()
                    .and_then(|id| <[u8; 20]>::try_from(id.0).ok());
                info.authority_id = id.map(AuthorityId::from_bytes);
            }
            _ => {}
        }
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn a_list_says_what_it_is_whoever_signed_it() {
        let authority = authority("example.org");
        let list = crl(&authority, &[]);
        let info = inspect_crl(list.der()).unwrap();
        assert_eq!(info.authority_id, Some(list.authority_id()));
        assert_eq!((info.number, info.entries), (Some(list.number()), 0));
        assert_eq!(info.next_update, Some(list.next_update()));
        assert!(inspect_crl(authority.certificate().der()).is_err());
        assert!(inspect_crl(b"").is_err());
    }
}

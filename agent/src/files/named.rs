//! How files of a set are named on a command line: `PART=NAME[,der][,mode=MODE]`.

use std::collections::HashSet;
use std::str::FromStr;

use signet_runtime::files::LONGEST_NAME;
use thiserror::Error;

use super::{File, Form, Part};

/// Words for what a file holds.
const PARTS: [(&str, Part); 6] = [
    ("svid", Part::Svid),
    ("key", Part::Key),
    ("svid+key", Part::SvidAndKey),
    ("bundle", Part::Bundle),
    ("crl", Part::Crl),
    ("bundle+crl", Part::BundleAndCrl),
];

/// Bits of those who are neither owner nor of the group.
const OTHERS: u32 = 0o007;

/// Why that names no file.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub(crate) enum NamedError {
    #[error("write PART=NAME, where PART is one of svid, key, svid+key, bundle, crl, bundle+crl")]
    Part,
    #[error("the name has to be one part of a path, and must not begin with two dots")]
    Name,
    #[error("a name is of {LONGEST_NAME} bytes at most, without control characters")]
    LongName,
    #[error("`{0}` is neither der, pem nor mode=MODE")]
    Option(String),
    #[error("DER has no form for a certificate and its key, or authorities and lists, in one file")]
    MixedDer,
    #[error("a mode has three octal digits, as 0640")]
    Mode,
    #[error("with this mode everybody could read the key")]
    OpenKey,
    #[error("two files have the name `{0}`")]
    Twice(String),
}

/// Reads a mode.
///
/// # Errors
/// When it is none, or has bits beyond those of reading, writing and executing.
pub(crate) fn mode(text: &str) -> Result<u32, NamedError> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).map_err(|_| NamedError::Mode)?;
    if is_octal && mode <= 0o777 {
        Ok(mode)
    } else {
        Err(NamedError::Mode)
    }
}

/// # Errors
/// When everybody could read what has this mode.
pub(crate) fn key_mode(text: &str) -> Result<u32, NamedError> {
    let mode = mode(text)?;
    if mode & OTHERS == 0 {
        Ok(mode)
    } else {
        Err(NamedError::OpenKey)
    }
}

/// # Errors
/// When two have one name.
pub(super) fn all_differ(files: &[File]) -> Result<(), NamedError> {
    let mut names = HashSet::new();
    match files.iter().find(|file| !names.insert(file.name.as_str())) {
        Some(file) => Err(NamedError::Twice(file.name.clone())),
        None => Ok(()),
    }
}

impl FromStr for File {
    type Err = NamedError;

    fn from_str(text: &str) -> Result<Self, NamedError> {
        let (word, rest) = text.split_once('=').ok_or(NamedError::Part)?;
        let (_, part) = PARTS
            .into_iter()
            .find(|(name, _)| *name == word)
            .ok_or(NamedError::Part)?;
        let mut fields = rest.split(',');
        let name = fields.next().unwrap_or_default().to_owned();
        if name.is_empty() || name == "." || name.starts_with("..") || name.contains(['/', '\0']) {
            return Err(NamedError::Name);
        }
        // Line breaks among them: names stand in lists and in the log.
        if name.len() > LONGEST_NAME || name.contains(char::is_control) {
            return Err(NamedError::LongName);
        }
        let mut file = Self {
            part,
            form: Form::Pem,
            name,
            mode: None,
        };
        for field in fields {
            match field.split_once('=') {
                None if field == "der" => file.form = Form::Der,
                None if field == "pem" => file.form = Form::Pem,
                Some(("mode", text)) if part.has_key() => file.mode = Some(key_mode(text)?),
                Some(("mode", text)) => file.mode = Some(mode(text)?),
                _ => return Err(NamedError::Option(field.to_owned())),
            }
        }
        if file.form == Form::Der && matches!(part, Part::SvidAndKey | Part::BundleAndCrl) {
            return Err(NamedError::MixedDer);
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_with_its_form_and_its_mode() {
        let read = |text: &str| text.parse::<File>();
        let file = read("crl=lists.der,der,mode=0640").unwrap();
        assert_eq!(
            (file.part, file.form, file.mode),
            (Part::Crl, Form::Der, Some(0o640))
        );
        assert_eq!(read("svid+key=a.pem").unwrap().part, Part::SvidAndKey);
        let (longest, too_long) = (LONGEST_NAME, LONGEST_NAME + 1);
        assert!(read(&format!("svid={}", "n".repeat(longest))).is_ok());
        let too_long = format!("svid={}", "n".repeat(too_long));
        for (text, fault) in [
            ("svid.pem", NamedError::Part),
            ("cert=a", NamedError::Part),
            ("svid=", NamedError::Name),
            ("svid=..data", NamedError::Name),
            ("svid=a/b", NamedError::Name),
            ("svid=a\nb", NamedError::LongName),
            ("svid=a\u{9b}b", NamedError::LongName),
            (&too_long, NamedError::LongName),
            ("svid=a,jks", NamedError::Option("jks".to_owned())),
            ("svid+key=a,der", NamedError::MixedDer),
            ("svid=a,mode=1644", NamedError::Mode),
            ("svid=a,mode=+64", NamedError::Mode),
            ("svid=a,mode=abc", NamedError::Mode),
            ("key=a,mode=0644", NamedError::OpenKey),
            ("svid+key=a,mode=0604", NamedError::OpenKey),
        ] {
            assert_eq!(read(text), Err(fault), "{text}");
        }
        let twice = vec![read("svid=a").unwrap(), read("key=a").unwrap()];
        assert_eq!(all_differ(&twice), Err(NamedError::Twice("a".to_owned())));
    }
}

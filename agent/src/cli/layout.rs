//! The options about files, of all commands that write them.

use clap::Args;
use nix::unistd::{Group, User};
use signet_runtime::files::Owner;

use crate::files::{File, Layout, NamedError, key_mode, mode};

/// Which files, of what mode and owner.
#[derive(Clone, Debug, Args)]
#[group(requires = "write")]
pub(super) struct LayoutArgs {
    /// A file to write, for each once; without any: svid=svid.pem, key=svid_key.pem, svid+key=svid_with_key.pem, bundle=bundle.pem,
    /// crl=crl.pem. PART is svid, key, svid+key, bundle, crl or bundle+crl; PEM unless `,der` follows the name; `,mode=0640` is its own mode.
    #[arg(long = "file", value_name = "PART=NAME[,der][,mode=MODE]")]
    files: Vec<File>,
    /// Mode of files that hold the key; nobody but owner and group may read them [default: 0600].
    #[arg(long, value_name = "MODE", value_parser = key_mode)]
    key_mode: Option<u32>,
    /// Mode of the other files [default: 0644].
    #[arg(long, value_name = "MODE", value_parser = mode)]
    public_mode: Option<u32>,
    /// Whose the files are, by names or numbers; another user than the own needs root or CAP_CHOWN, a group of one's own nothing.
    #[arg(long, value_name = "[USER][:GROUP]", value_parser = owner)]
    owner: Option<Owner>,
}

impl LayoutArgs {
    /// # Errors
    /// When two files have one name.
    pub(super) fn layout(&self) -> Result<Layout, NamedError> {
        let mut layout = match self.files.as_slice() {
            [] => Layout::default(),
            files => Layout::of(files.to_vec())?,
        };
        layout.key_mode = self.key_mode.unwrap_or(layout.key_mode);
        layout.public_mode = self.public_mode.unwrap_or(layout.public_mode);
        layout.owner = self.owner.unwrap_or_default();
        Ok(layout)
    }
}

/// Reads who owns the files.
fn owner(text: &str) -> Result<Owner, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, ""),
    };
    if user.is_empty() && group.is_empty() {
        return Err("write USER, USER:GROUP or :GROUP".to_owned());
    }
    let uid = number("user", user, |name| {
        Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
    })?;
    let gid = number("group", group, |name| {
        Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
    })?;
    Ok(Owner { uid, gid })
}

fn number(
    what: &str,
    text: &str,
    by_name: impl FnOnce(&str) -> nix::Result<Option<u32>>,
) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = text.parse() {
        return Ok(Some(number));
    }
    match by_name(text) {
        Ok(Some(number)) => Ok(Some(number)),
        Ok(None) => Err(format!("this machine has no {what} `{text}`")),
        Err(error) => Err(format!("{what} `{text}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_user_a_group_or_both() {
        let of = |uid, gid| Ok(Owner { uid, gid });
        assert_eq!(owner("0"), of(Some(0), None));
        assert_eq!(owner("root:33"), of(Some(0), Some(33)));
        assert_eq!(owner(":root"), of(None, Some(0)));
        assert!(owner("").is_err() && owner(":").is_err());
        assert!(owner("nobody-of-that-name").unwrap_err().contains("no user"));
    }
}

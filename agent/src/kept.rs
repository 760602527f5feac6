//! What outlives a restart of the agent and is secret: certificates with their keys. They are written only where they go
//! with the machine's power, and judged anew by whoever reads them. A version apart reads them too, older or newer: fields
//! are only added, one that is missing has its default, and one that is unknown is passed over.

mod file;
mod place;

pub(crate) use self::file::{SvidHex, SvidText, read, remove, write};
pub(crate) use self::place::{Ground, Keeping, Places};

#[cfg(test)]
mod tests;

//! What the server must not forget.

pub mod sqlite;

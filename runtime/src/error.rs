//! Errors as one line of text: with what caused them, and with what others wrote.

use std::error::Error;

/// The error, then its cause, then that one's, to the root.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'e (dyn Error + 'static)| error.source())
}

/// The error with everything that led to it: `cannot sign: the key is lost: no such file`. A cause that those before it
/// have told already is left out.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// What it all began with; the error itself when it has no cause.
#[must_use]
pub fn root<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

/// The beginning of a text that someone else wrote, escaped, so that it fits within a line of a message: at most
/// `longest` characters of it.
#[must_use]
pub fn excerpt(text: &str, longest: usize) -> String {
    text.chars().take(longest).flat_map(char::escape_debug).collect()
}

/// The text as one line that moves no cursor, and that reads in the order of its letters: line breaks and tabs are spaces, other control
/// characters `?`, and so is what is not seen and turns or joins what is.
#[must_use]
pub fn one_line(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => '?',
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => '?',
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => '?',
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn link(text: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Link {
        let source = Some(source.into());
        Link { text, source }
    }

    #[test]
    fn every_cause_is_told_once_in_its_order() {
        let error = link("cannot sign", link("the key is lost", io::Error::other("EIO")));
        assert_eq!(chain(&error), "cannot sign: the key is lost: EIO");
        assert_eq!(root(&error).to_string(), "EIO");
        assert_eq!(causes(&error).count(), 3);
    }

    #[test]
    fn what_a_message_quotes_is_not_said_again() {
        let error = link("/x: cannot sync: EIO", link("EIO", io::Error::other("disk gone")));
        assert_eq!(chain(&error), "/x: cannot sync: EIO: disk gone");
    }

    #[test]
    fn what_others_wrote_takes_one_line_of_bounded_length() {
        assert_eq!(excerpt("a\nb\u{1b}[31m é", 100), "a\\nb\\u{1b}[31m é");
        assert_eq!(excerpt("abcdef", 3), "abc");
        assert!(excerpt(&"\0".repeat(10_000), 50).len() <= 50 * 4);
    }

    #[test]
    fn what_is_made_one_line_moves_no_cursor() {
        assert_eq!(one_line("a\nb\tc\u{1b}[31m\u{9b}é"), "a b c?[31m?é");
        assert_eq!(
            one_line("a\u{202e}b\u{2066}\u{2069}\u{200b}\u{200f}\u{2028}\u{2029}\u{202a}c"),
            "a?b???????c"
        );
        for unseen in [
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{2060}',
            '\u{2064}',
            '\u{206a}',
            '\u{feff}',
            '\u{fffb}',
            '\u{e0041}',
        ] {
            assert_eq!(one_line(&format!("a{unseen}b")), "a?b", "{unseen:?}");
        }
        assert_eq!(one_line("\u{2010}\u{2027}\u{202f}"), "\u{2010}\u{2027}\u{202f}");
    }

    #[test]
    fn an_error_without_a_cause_is_its_own_root() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(chain(&error), error.to_string());
        assert_eq!(root(&error).to_string(), error.to_string());
    }
}

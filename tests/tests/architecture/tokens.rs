//! Rust as a row of words: enough to find the paths that a file names, no more.

/// One word of a source file. `::` is one word; every other sign stands alone. Comments and literals are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// From 1 on.
    pub(crate) line: usize,
}

/// The words of what ships: items under `#[cfg(test)]` are left out.
pub(crate) fn shipped(text: &str) -> Vec<Token<'_>> {
    without_tests(&tokens(text))
}

/// All words.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let length = word_length(&text[at..]);
        let word = &text[at..at + length];
        if !is_left_out(word) {
            found.push(Token { text: word, line });
        }
        line += word.matches('\n').count();
        at += length;
    }
    found
}

fn is_left_out(word: &str) -> bool {
    word.starts_with(char::is_whitespace)
        || word.starts_with("//")
        || word.starts_with("/*")
        || word.ends_with(['"', '\''])
        || word.starts_with('\'')
        || (word.ends_with('#') && word.len() > 1)
}

/// How many bytes the first word takes, white space, comments and literals being words too.
fn word_length(rest: &str) -> usize {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let identifier = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    let prefix = &rest[..identifier];
    if rest.starts_with(char::is_whitespace) {
        rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len())
    } else if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        rest.find("*/").map_or(rest.len(), |end| end + 2)
    } else if ["", "b", "c"].contains(&prefix) && rest[identifier..].starts_with('"') {
        identifier + quoted(&rest[identifier..], '"')
    } else if ["r", "br", "cr"].contains(&prefix)
        && let Some(length) = raw_string(&rest[identifier..])
    {
        identifier + length
    } else if ["", "b"].contains(&prefix) && rest[identifier..].starts_with('\'') {
        identifier + character(&rest[identifier..])
    } else if rest.starts_with("::") {
        2
    } else {
        identifier.max(first)
    }
}

/// The length of a literal between two `quote`s.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// The length of `#"…"#`, of any number of `#`; none when this is not one, as in `r#type`.
fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest.find(|c| c != '#')?;
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &rest[..hashes]);
    Some(
        body.find(&end)
            .map_or(rest.len(), |at| hashes + 1 + at + end.len()),
    )
}

/// The length of `'c'`, or of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    let is_literal = matches!(
        (chars.next(), chars.next()),
        (Some((_, '\\')), _) | (_, Some((_, '\'')))
    );
    if is_literal {
        return quoted(rest, '\'');
    }
    1 + rest[1..]
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len() - 1)
}

fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match attribute(&tokens[at..]) {
            Some(attribute) if is_for_tests(attribute) => {
                at += attribute.len();
                at += item(&tokens[at..]);
            }
            _ => {
                kept.push(tokens[at]);
                at += 1;
            }
        }
    }
    kept
}

/// The words of `#[…]`, if they begin with one.
fn attribute<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    let opens = |at: usize, word| tokens.get(at).is_some_and(|token| token.text == word);
    if !opens(0, "#") || !opens(1, "[") {
        return None;
    }
    let mut depth = 0;
    let end = tokens.iter().position(|token| {
        depth += i32::from(token.text == "[") - i32::from(token.text == "]");
        token.text == "]" && depth == 0
    })?;
    Some(&tokens[..=end])
}

fn is_for_tests(attribute: &[Token<'_>]) -> bool {
    let words: Vec<&str> = attribute.iter().map(|token| token.text).collect();
    words.contains(&"cfg") && words.contains(&"test") && !words.contains(&"not")
}

/// How many words the first item takes: up to its `;` or its closing brace.
fn item(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && (token.text == ";" || token.text == "}") {
            return at + 1;
        }
    }
    tokens.len()
}

#[test]
fn comments_literals_and_tests_are_no_words() {
    let text = r##"
        use a::b; // c::d
        /* e::f */ let g = "h::\"i" + r#"j"::k"# + b"l";
        #[cfg(test)]
        mod tests { use m::n; }
        #[cfg(any(test, feature = "x"))] #[allow(dead_code)] pub mod o;
        fn p<'q>(r#type: &'q str, s: char) { if s == '\'' || s == '"' || s == 't' { u::v() } }
        #[cfg(not(test))] use w::x;
    "##;
    let words: Vec<&str> = shipped(text).iter().map(|token| token.text).collect();
    assert_eq!(
        words.join(" "),
        "use a :: b ; let g = + + ; fn p < > ( r # type : & str , s : char ) \
         { if s == | | s == | | s == { u :: v ( ) } } # [ cfg ( not ( test ) ) ] use w :: x ;"
            .replace("==", "= =")
    );
    let lines: Vec<usize> = shipped(text)
        .iter()
        .filter(|token| token.text == "u")
        .map(|token| token.line)
        .collect();
    assert_eq!(lines, [7]);
}

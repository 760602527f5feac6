//! Where the Workload API is: the address in `SPIFFE_ENDPOINT_SOCKET` and how to reach it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use signet_runtime::error::excerpt;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The variable that names the endpoint (SPIFFE Workload Endpoint §4).
pub const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Longest wait for the socket to take the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest path of a Unix socket that a client can name, in bytes (Linux; `sun_path` less its zero).
const MAX_PATH_BYTES: usize = 107;

/// Why an address names no Workload API, or none that can be reached.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The variable does not say anything.
    #[error("{VARIABLE} is not set; set it to unix:///path/of/the/agent.sock")]
    Unset,
    /// Not an address of the two forms.
    #[error("`{address}` names no Workload API: {problem}; write unix:///absolute/path")]
    Invalid {
        /// What was given, shortened.
        address: String,
        /// The rule it breaks.
        problem: &'static str,
    },
    /// TCP proves nothing about who calls, so we do not call that way.
    #[error(
        "the Workload API at tcp://{0} is not called: only Unix sockets are supported; write unix:///absolute/path"
    )]
    Tcp(SocketAddr),
    /// Nobody takes the connection.
    #[error("the Workload API cannot be reached: {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The address of a Workload API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// An IP address and port. It can be named, but is not called.
    Tcp(SocketAddr),
}

impl Endpoint {
    /// The endpoint that the environment names.
    ///
    /// # Errors
    /// When the variable is unset or is no address.
    pub fn from_env() -> Result<Self, EndpointError> {
        match std::env::var(VARIABLE) {
            Ok(address) if !address.is_empty() => address.parse(),
            Ok(_) | Err(std::env::VarError::NotPresent) => Err(EndpointError::Unset),
            Err(std::env::VarError::NotUnicode(_)) => Err(invalid("", "it is not UTF-8")),
        }
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<UnixStream, EndpointError> {
        let path = match self {
            Self::Unix(path) => path,
            Self::Tcp(address) => return Err(EndpointError::Tcp(*address)),
        };
        let connected = match timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
            Ok(connected) => connected,
            Err(late) => Err(late.into()),
        };
        connected.map_err(|source| EndpointError::Unreachable {
            path: path.clone(),
            source,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads a URI by the rules of SPIFFE Workload Endpoint §4.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| invalid(text, "it has no scheme"))?;
        let parsed = match scheme.to_ascii_lowercase().as_str() {
            "unix" => unix(rest),
            "tcp" => tcp(rest),
            _ => Err("the scheme is neither unix nor tcp"),
        };
        parsed.map_err(|problem| invalid(text, problem))
    }
}

fn unix(rest: &str) -> Result<Endpoint, &'static str> {
    if rest.contains(['?', '#']) {
        return Err("it has a query or a fragment");
    }
    let path = match rest.strip_prefix("//") {
        Some(after) if after.starts_with('/') => after,
        Some("") => return Err("it has no path"),
        Some(_) => return Err("it has an authority before the path (three slashes are needed)"),
        None if rest.starts_with('/') => rest,
        None => return Err("the path is not absolute"),
    };
    let path = percent_decoded(path)?;
    if path.ends_with('/') {
        return Err("the path names a directory");
    }
    if path.len() > MAX_PATH_BYTES {
        return Err("the path is longer than 107 bytes");
    }
    Ok(Endpoint::Unix(Path::new(&path).into()))
}

fn tcp(rest: &str) -> Result<Endpoint, &'static str> {
    let address = rest
        .strip_prefix("//")
        .ok_or("two slashes must follow the scheme")?;
    if address.contains('%') {
        return Err("the address has a zone");
    }
    match address.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(Endpoint::Tcp(address)),
        Ok(_) => Err("port 0 names no service"),
        Err(_) => Err("an IP address and a port, and nothing else, must follow"),
    }
}

fn percent_decoded(path: &str) -> Result<String, &'static str> {
    let escapes = path.split('%').skip(1).map(str::as_bytes);
    // The decoder would leave such a sign as it is.
    if !escapes.map(|after| after.get(..2)).all(is_hexadecimal) {
        return Err("a percent sign is not followed by two hexadecimal digits");
    }
    let decoded = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| "the path is not UTF-8")?;
    if decoded.contains('\0') {
        return Err("the path holds a zero byte");
    }
    Ok(decoded.into_owned())
}

fn is_hexadecimal(digits: Option<&[u8]>) -> bool {
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

fn invalid(address: &str, problem: &'static str) -> EndpointError {
    EndpointError::Invalid {
        address: excerpt(address, 160),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Endpoint, String> {
        text.parse().map_err(|error: EndpointError| error.to_string())
    }

    /// Covers EP-10.
    #[test]
    fn unix_addresses_have_an_absolute_path_and_nothing_else() {
        let expected = Endpoint::Unix("/run/a.sock".into());
        for good in [
            "unix:///run/a.sock",
            "unix:/run/a.sock",
            "UNIX:///run/a.sock",
            "unix:///run/%61.sock",
            "unix:///r%75n%2Fa%2esock",
        ] {
            assert_eq!(parse(good), Ok(expected.clone()), "{good}");
        }
        for bad in [
            "unix://run/a.sock",
            "unix://host/run/a.sock",
            "unix://user@/run/a.sock",
            "unix:a.sock",
            "unix:",
            "unix://",
            "unix:///",
            "unix:///run/",
            "/run/a.sock",
            "run/a.sock",
            "",
            "unix:///run/a.sock?x=1",
            "unix:///run/a.sock#x",
            "unix:///run/%0",
            "unix:///run/%zz",
            "unix:///run/%a",
            "unix:///run/%%6161",
            "unix:///run/%+1",
            "unix:///run/%é1",
            "unix:///run/%00",
            "unix:///run/%ff",
            "http://run/a.sock",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&format!("unix:///{}", "a".repeat(106))).is_ok());
        assert!(
            parse(&format!("unix:///{}", "a".repeat(107)))
                .unwrap_err()
                .contains("107 bytes")
        );
    }

    /// Covers EP-11.
    #[test]
    fn tcp_addresses_have_an_ip_a_port_and_nothing_else() {
        assert_eq!(
            parse("tcp://127.0.0.1:8000"),
            Ok(Endpoint::Tcp(([127, 0, 0, 1], 8000).into()))
        );
        assert!(parse("tcp://[::1]:8000").is_ok());
        for bad in [
            "tcp://127.0.0.1:8000/",
            "tcp:127.0.0.1:8000",
            "tcp://localhost:8000",
            "tcp://127.0.0.1",
            "tcp://:8000",
            "tcp://127.0.0.1:8000?x",
            "tcp://u@127.0.0.1:8000",
            "tcp://127.0.0.1:0",
            "tcp://[fe80::1%1]:80",
            "tcp://",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_say_what_to_write_on_one_line() {
        let error = parse("unix://run/a\n.sock").unwrap_err();
        assert!(
            error.contains("authority") && error.contains("write unix:///"),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }

    #[tokio::test]
    async fn tcp_is_named_but_not_called() {
        let error = parse("tcp://127.0.0.1:1").unwrap().connect().await.unwrap_err();
        assert!(matches!(error, EndpointError::Tcp(_)), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(unix|tcp)?:?/{0,3}[a-z%0-9./?#@:]{0,40}") {
            if let Ok(Endpoint::Unix(path)) = parse(&text) {
                prop_assert!(path.is_absolute());
                prop_assert!(path.as_os_str().len() <= 107);
            }
        }
    }
}

//! Templates of SPIFFE IDs and DNS names: fixed text with placeholders in braces.

use std::borrow::Cow;

use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::svid::check_dns_names;
use signet_runtime::error::one_line;

use super::{Evidence, Facts};

/// What rendering gives: a value, or why these facts give none.
pub(super) type Rendered<T> = Result<T, String>;

/// Longest template, in bytes.
const MAX_TEMPLATE_BYTES: usize = 2048;
const PLACEHOLDERS: &str = "{cluster}, {namespace}, {service_account}, {pod_name}, {pod_uid}, {node_name}, \
                            {label:<key>}, {uid}, {gid}";

/// Text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

/// A fact that a template can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placeholder {
    Cluster,
    Namespace,
    ServiceAccount,
    PodName,
    PodUid,
    NodeName,
    Label(String),
    Uid,
    Gid,
}

impl Placeholder {
    fn parse(name: &str) -> Result<Self, String> {
        match name {
            "cluster" => Ok(Self::Cluster),
            "namespace" => Ok(Self::Namespace),
            "service_account" => Ok(Self::ServiceAccount),
            "pod_name" => Ok(Self::PodName),
            "pod_uid" => Ok(Self::PodUid),
            "node_name" => Ok(Self::NodeName),
            "uid" => Ok(Self::Uid),
            "gid" => Ok(Self::Gid),
            other => match other.strip_prefix("label:") {
                Some(key) if !key.is_empty() => Ok(Self::Label(key.to_owned())),
                _ => Err(format!(
                    "{{{}}} is unknown; there are {PLACEHOLDERS}",
                    shortened(other)
                )),
            },
        }
    }

    /// Nothing where these facts have no such thing, or an empty one.
    fn value<'a>(&self, facts: &Facts<'a>) -> Option<Cow<'a, str>> {
        let text = match (self, *facts) {
            (Self::Cluster, Facts::Pod(pod)) => pod.cluster.as_str().into(),
            (Self::Cluster, Facts::Unix(unix)) => unix.cluster.as_str().into(),
            (Self::NodeName, Facts::Pod(pod)) => pod.node_name.as_str().into(),
            (Self::NodeName, Facts::Unix(unix)) => unix.node_name.as_str().into(),
            (Self::Namespace, Facts::Pod(pod)) => pod.namespace.as_str().into(),
            (Self::ServiceAccount, Facts::Pod(pod)) => pod.service_account.as_str().into(),
            (Self::PodName, Facts::Pod(pod)) => pod.pod_name.as_str().into(),
            (Self::PodUid, Facts::Pod(pod)) => pod.pod_uid.as_str().into(),
            (Self::Label(key), Facts::Pod(pod)) => pod.labels.get(key)?.as_str().into(),
            (Self::Uid, Facts::Unix(unix)) => unix.uid.to_string().into(),
            (Self::Gid, Facts::Unix(unix)) => unix.gid.to_string().into(),
            _ => return None,
        };
        let text: Cow<'a, str> = text;
        (!text.is_empty()).then_some(text)
    }

    /// Whether this kind of evidence can ever fill it.
    pub(super) fn fits(&self, evidence: Evidence) -> bool {
        match self {
            Self::Cluster | Self::NodeName => true,
            Self::Uid | Self::Gid => evidence == Evidence::Unix,
            _ => evidence == Evidence::PodToken,
        }
    }
}

impl std::fmt::Display for Placeholder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Cluster => "cluster",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service_account",
            Self::PodName => "pod_name",
            Self::PodUid => "pod_uid",
            Self::NodeName => "node_name",
            Self::Uid => "uid",
            Self::Gid => "gid",
            Self::Label(key) => return write!(formatter, "{{label:{key}}}"),
        };
        write!(formatter, "{{{name}}}")
    }
}

impl Template {
    /// Reads a template; the error says what is wrong and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(format!("it has more than {MAX_TEMPLATE_BYTES} bytes"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            let (before, braced) = rest.split_at(start);
            let inner = braced.strip_prefix('{').and_then(|open| open.split_once('}'));
            let Some((name, after)) = inner else {
                return Err("a brace has no partner; placeholders look like {namespace}".into());
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Value(Placeholder::parse(name)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    pub(super) fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            Part::Value(placeholder) => Some(placeholder),
            Part::Text(_) => None,
        })
    }

    /// The text, if it has no placeholder.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    fn render(&self, facts: &Facts<'_>) -> Rendered<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Value(placeholder) => match placeholder.value(facts) {
                    Some(value) => text.push_str(&value),
                    None => return Err(format!("{placeholder} is empty for this workload")),
                },
            }
        }
        Ok(text)
    }

    /// The value that its placeholder, if it has one, would have to have for it to give this text; it has one at most.
    fn read(&self, text: &str) -> Option<Option<(Placeholder, String)>> {
        let at = self.parts.iter().position(|part| matches!(part, Part::Value(_)));
        let Some(Part::Value(placeholder)) = at.and_then(|at| self.parts.get(at)) else {
            return (self.fixed() == Some(text)).then_some(None);
        };
        let fixed = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(_) => String::new(),
        };
        let (before, after) = self.parts.split_at(at?);
        let before: String = before.iter().map(fixed).collect();
        let after: String = after.iter().map(fixed).collect();
        let value = text.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
        (!value.is_empty()).then(|| Some((placeholder.clone(), value.to_owned())))
    }

    /// Renders a DNS name, or says why the result is none.
    pub(super) fn render_dns_name(&self, facts: &Facts<'_>) -> Rendered<String> {
        let name = self.render(facts)?;
        check_dns_names(std::slice::from_ref(&name)).map_err(|error| error.to_string())?;
        Ok(name)
    }

    /// Whether the fixed text can be part of a DNS name at all.
    pub(super) fn check_dns_text(&self) -> Result<(), String> {
        if let Some(name) = self.fixed() {
            return check_dns_names(std::slice::from_ref(&name.to_owned()))
                .map_err(|error| error.to_string());
        }
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            Part::Value(_) => None,
        });
        for text in texts {
            if !text.bytes().all(allowed) {
                return Err("a DNS name has a-z, 0-9, `-` and `.` only".into());
            }
        }
        Ok(())
    }
}

/// Template of a SPIFFE ID's path, one template per segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdTemplate {
    segments: Vec<Template>,
}

impl IdTemplate {
    /// Reads a path template. Each segment holds at most one placeholder: two next to each other would give two
    /// workloads the same ID (`a-b` + `c`, `a` + `b-c`).
    pub(super) fn parse(domain: &TrustDomain, text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("write the path only; the trust domain is the server's".into());
        }
        let path = text
            .strip_prefix('/')
            .ok_or("it must begin with `/`, as /ns/{namespace}")?;
        let segments = split_segments(path)
            .into_iter()
            .map(Template::parse)
            .collect::<Result<Vec<_>, _>>()?;
        for segment in &segments {
            if segment.placeholders().count() > 1 {
                return Err(
                    "a segment has more than one placeholder, so different workloads could get the same ID; \
                            put them into segments of their own"
                        .into(),
                );
            }
            check_segment_text(domain, segment)?;
        }
        if segments.first().and_then(Template::fixed) == Some("signet") {
            return Err(
                "IDs under /signet are kept for the server and its agents; choose another path".into(),
            );
        }
        Ok(Self { segments })
    }

    pub(super) fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.segments.iter().flat_map(Template::placeholders)
    }

    /// Whether it names service accounts and not the namespace that they are of.
    pub(super) fn is_across_namespaces(&self) -> bool {
        let has = |what| self.placeholders().any(|placeholder| *placeholder == what);
        has(Placeholder::ServiceAccount) && !has(Placeholder::Namespace)
    }

    /// Renders the ID, every segment checked by itself.
    pub(super) fn render(&self, domain: &TrustDomain, facts: &Facts<'_>) -> Rendered<SpiffeId> {
        let rendered = self
            .segments
            .iter()
            .map(|s| s.render(facts))
            .collect::<Result<Vec<_>, _>>()?;
        let segments: Vec<&str> = rendered.iter().map(String::as_str).collect();
        let id = SpiffeId::from_segments(domain, &segments).map_err(|error| error.to_string())?;
        if id.is_reserved() {
            return Err("the ID would lie under /signet, which is kept for the server and its agents".into());
        }
        Ok(id)
    }
}

impl IdTemplate {
    /// The values that its placeholders would have to have for it to give this ID; `None` where it cannot.
    pub(super) fn read(&self, id: &SpiffeId) -> Option<Vec<(Placeholder, String)>> {
        let mut values: Vec<(Placeholder, String)> = Vec::new();
        let mut segments = id.path().strip_prefix('/')?.split('/');
        for template in &self.segments {
            let Some((placeholder, value)) = template.read(segments.next()?)? else {
                continue;
            };
            match values.iter().find(|(known, _)| *known == placeholder) {
                Some((_, known)) if *known != value => return None,
                Some(_) => {}
                None => values.push((placeholder, value)),
            }
        }
        segments.next().is_none().then_some(values)
    }
}

/// Splits at slashes outside braces: label keys may have one (`{label:example.org/app}`).
fn split_segments(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let (mut start, mut braced) = (0, false);
    for (at, character) in path.char_indices() {
        match character {
            '{' => braced = true,
            '}' => braced = false,
            '/' if !braced => {
                segments.push(&path[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    segments.push(&path[start..]);
    segments
}

/// The fixed text around a placeholder must be able to be part of a segment; `x` stands in for the value.
fn check_segment_text(domain: &TrustDomain, segment: &Template) -> Result<(), String> {
    let sample: String = segment
        .parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Value(_) => "x",
        })
        .collect();
    SpiffeId::from_segments(domain, &[&sample])
        .map(drop)
        .map_err(|error| error.to_string())
}

/// The beginning of a text, fit for a message.
pub(super) fn shortened(text: &str) -> String {
    one_line(text).chars().take(60).collect()
}

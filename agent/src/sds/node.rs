//! What a proxy says of itself, as far as an answer depends on it: which of its validators the validation contexts are for.

use signet_proto::envoy::config::core::v3::Node;
use signet_proto::envoy::config::core::v3::node::UserAgentVersionType;

/// The switch in a node's metadata that turns the SPIFFE validator off, as other issuers' proxies have it.
const SWITCH: &str = "disable_spiffe_cert_validation";

/// The first Envoy that has the SPIFFE validator.
const FIRST_WITH_SPIFFE: (u32, u32) = (1, 18);

/// Which of Envoy's validators a validation context is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Validator {
    /// `envoy.tls.cert_validator.spiffe`: a bundle for each trust domain.
    Spiffe,
    /// The default one: one bundle. It looks at no trust domain, so the proxy's own configuration has to match SPIFFE IDs.
    Plain,
}

impl Validator {
    /// The one that this proxy has; `plain` is what the configuration says where it does not.
    pub(super) fn of(node: &Node, plain: bool) -> Self {
        if is_too_old(node) {
            return Self::Plain;
        }
        let fields = node.metadata.as_ref().map(|metadata| &metadata.fields);
        let switch = fields.and_then(|fields| fields.get(SWITCH)).and_then(truth);
        if switch.unwrap_or(plain) {
            Self::Plain
        } else {
            Self::Spiffe
        }
    }
}

/// Booleans, and strings that say one, for some tools only write strings.
fn truth(value: &prost_types::Value) -> Option<bool> {
    use prost_types::value::Kind;
    match value.kind.as_ref()? {
        Kind::BoolValue(truth) => Some(*truth),
        Kind::StringValue(text) => text.to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

fn is_too_old(node: &Node) -> bool {
    let Some(UserAgentVersionType::UserAgentBuildVersion(build)) = &node.user_agent_version_type else {
        return false;
    };
    node.user_agent_name == "envoy"
        && build
            .version
            .as_ref()
            .is_some_and(|version| (version.major_number, version.minor_number) < FIRST_WITH_SPIFFE)
}

#[cfg(test)]
mod tests {
    use prost_types::value::Kind;
    use prost_types::{Struct, Value};
    use signet_proto::envoy::config::core::v3::BuildVersion;
    use signet_proto::envoy::r#type::v3::SemanticVersion;

    use super::*;

    fn with(kind: Kind) -> Node {
        let value = Value { kind: Some(kind) };
        Node {
            metadata: Some(Struct {
                fields: [(SWITCH.to_owned(), value)].into(),
            }),
            ..Node::default()
        }
    }

    /// Covers SDS-06.
    #[test]
    fn metadata_say_which_validator_and_else_the_configuration_does() {
        for (kind, expected) in [
            (Kind::BoolValue(true), [Validator::Plain, Validator::Plain]),
            (
                Kind::StringValue("True".to_owned()),
                [Validator::Plain, Validator::Plain],
            ),
            (Kind::BoolValue(false), [Validator::Spiffe, Validator::Spiffe]),
            (
                Kind::StringValue("false".to_owned()),
                [Validator::Spiffe, Validator::Spiffe],
            ),
            (
                Kind::StringValue("yes".to_owned()),
                [Validator::Spiffe, Validator::Plain],
            ),
            (Kind::NumberValue(1.0), [Validator::Spiffe, Validator::Plain]),
        ] {
            let node = with(kind.clone());
            let found = [false, true].map(|plain| Validator::of(&node, plain));
            assert_eq!(found, expected, "{kind:?}");
        }
        assert_eq!(Validator::of(&Node::default(), false), Validator::Spiffe);
    }

    /// Covers SDS-06.
    #[test]
    fn an_envoy_that_is_too_old_gets_what_it_knows() {
        for (major_number, minor_number, name, expected) in [
            (1, 17, "envoy", Validator::Plain),
            (1, 18, "envoy", Validator::Spiffe),
            (2, 0, "envoy", Validator::Spiffe),
            (1, 17, "another proxy", Validator::Spiffe),
        ] {
            let version = Some(SemanticVersion {
                major_number,
                minor_number,
                patch: 9,
            });
            let node = Node {
                user_agent_name: name.to_owned(),
                user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
                    version,
                })),
                ..with(Kind::BoolValue(false))
            };
            assert_eq!(
                Validator::of(&node, false),
                expected,
                "{major_number}.{minor_number}"
            );
        }
    }
}

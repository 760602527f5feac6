//! What differs between two texts of one file.

use serde_json::Value;

use super::{is_blank, options};

/// The keys whose values differ, written with dots as far down as both have them: `listen.agents`. A list is one value. As
/// written: a default that is spelled out in one text only is a difference. A text that is no YAML says nothing.
#[must_use]
pub fn differing_keys(one: &str, other: &str) -> Vec<String> {
    let mut keys = Vec::new();
    compare("", &value(one), &value(other), &mut keys);
    keys
}

fn value(text: &str) -> Value {
    if is_blank(text) {
        return Value::Null;
    }
    serde_saphyr::from_str_with_options(text, options()).unwrap_or_default()
}

fn compare(path: &str, one: &Value, other: &Value, keys: &mut Vec<String>) {
    if one == other {
        return;
    }
    let empty = serde_json::Map::new();
    let members = |value: &Value| match value {
        Value::Object(members) => Some(members.clone()),
        // What is absent is like what has nothing in it.
        Value::Null => Some(empty.clone()),
        _ => None,
    };
    let (Some(one), Some(other)) = (members(one), members(other)) else {
        keys.push(path.to_owned());
        return;
    };
    let absent = Value::Null;
    let mut names: Vec<_> = one.keys().chain(other.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let of = |members: &serde_json::Map<String, Value>| members.get(name).unwrap_or(&absent).clone();
        match (of(&one), of(&other)) {
            // A value that is there on one side only has no keys to go down to.
            (Value::Null, plain) | (plain, Value::Null) if !plain.is_object() => {
                if !plain.is_null() {
                    keys.push(below);
                }
            }
            (one, other) => compare(&below, &one, &other, keys),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::differing_keys;

    #[test]
    fn what_differs_is_named_where_it_differs() {
        let one = "trust_domain: a\nlisten: {agents: x, admin: y}\nrules: [{name: r}]\n";
        for (other, keys) in [
            (one, &[][..]),
            (
                "listen: {admin: y, agents: x}\nrules: [{name: r}]\ntrust_domain: a # the same\n",
                &[],
            ),
            (
                "trust_domain: b\nlisten: {agents: z, admin: y}\nrules: []\n",
                &["listen.agents", "rules", "trust_domain"],
            ),
            (
                "trust_domain: a\nlisten: {agents: x}\nrules: [{name: r}]\nsvid: {ttl: 1h}\n",
                &["listen.admin", "svid.ttl"],
            ),
            ("trust_domain: a\nlisten: here\nrules: [{name: r}]\n", &["listen"]),
            ("", &["listen.admin", "listen.agents", "rules", "trust_domain"]),
        ] {
            assert_eq!(differing_keys(one, other), keys, "{other}");
            assert_eq!(differing_keys(other, one), keys, "{other}, the other way round");
        }
    }
}

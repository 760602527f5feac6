//! A file that has one rule, as the configuration would have it among others.

use signet_runtime::{
    config::{Configuration, Findings, Refused},
    telemetry::LogFormat,
};

use crate::rules::IdentityRuleConfig;

/// A rule whose form is right.
#[derive(Debug)]
pub(crate) struct RuleFile(IdentityRuleConfig);

impl RuleFile {
    /// As JSON.
    pub(crate) fn to_json(&self) -> String {
        // Plain structs: this cannot fail.
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

impl Configuration for RuleFile {
    type Raw = IdentityRuleConfig;

    fn check(raw: Self::Raw, _: &mut Findings) -> Result<Self, Refused> {
        Ok(Self(raw))
    }

    fn log_format(&self) -> LogFormat {
        LogFormat::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use signet_runtime::config::check;

    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let report = check::<RuleFile>(Path::new("rule.yaml"), text).unwrap_err();
        report.errors().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn faults_of_form_are_told_with_their_places_all_at_once() {
        let told = faults("name: web\nmatch:\n  namespace: [shop]\nttl: 90\n");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("rule.yaml:3:3: match.namespace: unknown key"),
            "{told:?}"
        );
        assert!(told[1].starts_with("rule.yaml:4:6: ttl:"), "{told:?}");
        let told = faults("- name: web\n");
        assert_eq!(told.len(), 1, "{told:?}");
        let told = faults("spiffe_id: /x\n");
        assert!(told[0].contains("name"), "{told:?}");
    }

    #[test]
    fn yaml_and_json_are_the_same_rule() {
        let yaml = "name: web\nmatch: {namespaces: [shop]}\nspiffe_id: /web\nttl: 10m\n";
        let (rule, _) = check::<RuleFile>(Path::new("rule.yaml"), yaml).unwrap();
        let (again, _) = check::<RuleFile>(Path::new("rule.json"), &rule.to_json()).unwrap();
        assert_eq!(rule.0, again.0);
    }
}

//! From what is written to what can be used: everything that is wrong is found on the way.

use std::{collections::BTreeMap, ops::RangeInclusive, path::PathBuf, sync::Arc, time::Duration};

use signet_certs::{authority::AuthorityKind, id::TrustDomain, svid::SvidProfile};
use signet_runtime::{
    config::{Configuration, Findings, HumanDuration, Refused},
    telemetry::LogFormat,
};

use super::{
    raw::{Audit, AuthorityTimes, Raw, Svid},
    valid::{BundlePage, Config, Listen, Lives, WebFiles},
};
use crate::{
    audit::{AuditBound, AuditSink},
    authority::{EmergencySettings, LifePolicy, LifeSettings},
    publisher::CRL_MAX_BYTES,
    rules::{ACROSS_NAMESPACES, IdentityRuleConfig, RuleError, RuleScope, RuleSet, belief},
};

/// Fewer lines than one large request writes would stand still with it.
const MIN_BACKLOG: u64 = 1_000;
/// Least bound of a list: about a thousand entries.
const MIN_CRL_BYTES: usize = 64 << 10;
/// The shortest life that leaves time to renew.
const MIN_SVID_TTL: Duration = Duration::from_secs(10);
/// Whoever has a stolen key has it for so long.
const EMERGENCY_GRACE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// More back-dating is refused by careful peers.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(600);

impl Configuration for Config {
    type Raw = Raw;

    fn check(raw: Raw, findings: &mut Findings) -> Result<Self, Refused> {
        let trust_domain = trust_domain(&raw.trust_domain, findings);
        // Where the name is faulty the rest is judged as if it were this one.
        let assumed = match &trust_domain {
            Ok(trust_domain) => Ok(trust_domain.clone()),
            Err(refused) => TrustDomain::parse("example.org").map_err(|_| *refused),
        }?;
        let scope = RuleScope {
            trust_domain: assumed.clone(),
            clusters: raw.attestation.cluster_names(),
            builtin_rule: raw.builtin_rule,
            same_identity: raw.same_identity,
        };
        let attestation = raw.attestation.check("attestation", &assumed, findings);
        let rules = rules(&scope, raw.rules, findings);
        check_svid(&raw.svid, findings);
        let lives = lives(&raw.svid, &raw.authority, &rules, findings);
        let crl_max_bytes = crl_max_bytes(raw.crl.max_bytes, findings);
        let url = base_url(raw.publish.url, findings);
        let web_files = (raw.publish.bundle_certificate_file, raw.publish.bundle_key_file);
        let audit_bound = audit_bound(&raw.audit, findings);
        let bundle = bundle_page(raw.publish.bundle_path, web_files, findings);
        let profile = |ttl| {
            Ok(SvidProfile {
                ttl,
                clock_skew: raw.svid.clock_skew.get(),
                crl_base_url: url.clone()?,
            })
        };
        Ok(Self {
            listen: Listen {
                agents: raw.listen.agents,
                admin_socket: raw.listen.admin_socket,
                publish: raw.listen.publish,
                bundle: raw.listen.bundle,
                telemetry: raw.listen.telemetry,
            },
            hybrid: raw.tls.hybrid,
            bundle: bundle?,
            refresh_hint: raw.publish.refresh_hint.get(),
            kek_file: raw.keys.kek_file.unwrap_or_else(|| raw.data_dir.join("kek")),
            control_anchors_file: raw
                .trust
                .control_anchors_file
                .unwrap_or_else(|| raw.data_dir.join("control-anchors.pem")),
            data_dir: raw.data_dir,
            lives: lives?,
            workload_profile: profile(raw.svid.ttl.get())?,
            control_profile: profile(raw.authority.control_svid_ttl.get())?,
            clock_skew: raw.svid.clock_skew.get(),
            max_live: raw.svid.max_live,
            crl_max_bytes: crl_max_bytes?,
            revoke_gone_pods: raw.revocation.on_pod_deletion,
            attestation: attestation?,
            rules: Arc::new(rules?),
            rules_confirm_above: raw.rules_confirm_above,
            text: findings.text().to_owned(),
            audit_bound: audit_bound?,
            audit: raw.audit.file.map_or(AuditSink::Stdout, AuditSink::File),
            log: raw.log.format,
            trust_domain: trust_domain?,
        })
    }

    fn log_format(&self) -> LogFormat {
        self.log
    }
}

fn trust_domain(name: &str, findings: &mut Findings) -> Result<TrustDomain, Refused> {
    if name.is_empty() {
        let remedy = "write the name of the trust domain, for example example.org";
        return Err(findings.error("trust_domain", "is not set", remedy));
    }
    TrustDomain::parse_lenient(name).map_err(|error| {
        findings.error(
            "trust_domain",
            error.to_string(),
            "write a name such as example.org",
        )
    })
}

fn rules(
    scope: &RuleScope,
    rules: Vec<IdentityRuleConfig>,
    findings: &mut Findings,
) -> Result<RuleSet, Refused> {
    for (index, (claim, so)) in beliefs(&rules) {
        findings.note(&findings.element("rules", index), claim, so);
    }
    let compiled = RuleSet::compile(scope, rules).map_err(|errors| {
        let mut say = |error: &RuleError| {
            let key = match error.index {
                Some(index) => findings.element("rules", index),
                None => "rules".to_owned(),
            };
            let text = error.to_string();
            let (problem, remedy) = text.rsplit_once("; ").unwrap_or((&text, "correct the rule"));
            findings.error(&key, problem, remedy)
        };
        errors.more.iter().fold(say(&errors.first), |_, error| say(error))
    })?;
    for index in compiled.across_namespaces() {
        let (problem, remedy) = ACROSS_NAMESPACES;
        findings.warn(&findings.element("rules", index), problem, remedy);
    }
    Ok(compiled)
}

/// What rules take on trust, each with its place among them.
fn beliefs(rules: &[IdentityRuleConfig]) -> Vec<(usize, (String, String))> {
    let told = rules.iter().enumerate();
    told.filter_map(|(index, rule)| Some((index, belief(rule)?)))
        .collect()
}

fn check_svid(svid: &Svid, findings: &mut Findings) {
    if svid.ttl.get() < MIN_SVID_TTL {
        findings.error(
            "svid.ttl",
            "shorter than 10 s leaves no time to renew",
            "write at least 10s",
        );
    }
    if svid.clock_skew.get() > MAX_CLOCK_SKEW {
        findings.error(
            "svid.clock_skew",
            "more than 10 min back-dating is refused by careful peers",
            "write at most 10m",
        );
    }
    if svid.max_live < 2 {
        findings.error(
            "svid.max_live",
            "a renewal needs two certificates to overlap",
            "write at least 2",
        );
    }
}

/// Lives of each kind of authority, held against what they sign.
fn lives(
    svid: &Svid,
    times: &AuthorityTimes,
    rules: &Result<RuleSet, Refused>,
    findings: &mut Findings,
) -> Result<Lives, Refused> {
    let longest_of_rules = rules.as_ref().ok().and_then(RuleSet::longest_ttl);
    let longest = longest_of_rules.unwrap_or_default().max(svid.ttl.get());
    let readable = ["svid", "authority", "rules"]
        .iter()
        .try_for_each(|key| findings.was_read(key));
    let grace = emergency_grace(times.emergency_grace, findings);
    let mut policy = |key, authority_ttl: HumanDuration, leaf_ttl, bundle_first| {
        let settings = LifeSettings {
            authority_ttl: authority_ttl.get(),
            leaf_ttl,
            clock_skew: svid.clock_skew.get(),
            spread: times.spread.get(),
            spread_max: times.spread_max.get(),
            algorithm: times.algorithm,
            emergency: EmergencySettings {
                grace: grace?,
                bundle_first,
            },
        };
        LifePolicy::new(settings).map_err(|error| match readable {
            Ok(()) => findings.error(key, error.to_string(), "change one of the two"),
            Err(refused) => refused,
        })
    };
    let x509 = policy("authority.ttl", times.ttl, longest, true);
    let control = policy(
        "authority.control_ttl",
        times.control_ttl,
        times.control_svid_ttl.get(),
        // Its thief can say what a server says: the anchors file comes first.
        false,
    );
    Ok(BTreeMap::from([
        (AuthorityKind::X509, x509?),
        (AuthorityKind::Control, control?),
    ]))
}

fn emergency_grace(grace: HumanDuration, findings: &mut Findings) -> Result<Duration, Refused> {
    let grace = grace.get();
    if EMERGENCY_GRACE.contains(&grace) {
        return Ok(grace);
    }
    Err(findings.error(
        "authority.emergency_grace",
        format!("{grace:?} is out of range"),
        "choose between 1s and 1h: agents need ten seconds to replace what stolen keys have signed",
    ))
}

fn crl_max_bytes(bytes: usize, findings: &mut Findings) -> Result<usize, Refused> {
    if bytes < MIN_CRL_BYTES {
        return Err(findings.error(
            "crl.max_bytes",
            "lists so small have room for hardly any revocation",
            "write at least 65536",
        ));
    }
    if bytes > CRL_MAX_BYTES {
        return Err(findings.error(
            "crl.max_bytes",
            "lists and bundle would exceed what clients of the Workload API accept in one message",
            format!("write at most {CRL_MAX_BYTES}"),
        ));
    }
    Ok(bytes)
}

fn audit_bound(audit: &Audit, findings: &mut Findings) -> Result<AuditBound, Refused> {
    if audit.max_backlog < MIN_BACKLOG {
        return Err(findings.error(
            "audit.max_backlog",
            "a moment without a reader would fill it",
            format!("write at least {MIN_BACKLOG}"),
        ));
    }
    Ok(AuditBound {
        most: audit.max_backlog,
        when_full: audit.when_full,
    })
}

fn base_url(url: Option<String>, findings: &mut Findings) -> Result<Option<String>, Refused> {
    let Some(url) = url else { return Ok(None) };
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.ends_with('/') && !rest.contains(['?', '#', ' ']) => {
            Ok(Some(url))
        }
        _ => Err(findings.error(
            "publish.url",
            "not a base URL",
            "write http://host[:port][/path] without a slash at the end",
        )),
    }
}

fn bundle_page(
    path: String,
    files: (Option<PathBuf>, Option<PathBuf>),
    findings: &mut Findings,
) -> Result<BundlePage, Refused> {
    let certificate = match files {
        (Some(certificate), Some(key)) => Ok(Some(WebFiles { certificate, key })),
        (None, None) => Ok(None),
        _ => Err(findings.error(
            "publish.bundle_key_file",
            "bundle_certificate_file and bundle_key_file belong together",
            "give both, or neither to use the server's own X.509-SVID",
        )),
    };
    if !path.starts_with('/') {
        return Err(findings.error("publish.bundle_path", "not a path", "begin it with a slash"));
    }
    Ok(BundlePage {
        path,
        certificate: certificate?,
    })
}

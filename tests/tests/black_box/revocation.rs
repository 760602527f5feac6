//! Revoking: the answer comes when the world can know, and what was revoked is neither served nor issued again.

mod targets;

use serde_json::Value;
use signet_certs::authority::AuthorityCertificate;
use signet_certs::crl::Crl;
use signet_certs::verify::inspect_leaf;
use signet_proto::agent::{issue_result::Outcome, refusal::Reason};
use signet_tests::{
    agent_client::new_csr,
    domain::{Agent, Domain},
    http,
    process::Finished,
    wait::eventually,
    workload::Identity,
};
use tonic::Code;

use super::support::{assert_refused, audited, id_of, pod_with_volume};

/// The list that HTTP serves for the authority of this identity, checked against that authority.
async fn published_crl(domain: &Domain, identity: &Identity) -> Crl {
    let id = identity.svid.authority_id();
    let der = domain.server.crl(&id.to_string()).await.unwrap();
    let url = format!("{}/ca/{id}.cer", domain.server.publish_url());
    let certificate = http::get(&url).await.unwrap().body;
    let certificate = AuthorityCertificate::from_der(&certificate).unwrap();
    Crl::verify(&der, &certificate).unwrap()
}

/// Covers INV-11.
#[tokio::test]
async fn a_revoked_identity_is_published_cut_off_and_not_issued_again() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let back = agent.workload(&pod_with_volume(&domain, &agent, "back").await);
    let victim = front.identity().await;
    back.identity().await;
    let mut victims_stream = front.watch().await.unwrap();
    let mut peers_stream = back.watch().await.unwrap();

    let id = id_of("front");
    let args = ["revoke", "--spiffe-id", &id, "--reason", "keyCompromise"];
    let revoked = domain.server.admin(&args).await.unwrap();
    // The command has returned, so HTTP serves the list by now.
    let crl = published_crl(&domain, &victim).await;
    assert!(
        crl.is_revoked(&victim.svid.serial()),
        "the list lacks the serial though the command has returned"
    );
    assert_eq!(revoked["crls"][0]["number"], crl.number().0);
    assert_eq!(revoked["revoked"][0]["serial"], victim.svid.serial().to_string());
    let denial = revoked["denial_id"].as_str().unwrap().to_owned();

    let peer = peers_stream
        .until("the list on the peer's stream", |peer| {
            peer.sees_revoked(&victim.svid)
        })
        .await;
    assert!(
        peer.judge(&victim.svid).is_err(),
        "a peer still believes a revoked identity"
    );
    let end = loop {
        match victims_stream.next().await {
            // The list may reach it before the verdict does.
            Ok(identity) => assert_eq!(
                identity.svid.serial(),
                victim.svid.serial(),
                "a denied identity was issued"
            ),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
    assert!(end.message().contains("no identity issued"), "{end:?}");
    assert_eq!(front.fetch().await.err().unwrap().code(), Code::PermissionDenied);
    audited(&domain, &["revoke", &id_of("front"), "keyCompromise"]).await;

    let denials = domain.server.admin(&["denials"]).await.unwrap();
    assert_eq!(denials["denials"][0]["target"], id_of("front"));
    domain.server.admin(&["allow", &denial]).await.unwrap();
    let again = front.identity().await;
    assert_ne!(again.svid.serial(), victim.svid.serial());
    let peer = back.identity().await;
    peer.judge(&again.svid).unwrap();
    assert!(
        peer.judge(&victim.svid).is_err(),
        "allowing again never brings a serial back"
    );
}

#[tokio::test]
async fn the_holder_of_a_revoked_certificate_re_keys_at_once() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let leaked = front.identity().await;
    let mut updates = front.watch().await.unwrap();
    let serial = leaked.svid.serial().to_string();
    let revoked = domain
        .server
        .admin(&["revoke", "--serial", &serial])
        .await
        .unwrap();
    assert_eq!(
        revoked["denial_id"],
        Value::Null,
        "a leaked key is no reason to deny its workload"
    );
    let next = updates
        .until("another certificate", |now| {
            now.svid.serial() != leaked.svid.serial()
        })
        .await;
    assert_ne!(
        next.svid.key().public_key_spki(),
        leaked.svid.key().public_key_spki()
    );
    assert!(next.judge(&leaked.svid).is_err());
    assert!(next.judge(&next.svid).is_ok());
}

/// Covers INV-3, INV-11.
#[tokio::test]
async fn a_crash_right_after_a_revocation_loses_nothing() {
    let mut domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    raw.issue_good(&token).await.unwrap();
    let revoked = domain
        .server
        .admin(&["revoke", "--spiffe-id", &id_of("front")])
        .await
        .unwrap();
    domain.server.kill().await;
    domain.server.start().await.unwrap();

    let authority = revoked["crls"][0]["authority_id"].as_str().unwrap();
    let shown = domain.server.admin(&["crl", "show"]).await.unwrap();
    let crls = shown["crls"].as_array().unwrap();
    let crl = crls.iter().find(|crl| crl["authority_id"] == authority).unwrap();
    assert!(
        crl["number"].as_u64() >= revoked["crls"][0]["number"].as_u64(),
        "the number went back"
    );
    let entries = crl["entries"].as_array().unwrap();
    assert!(
        entries
            .iter()
            .any(|entry| entry["serial"] == revoked["revoked"][0]["serial"]),
        "{crl}"
    );
    domain.server.crl(authority).await.unwrap();

    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let outcome = eventually("a verdict after the restart", async || {
        match raw.issue_one(new_csr().unwrap(), &token).await.unwrap() {
            Outcome::Unavailable(_) => None,
            outcome => Some(outcome),
        }
    });
    assert_refused("a denied identity after a crash", outcome.await, Reason::Denied);
}

/// Whoever gets a certificate while its identity is being revoked either is on the list or was refused.
/// Covers INV-11, BC-15.
#[tokio::test]
async fn no_certificate_slips_through_beside_a_revocation() {
    let domain = Domain::start().await.unwrap();
    let mut tokens = Vec::new();
    for n in 0..6 {
        let name = format!("front-{n}");
        let spec = signet_tests::fake_kube::PodSpec::new("shop", &name).service_account("front");
        domain.kube.add_pod(&spec).unwrap();
        tokens.push(domain.pod_token("shop", &name).unwrap());
    }
    let (raw, _) = domain.raw_agent("node-a").await.unwrap();
    let issuing = tokens.into_iter().map(|token| {
        let mut raw = raw.clone();
        async move {
            let mut serials = Vec::new();
            loop {
                match raw.issue_one(new_csr().unwrap(), &token).await.unwrap() {
                    Outcome::Issued(issued) => {
                        let leaf = inspect_leaf(&issued.certificate_chain[0]).unwrap();
                        serials.push(leaf.serial.to_string());
                    }
                    Outcome::Refusal(refusal) if refusal.reason() == Reason::Denied => return serials,
                    // Too many at once: the denial will be the answer sooner or later.
                    Outcome::Refusal(_) | Outcome::Unavailable(_) => tokio::task::yield_now().await,
                }
            }
        }
    });
    let issuing = futures_util::future::join_all(issuing);
    let id = id_of("front");
    let args = ["revoke", "--spiffe-id", id.as_str()];
    let (serials, revoked) = tokio::join!(issuing, domain.server.admin(&args));
    let revoked = revoked.unwrap();
    let listed: Vec<&str> = revoked["revoked"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["serial"].as_str())
        .collect();
    for serial in serials.into_iter().flatten() {
        assert!(
            listed.contains(&serial.as_str()),
            "{serial} was issued and not revoked"
        );
    }
}

/// A stolen agent loses its way in: its calls are refused and its certificate is on the control list.
/// Covers INV-12.
#[tokio::test]
async fn a_revoked_agent_is_shut_out() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    raw.issue_good(&token).await.unwrap();
    let agents = domain.server.admin(&["agent", "list"]).await.unwrap();
    let id = agents["agents"][0]["spiffe_id"].as_str().unwrap().to_owned();
    let unforced = domain
        .server
        .command(&["revoke", "--spiffe-id", &id])
        .await
        .unwrap();
    assert!(
        !unforced.status.success(),
        "a target below /signet/ needs --force"
    );
    assert!(unforced.stderr.contains("force"), "{}", unforced.stderr);
    raw.issue_good(&token).await.unwrap();
    domain
        .server
        .admin(&["revoke", "--spiffe-id", &id, "--force"])
        .await
        .unwrap();
    eventually("the agent to be shut out", async || {
        match raw
            .issue(vec![signet_tests::agent_client::pod_item(
                new_csr().unwrap(),
                &token,
            )])
            .await
        {
            Err(status) if status.code() == Code::Unauthenticated => Some(()),
            _ => None,
        }
    })
    .await;
    let error = domain.raw_agent("node-a").await.err().unwrap();
    let status = error.downcast_ref::<tonic::Status>().unwrap();
    assert_eq!(
        status.code(),
        Code::PermissionDenied,
        "a denied agent attested again: {status:?}"
    );
}

/// What the agent keeps of itself: its key and its certificate.
fn kept(agent: &Agent) -> Option<Value> {
    let text = std::fs::read(agent.folder().join("state/node.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Waits until the agent holds another key with a certificate, and is in touch with its server.
async fn another_key(agent: &Agent, former: &Value) {
    eventually("another key of the agent", async || {
        let kept = kept(agent)?;
        let certified = kept["svid"]["chain"] != "" && kept["svid"]["key"] != former["svid"]["key"];
        let checked = agent.command(&["healthcheck"]).await.unwrap();
        (certified && checked.status.success()).then_some(())
    })
    .await;
}

async fn revoke_agent(domain: &Domain) -> Finished {
    let agents = domain.server.admin(&["agent", "list"]).await.unwrap();
    let serial = agents["agents"][0]["serial"].as_str().unwrap().to_owned();
    let args = ["revoke", "--serial", &serial, "--reason", "keyCompromise"];
    let revoked = domain.server.command(&args).await.unwrap();
    assert!(revoked.status.success(), "{}", revoked.stderr);
    revoked
}

/// The token lay beside the key: whoever has the one may have the other, so neither is good for another certificate.
#[tokio::test]
async fn an_agent_whose_certificate_is_revoked_takes_another_key_with_its_next_token() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let before = front.identity().await;
    let former = kept(&agent).unwrap();
    let revoked = revoke_agent(&domain).await;
    assert!(
        revoked.stdout.contains("kubectl delete pod"),
        "{}",
        revoked.stdout
    );
    eventually("the key to be forgotten", async || {
        let held = kept(&agent).is_none_or(|kept| kept["svid"]["key"] != former["svid"]["key"]);
        held.then_some(())
    })
    .await;
    assert_eq!(
        front.fetch().await.unwrap().svid.serial(),
        before.svid.serial(),
        "its workloads are served"
    );
    agent.set_token(&domain.node_token("node-a").unwrap()).unwrap();
    another_key(&agent, &former).await;
}

/// It hears of it in the handshake, by an alert.
#[tokio::test]
async fn an_agent_whose_certificate_is_revoked_while_it_is_away_takes_another_key_as_well() {
    let domain = Domain::start().await.unwrap();
    let mut agent = domain.agent("node-a").await.unwrap();
    let former = kept(&agent).unwrap();
    agent.kill().await;
    revoke_agent(&domain).await;
    agent.spawn().unwrap();
    agent.set_token(&domain.node_token("node-a").unwrap()).unwrap();
    another_key(&agent, &former).await;
}

/// Why somebody is denied is for admins: the denied may be whom they are after.
#[tokio::test]
async fn what_an_admin_writes_about_a_denial_stays_with_admins() {
    const COMMENT: &str = "under investigation by IR-4711, keep quiet";
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    front.identity().await;
    let token = domain.shop_pod("raw", "node-b").unwrap();
    let (mut raw, certificate) = domain.raw_agent("node-b").await.unwrap();
    raw.issue_good(&token).await.unwrap();
    let agent_id = inspect_leaf(&certificate.chain[0]).unwrap().spiffe_id.to_string();
    for target in [id_of("front"), id_of("raw")] {
        let args = ["revoke", "--spiffe-id", &target, "--comment", COMMENT];
        domain.server.admin(&args).await.unwrap();
    }
    let mut heard = vec![assert_refused(
        "a denied pod",
        raw.issue_one(new_csr().unwrap(), &token).await.unwrap(),
        Reason::Denied,
    )];
    let args = [
        "revoke",
        "--spiffe-id",
        &agent_id,
        "--force",
        "--comment",
        COMMENT,
    ];
    domain.server.admin(&args).await.unwrap();
    let denied = eventually("the agent to be denied", async || {
        raw.shut_out().await.map(|status| format!("{status:?}"))
    });
    heard.push(denied.await);
    let verdict = eventually("the verdict", async || front.fetch().await.err());
    heard.push(format!("{:?}", verdict.await));
    heard.push(
        agent
            .command(&["status", "--output", "json"])
            .await
            .unwrap()
            .stdout,
    );
    heard.push(agent.said());
    for text in heard {
        assert!(!text.contains("IR-4711"), "{text}");
    }
    let denials = domain.server.admin(&["denials"]).await.unwrap();
    let denials = denials["denials"].as_array().unwrap();
    assert_eq!(denials.len(), 3);
    assert!(denials.iter().all(|denial| denial["comment"] == COMMENT));
}

/// As openssl prints it, as programs write numbers, and as browsers show it.
#[tokio::test]
async fn a_serial_is_taken_as_people_copy_it() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (mut raw, _) = domain.raw_agent("node-a").await.unwrap();
    let forms: [fn(&str) -> String; 4] = [
        |serial| format!("serial={}", serial.to_uppercase()),
        |serial| format!("0x{serial}"),
        |serial| {
            let pairs = serial.as_bytes().chunks(2).map(String::from_utf8_lossy);
            pairs.collect::<Vec<_>>().join(":")
        },
        |serial| format!("0X{}", serial.to_uppercase()),
    ];
    for form in forms {
        let issued = raw.issue_good(&token).await.unwrap();
        let serial = inspect_leaf(&issued.certificate_chain[0])
            .unwrap()
            .serial
            .to_string();
        let args = ["revoke", "--serial", &form(&serial)];
        let revoked = domain.server.admin(&args).await.unwrap();
        assert_eq!(revoked["revoked"][0]["serial"], serial);
    }
    let args = ["revoke", "--serial", "serial=0xyz"];
    let refused = domain.server.command(&args).await.unwrap();
    assert!(refused.stderr.contains("`serial=`"), "{refused:?}");
}

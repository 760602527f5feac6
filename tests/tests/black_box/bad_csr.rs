//! Requests for certificates that are broken, weak or greedy: refused, or stripped to the public key.

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::Value;
use signet_certs::verify::inspect_leaf;
use signet_proto::agent::{IssueItem, issue_result::Outcome, refusal::Reason};
use signet_tests::{
    agent_client::{RawAgent, new_csr, pod_item},
    domain::Domain,
    http,
};
use tonic::Code;

use self::der::{
    EC_PUBLIC_KEY, ECDSA_SHA1, ECDSA_SHA256, MD5_RSA, P256, RSA_ENCRYPTION, RSA_SHA1, RSA_SHA256, bits,
    context, integer, object_id, octets, sequence, set, text, uri,
};
use super::support::{assert_refused, issued, workload_svids};

mod der;

/// A PKCS#10 request of which every part can be wrong.
struct Request {
    version: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
    attributes: Vec<Vec<u8>>,
    algorithm: Vec<u8>,
    signer: EcdsaKeyPair,
}

fn new_pair() -> EcdsaKeyPair {
    let rng = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap()
}

fn ec_spki(parameters: Vec<u8>, point: &[u8]) -> Vec<u8> {
    sequence(&[sequence(&[object_id(EC_PUBLIC_KEY), parameters]), bits(point)])
}

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = sequence(&[integer(modulus), integer(exponent)]);
    sequence(&[sequence(&[object_id(RSA_ENCRYPTION), vec![5, 0]]), bits(&key)])
}

impl Request {
    /// An honest one.
    fn new() -> Self {
        let signer = new_pair();
        Self {
            version: integer(&[0]),
            subject: sequence(&[]),
            spki: ec_spki(object_id(P256), signer.public_key().as_ref()),
            attributes: Vec::new(),
            algorithm: sequence(&[object_id(ECDSA_SHA256)]),
            signer,
        }
    }

    fn with_spki(spki: Vec<u8>) -> Self {
        Self { spki, ..Self::new() }
    }

    fn with_extensions(extensions: &[Vec<u8>]) -> Self {
        Self {
            attributes: vec![extension_request(extensions)],
            ..Self::new()
        }
    }

    fn info(&self) -> Vec<u8> {
        let attributes = context(0, &self.attributes.concat());
        sequence(&[
            self.version.clone(),
            self.subject.clone(),
            self.spki.clone(),
            attributes,
        ])
    }

    fn signed(&self) -> Vec<u8> {
        let signature = self.signer.sign(&SystemRandom::new(), &self.info()).unwrap();
        self.with_signature(signature.as_ref())
    }

    fn with_signature(&self, signature: &[u8]) -> Vec<u8> {
        sequence(&[self.info(), self.algorithm.clone(), bits(signature)])
    }
}

fn extension_request(extensions: &[Vec<u8>]) -> Vec<u8> {
    let oid = object_id(&[42, 134, 72, 134, 247, 13, 1, 9, 14]);
    sequence(&[oid, set(&[sequence(extensions)])])
}

/// `id-ce-<last>`, critical.
fn extension(last: u8, value: &[u8]) -> Vec<u8> {
    sequence(&[object_id(&[85, 29, last]), vec![1, 1, 0xff], octets(value)])
}

fn subject_alt_name(names: &[Vec<u8>]) -> Vec<u8> {
    extension(17, &sequence(names))
}

struct Setup {
    domain: Domain,
    agent: RawAgent,
    token: String,
}

async fn setup() -> Setup {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let (agent, _) = domain.raw_agent("node-a").await.unwrap();
    Setup { domain, agent, token }
}

impl Setup {
    /// Every one of them is refused as a faulty request, and nothing is recorded as issued.
    async fn refuses(&mut self, cases: &[(&str, Vec<u8>)]) {
        for (what, csr) in cases {
            let outcome = self.agent.issue_one(csr.clone(), &self.token).await.unwrap();
            assert_refused(what, outcome, Reason::InvalidRequest);
            let mut stranger = RawAgent::connect(self.domain.server.agents(), None)
                .await
                .unwrap();
            stranger.hello().await.unwrap();
            let node = self.domain.node_token("node-b").unwrap();
            let status = stranger.attest(csr.clone(), "box", &node).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        }
        assert_eq!(
            workload_svids(&self.domain).await,
            Vec::<Value>::new(),
            "nothing may be issued"
        );
        self.agent.issue_good(&self.token).await.unwrap();
    }

    /// Refused, or issued with nothing of it but the key: the leaf, if there is one.
    async fn strips(&mut self, what: &str, csr: Vec<u8>) -> Option<Vec<u8>> {
        let outcome = self.agent.issue_one(csr, &self.token).await.unwrap();
        if matches!(outcome, Outcome::Refusal(_)) {
            assert_refused(what, outcome, Reason::InvalidRequest);
            return None;
        }
        let leaf = issued(what, outcome).certificate_chain[0].to_vec();
        // Not a CA, no signing usages, one URI SAN: that is what inspecting a leaf means.
        let seen = inspect_leaf(&leaf).unwrap();
        assert_eq!(
            seen.spiffe_id.as_str(),
            "spiffe://example.org/ns/shop/sa/front",
            "{what}"
        );
        let life = seen.not_after.duration_since(seen.not_before).unwrap();
        assert!(life.as_secs() <= 3600 + 120, "{what}: lives {life:?}");
        for word in ["evil", "codeSigning"] {
            let found = leaf.windows(word.len()).any(|part| part == word.as_bytes());
            assert!(!found, "{what}: {word} was copied into the leaf");
        }
        Some(leaf)
    }
}

/// Covers BC-01, BC-02.
#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let mut setup = setup().await;
    let good = new_csr().unwrap();
    let other = setup.domain.shop_pod("other", "node-a").unwrap();
    let leaf = setup.agent.issue_good(&other).await.unwrap().certificate_chain[0].to_vec();
    setup
        .domain
        .server
        .admin(&["revoke", "--spiffe-id", "spiffe://example.org/ns/shop/sa/other"])
        .await
        .unwrap();
    let random: Vec<u8> = (0..1024_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &good)
    );
    let mut indefinite = vec![0x30, 0x80];
    indefinite.extend_from_slice(&good[good.len() - (good.len() - 3)..]);
    indefinite.extend_from_slice(&[0, 0]);
    let mut tag = good.clone();
    tag[0] = 0x31;
    let before = workload_svids(&setup.domain).await.len();
    let cases = [
        ("no bytes", Vec::new()),
        ("one byte", vec![0x30]),
        ("random bytes", random),
        ("a certificate", leaf),
        ("PEM", pem.into_bytes()),
        ("truncated", good[..good.len() - 7].to_vec()),
        ("trailing bytes", [good.as_slice(), &[0]].concat()),
        ("indefinite length", indefinite),
        ("another outer tag", tag),
        ("17 KiB", vec![0x30; 17 << 10]),
    ];
    for (what, csr) in &cases {
        let outcome = setup.agent.issue_one(csr.clone(), &setup.token).await.unwrap();
        assert_refused(what, outcome, Reason::InvalidRequest);
    }
    assert_eq!(
        workload_svids(&setup.domain).await.len(),
        before,
        "nothing may be issued"
    );
}

/// Covers BC-03, BC-07.
#[tokio::test]
async fn requests_that_prove_no_possession_are_refused() {
    let mut setup = setup().await;
    let honest = Request::new();
    let mut flipped = honest.signed();
    let middle = flipped.len() - 20;
    flipped[middle] ^= 1;
    let by_another = Request {
        signer: new_pair(),
        ..Request::new()
    };
    let algorithm = |oid: &[u8]| {
        Request {
            algorithm: sequence(&[object_id(oid)]),
            ..Request::new()
        }
        .signed()
    };
    let cases = [
        ("one bit flipped", flipped),
        ("signed by another key", by_another.signed()),
        ("empty signature", honest.with_signature(&[])),
        ("an RSA algorithm with an EC key", algorithm(RSA_SHA256)),
        ("SHA-1", algorithm(ECDSA_SHA1)),
        ("SHA-1 with RSA", algorithm(RSA_SHA1)),
        ("MD5", algorithm(MD5_RSA)),
    ];
    setup.refuses(&cases).await;
}

/// Covers BC-04, BC-05, BC-06.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
async fn keys_that_are_weak_or_strange_are_refused() {
    let mut setup = setup().await;
    let modulus = |bytes: usize| {
        let mut modulus = vec![0xc3; bytes];
        modulus[bytes - 1] = 1;
        modulus
    };
    let mut odd_2047 = modulus(256);
    odd_2047[0] = 0x43;
    let mut even = modulus(256);
    even[255] = 2;
    let f4: &[u8] = &[1, 0, 1];
    let rsa = |spki: Vec<u8>| {
        let algorithm = sequence(&[object_id(RSA_SHA256), vec![5, 0]]);
        Request {
            spki,
            algorithm,
            ..Request::new()
        }
        .with_signature(&[7; 256])
    };
    let point = new_pair().public_key().as_ref().to_vec();
    let mut off_curve = point.clone();
    off_curve[64] ^= 1;
    let compressed = [&[2 + (point[64] & 1)], &point[1..33]].concat();
    let ec = |parameters: Vec<u8>, point: &[u8]| Request::with_spki(ec_spki(parameters, point)).signed();
    let other = |oid: &[u8]| {
        let spki = sequence(&[sequence(&[object_id(oid)]), bits(&[9; 32])]);
        Request::with_spki(spki).signed()
    };
    let explicit = sequence(&[
        integer(&[1]),
        sequence(&[object_id(&[42, 134, 72, 206, 61, 1, 1])]),
    ]);
    let cases = [
        ("RSA 512", rsa(rsa_spki(&modulus(64), f4))),
        ("RSA 1024", rsa(rsa_spki(&modulus(128), f4))),
        ("RSA 2047", rsa(rsa_spki(&odd_2047, f4))),
        ("RSA 16384", rsa(rsa_spki(&modulus(2048), f4))),
        ("exponent 1", rsa(rsa_spki(&modulus(256), &[1]))),
        ("exponent even", rsa(rsa_spki(&modulus(256), &[4]))),
        (
            "exponent 2^64+1",
            rsa(rsa_spki(&modulus(256), &[1, 0, 0, 0, 0, 0, 0, 0, 1])),
        ),
        ("modulus 0", rsa(rsa_spki(&[0], f4))),
        ("modulus even", rsa(rsa_spki(&even, f4))),
        (
            "P-192",
            ec(object_id(&[42, 134, 72, 206, 61, 3, 1, 1]), &point[..49]),
        ),
        ("secp256k1", ec(object_id(&[43, 129, 4, 0, 10]), &point)),
        ("explicit parameters", ec(explicit, &point)),
        ("a point off the curve", ec(object_id(P256), &off_curve)),
        ("the point at infinity", ec(object_id(P256), &[0])),
        ("a compressed point", ec(object_id(P256), &compressed)),
        ("DSA", other(&[42, 134, 72, 206, 56, 4, 1])),
        ("DH", other(&[42, 134, 72, 206, 62, 2, 1])),
        ("X25519", other(&[43, 101, 110])),
        ("Ed25519", other(&[43, 101, 112])),
        ("ML-DSA-65", other(&[96, 134, 72, 1, 101, 3, 4, 3, 18])),
    ];
    setup.refuses(&cases).await;
}

/// Covers BC-08, BC-09, BC-10, BC-11, BC-12, BC-13, INV-6.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
async fn a_request_contributes_its_key_and_nothing_else() {
    let mut setup = setup().await;
    let plain = setup.strips("no SAN at all", Request::new().signed()).await;
    assert!(plain.is_some(), "an honest request is served");
    let ca = extension(19, &sequence(&[vec![1, 1, 0xff]]));
    let usages = extension(15, &bits(&[0x06]));
    let any_purpose = extension(37, &sequence(&[object_id(&[85, 29, 37, 0])]));
    let name = |uris: &[&str]| {
        let names: Vec<_> = uris.iter().map(|name| uri(name)).collect();
        Request::with_extensions(&[subject_alt_name(&names)]).signed()
    };
    let dns = |name: &[u8]| {
        let many = vec![der::tagged(0x82, name)];
        Request::with_extensions(&[subject_alt_name(&many)]).signed()
    };
    let common_name = |value: Vec<u8>| {
        let attribute = sequence(&[object_id(&[85, 4, 3]), value]);
        let subject = sequence(&[set(&[attribute])]);
        Request {
            subject,
            ..Request::new()
        }
        .signed()
    };
    let attributes = |attributes: Vec<Vec<u8>>| {
        Request {
            attributes,
            ..Request::new()
        }
        .signed()
    };
    let password = sequence(&[
        object_id(&[42, 134, 72, 134, 247, 13, 1, 9, 7]),
        set(&[text("evil")]),
    ]);
    let unknown = sequence(&[object_id(&[42, 3, 4, 5]), set(&[text("evil")])]);
    let twice = vec![
        extension_request(std::slice::from_ref(&ca)),
        extension_request(std::slice::from_ref(&usages)),
    ];
    let rdns: Vec<_> = (0..200)
        .map(|_| set(&[sequence(&[object_id(&[85, 4, 10]), text("evil")])]))
        .collect();
    let names: Vec<_> = (0..500)
        .map(|n| der::tagged(0x82, format!("evil{n}.example").as_bytes()))
        .collect();
    let cases = [
        (
            "a CA",
            Request::with_extensions(&[ca, usages, any_purpose]).signed(),
        ),
        (
            "name constraints",
            Request::with_extensions(&[extension(30, &sequence(&[]))]).signed(),
        ),
        (
            "another workload",
            name(&["spiffe://example.org/ns/evil/sa/evil"]),
        ),
        ("the trust domain itself", name(&["spiffe://example.org"])),
        ("another trust domain", name(&["spiffe://evil.example/x"])),
        ("the server", name(&["spiffe://example.org/signet/server"])),
        (
            "two names",
            name(&["spiffe://example.org/a", "spiffe://example.org/b"]),
        ),
        ("a web address", name(&["https://evil.example/"])),
        ("a wildcard", dns(b"*")),
        ("a double wildcard", dns(b"*.*.x")),
        ("an empty label", dns(b"a..b")),
        ("300 bytes", dns(&[b'a'; 300])),
        ("a zero byte", dns(b"evil\0.example")),
        ("junk", dns("\u{202e}evil".as_bytes())),
        (
            "500 names",
            Request::with_extensions(&[subject_alt_name(&names)]).signed(),
        ),
        ("a long common name", common_name(text(&"evil".repeat(3000)))),
        ("a zero byte in the common name", common_name(text("evil\0"))),
        ("invalid UTF-8", common_name(der::tagged(0x0c, b"evil\xff\xfe"))),
        (
            "200 RDNs",
            Request {
                subject: sequence(&rdns),
                ..Request::new()
            }
            .signed(),
        ),
        (
            "version 7",
            Request {
                version: integer(&[7]),
                ..Request::new()
            }
            .signed(),
        ),
        ("an unknown attribute", attributes(vec![unknown])),
        ("two extension requests", attributes(twice)),
        ("a challenge password", attributes(vec![password])),
    ];
    for (number, (what, csr)) in cases.into_iter().enumerate() {
        // One pod may hold only so many certificates at once, so each case has its own.
        let pod = format!("front-{number}");
        let spec = signet_tests::fake_kube::PodSpec::new("shop", &pod).service_account("front");
        setup.domain.kube.add_pod(&spec).unwrap();
        setup.token = setup.domain.pod_token("shop", &pod).unwrap();
        setup.strips(what, csr).await;
    }
}

/// Covers BC-14.
#[tokio::test]
async fn the_authoritys_own_key_is_refused() {
    let mut setup = setup().await;
    let shown = setup.domain.server.admin(&["ca", "show"]).await.unwrap();
    let mut cases = Vec::new();
    for authority in shown["authorities"].as_array().unwrap() {
        let id = authority["authority_id"].as_str().unwrap();
        let url = format!("{}/ca/{id}.cer", setup.domain.server.publish_url());
        let answer = http::get(&url).await.unwrap();
        if answer.status == 200 {
            let spki = der::spki_of(&answer.body);
            cases.push(("the authority's key", Request::with_spki(spki).signed()));
        }
    }
    assert!(!cases.is_empty(), "no authority to take a key from: {shown}");
    setup.refuses(&cases).await;
}

/// Covers BC-16.
#[tokio::test]
async fn one_bad_request_spoils_no_other() {
    let mut setup = setup().await;
    let token = setup.token.clone();
    let item = |csr: &[u8]| pod_item(csr.to_vec(), &token);
    let same = new_csr().unwrap();
    let batch = vec![
        item(&new_csr().unwrap()),
        item(b"junk"),
        item(&same),
        item(&same),
        pod_item(new_csr().unwrap(), "junk"),
        item(&new_csr().unwrap()),
    ];
    let results = setup.agent.issue(batch).await.unwrap();
    let good: Vec<bool> = results
        .iter()
        .map(|result| matches!(result.outcome, Some(Outcome::Issued(_))))
        .collect();
    assert_eq!(good, [true, false, true, true, false, true]);
    assert_eq!(workload_svids(&setup.domain).await.len(), 4);

    let small = pod_item(Vec::new(), "");
    for batch in [
        Vec::<IssueItem>::new(),
        vec![small.clone(); 257],
        vec![small; 100_000],
    ] {
        let status = setup.agent.issue(batch).await.unwrap_err();
        let code = status.code();
        assert!(
            matches!(
                code,
                Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted
            ),
            "{status:?}"
        );
    }
    setup.agent.issue_good(&setup.token).await.unwrap();
}

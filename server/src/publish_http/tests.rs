use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use signet_certs::authority::{AuthorityCertificate, AuthorityKind, X509Authority};
use signet_certs::crl::{Crl, RevocationReason, RevokedEntry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::fixtures::{MINUTE, START, authority, published, serial, snapshot};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + START
}

/// The door on a real socket, with the authorities behind it.
struct Served {
    address: SocketAddr,
    x509: X509Authority,
    control: X509Authority,
    snapshots: watch::Sender<Arc<TrustSnapshot>>,
    drain: Drain,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Served {
    async fn start(limits: Limits) -> Self {
        let (x509, control) = (
            authority(AuthorityKind::X509, now()),
            authority(AuthorityKind::Control, now()),
        );
        let first = snapshot(
            1,
            vec![published(&x509, &[], 1, now())],
            vec![published(&control, &[], 1, now())],
        );
        let (snapshots, receiver) = watch::channel(first);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = Drain::new();
        drain.spawn(serve_signed_objects(
            listener,
            receiver,
            limits,
            Refusals::untold("a test's"),
            drain.clone(),
        ));
        Self {
            address,
            x509,
            control,
            snapshots,
            drain,
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await.unwrap();
        parse(&raw)
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    /// Publishes a list of the X.509 authority that names `numbers`.
    fn revoke(&self, number: u64, serials: &[u8]) {
        let entry = |number: &u8| RevokedEntry {
            serial: serial(*number),
            revoked_at: now(),
            reason: RevocationReason::KeyCompromise,
            invalid_since: None,
        };
        let entries: Vec<_> = serials.iter().map(entry).collect();
        let x509 = vec![published(&self.x509, &entries, number, now())];
        let control = vec![published(&self.control, &[], 1, now())];
        self.snapshots.send_replace(snapshot(1, x509, control));
    }

    fn crl_path(&self) -> String {
        format!("/crl/{}.crl", self.x509.certificate().id())
    }
}

fn parse(raw: &[u8]) -> Answer {
    let end = raw
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    let head = std::str::from_utf8(&raw[..end]).unwrap();
    let (status, fields) = head.split_once("\r\n").unwrap();
    let headers = fields.split("\r\n").map(|field| {
        let (name, value) = field.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    });
    Answer {
        status: status.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.collect(),
        body: raw[end + 4..].to_vec(),
    }
}

/// Covers INV-2, CRL-25.
#[tokio::test]
async fn every_object_is_served_as_stored_with_its_type() {
    let served = Served::start(Limits::default()).await;
    for authority in [&served.x509, &served.control] {
        let (id, certificate) = (authority.certificate().id(), authority.certificate());
        let der = served.get(&format!("/crl/{id}.crl")).await;
        assert_eq!(
            (der.status, der.headers["content-type"].as_str()),
            (200, CRL_TYPE)
        );
        let crl = Crl::verify(&der.body, certificate).unwrap();
        let pem = served.get(&format!("/crl/{id}.pem")).await;
        assert_eq!(pem.body, crl.pem().as_bytes());
        assert!(pem.body.starts_with(b"-----BEGIN X509 CRL-----"));
        let all = served.get("/crl.pem").await;
        let all = String::from_utf8(all.body).unwrap();
        assert!(all.contains(crl.pem().trim()), "every list is in /crl.pem");
        let cer = served.get(&format!("/ca/{id}.cer")).await;
        assert_eq!(cer.headers["content-type"], CERTIFICATE_TYPE);
        assert_eq!(AuthorityCertificate::from_der(&cer.body).unwrap(), *certificate);
    }
}

#[tokio::test]
async fn a_reader_that_has_the_object_gets_304_and_a_new_list_changes_the_tag() {
    let served = Served::start(Limits::default()).await;
    let path = served.crl_path();
    let first = served.get(&path).await;
    let etag = first.headers["etag"].clone();
    assert_eq!(
        first.headers["cache-control"],
        "public, max-age=30, must-revalidate"
    );
    let none_match = format!("if-none-match: {etag}\r\n");
    let again = served.ask("GET", &path, &none_match).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.headers["etag"], etag);
    served.revoke(2, &[1]);
    let changed = served.ask("GET", &path, &none_match).await;
    assert_eq!(changed.status, 200, "whoever is told of a list finds it");
    assert_ne!(changed.headers["etag"], etag);
    let crl = Crl::verify(&changed.body, served.x509.certificate()).unwrap();
    assert!(crl.is_revoked(&serial(1)));
}

/// Readers that ask by the time of their download, whatever their clock says of it.
#[tokio::test]
async fn whoever_asks_by_a_date_gets_the_list_that_is() {
    let served = Served::start(Limits::default()).await;
    let id = served.x509.certificate().id();
    let paths = [
        served.crl_path(),
        format!("/crl/{id}.pem"),
        "/crl.pem".to_owned(),
        format!("/ca/{id}.cer"),
    ];
    served.revoke(2, &[1]);
    // Long ago, the date in the list and a second before it, the moment of the download, fast clocks.
    for date in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sat, 21 Nov 2026 23:57:59 GMT",
        "Sat, 21 Nov 2026 23:58:00 GMT",
        "Sun, 22 Nov 2026 00:00:00 GMT",
        "Sun, 22 Nov 2026 00:02:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        for path in &paths {
            let answer = served
                .ask("GET", path, &format!("if-modified-since: {date}\r\n"))
                .await;
            assert_eq!(answer.status, 200, "{path} since {date}");
            assert!(!answer.headers.contains_key("last-modified"), "{path}");
            assert_eq!(answer.body, served.get(path).await.body);
        }
    }
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let served = Served::start(Limits::default()).await;
    let (head, get) = (
        served.ask("HEAD", &served.crl_path(), "").await,
        served.get(&served.crl_path()).await,
    );
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in ["etag", "content-type", "content-length"] {
        assert_eq!(head.headers[name], get.headers[name], "{name}");
    }
    assert_eq!(get.headers["content-length"], get.body.len().to_string());
}

#[tokio::test]
async fn other_paths_are_404_and_other_methods_405() {
    let served = Served::start(Limits::default()).await;
    let id = served.x509.certificate().id();
    let elsewhere = [
        "/".to_owned(),
        "/bundle.json".to_owned(),
        "/metrics".to_owned(),
        "/crl/".to_owned(),
        format!("/crl/{}.crl", "0".repeat(40)),
        format!("/crl/{}.crl", id.to_string().to_ascii_uppercase()),
        format!("/crl/../crl/{id}.crl"),
        format!("/ca/{id}.pem"),
    ];
    for path in elsewhere {
        let answer = served.get(&path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = served
            .ask(method, &served.crl_path(), "content-length: 0\r\n")
            .await;
        assert_eq!(
            (answer.status, answer.headers["allow"].as_str()),
            (405, "GET, HEAD"),
            "{method}"
        );
    }
}

#[tokio::test]
async fn nothing_is_served_before_the_first_publication() {
    let (_, snapshots) = crate::trust::channel(crate::fixtures::trust_domain(), MINUTE);
    let door = Objects::new(snapshots.borrow().clone());
    assert!(door.documents.is_empty());
}

#[tokio::test]
async fn a_reader_that_says_nothing_is_dropped_and_others_are_served() {
    let limits = Limits {
        connections: 2,
        header_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let served = Served::start(limits).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    silent
        .write_all(b"GET /crl.pem HTTP/1.1\r\nhost: x\r\n")
        .await
        .unwrap();
    let also_silent = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(served.get("/crl.pem").await.status, 200);
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(MINUTE, silent.read_to_end(&mut rest)).await;
    assert!(closed.is_ok());
    drop(also_silent);
    assert!(served.drain.finish(MINUTE).await);
}

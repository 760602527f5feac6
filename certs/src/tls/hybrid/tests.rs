//! Vectors of another implementation, shares that are none, and whole handshakes between peers that know the group and peers that do not.

use std::sync::Arc;

use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use rustls::crypto::{CryptoProvider, GetRandomFailed};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, PeerIncompatible, ServerConfig,
    ServerConnection,
};

use super::*;
use crate::testing::authority;
use crate::tls::tests::{Side, handshake, pair};
use crate::tls::{Hybrid, KeyExchange, provider};

/// The group, with the provider's randomness.
fn group() -> &'static dyn SupportedKxGroup {
    provider(Hybrid::Require).kx_groups[0]
}

/// A server and a client whose providers are these.
fn configs(server: &Arc<CryptoProvider>, client: &Arc<CryptoProvider>) -> (ServerConfig, ClientConfig) {
    let (at_server, at_client) = pair(&authority("td"));
    let verifier = |side: &Side, provider: &Arc<CryptoProvider>| {
        let mut verifier = side.verifier();
        verifier.provider = Arc::clone(provider);
        verifier
    };
    (
        at_server.server_by(verifier(&at_server, server), true),
        at_client.client_by(verifier(&at_client, client)),
    )
}

/// A provider with these groups alone.
fn only(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: groups.to_vec(),
        ..CryptoProvider::clone(&provider(Hybrid::Off))
    })
}

/// The group that both sides say they have, and whether it took them another round trip.
fn agreed(server: &Arc<CryptoProvider>, client: &Arc<CryptoProvider>) -> (KeyExchange, bool) {
    let (server, client) = configs(server, client);
    let (client, server) = handshake(client, server).unwrap();
    let (group, kind) = (KeyExchange::of(&server).unwrap(), server.handshake_kind());
    assert_eq!(KeyExchange::of(&client), Some(group));
    assert_eq!(client.handshake_kind(), kind);
    (group, kind == Some(HandshakeKind::FullWithHelloRetryRequest))
}

#[test]
fn who_knows_the_group_uses_it_and_who_does_not_needs_no_other_round_trip() {
    use rustls::crypto::ring::kx_group::{SECP256R1, SECP384R1};
    let [prefer, require, off] = [Hybrid::Prefer, Hybrid::Require, Hybrid::Off].map(provider);
    let [x25519, p256, p384] = [X25519, SECP256R1, SECP384R1].map(|group| only(&[group]));
    assert_eq!(group().name(), NamedGroup::from(0x11ec));
    for (server, client, expected) in [
        (&prefer, &prefer, (KeyExchange::X25519MlKem768, false)),
        (&prefer, &require, (KeyExchange::X25519MlKem768, false)),
        (&require, &prefer, (KeyExchange::X25519MlKem768, false)),
        (&require, &require, (KeyExchange::X25519MlKem768, false)),
        (&prefer, &off, (KeyExchange::X25519, false)),
        (&off, &prefer, (KeyExchange::X25519, false)),
        (&off, &off, (KeyExchange::X25519, false)),
        (&prefer, &x25519, (KeyExchange::X25519, false)),
        (&x25519, &prefer, (KeyExchange::X25519, false)),
        (&prefer, &p256, (KeyExchange::Secp256r1, false)),
        (&p256, &prefer, (KeyExchange::Secp256r1, true)),
        (&prefer, &p384, (KeyExchange::Secp384r1, false)),
        // Who names it second is asked for it: another round trip, and not less.
        (
            &require,
            &only(&[X25519, group()]),
            (KeyExchange::X25519MlKem768, true),
        ),
    ] {
        let groups = |of: &Arc<CryptoProvider>| format!("{:?}", of.kx_groups);
        assert_eq!(
            agreed(server, client),
            expected,
            "{} by {}",
            groups(server),
            groups(client)
        );
    }
}

#[test]
fn one_that_requires_the_group_refuses_one_that_lacks_it_and_both_are_told() {
    for (server, client) in [(Hybrid::Require, Hybrid::Off), (Hybrid::Off, Hybrid::Require)] {
        let (server, client) = configs(&provider(server), &provider(client));
        let ended = ended(client, server);
        assert_eq!(ended.server, Some(PeerIncompatible::NoKxGroupsInCommon.into()));
        assert_eq!(
            ended.client,
            Some(Error::AlertReceived(AlertDescription::HandshakeFailure))
        );
    }
}

/// What each side ended with; neither comes to the end of its handshake.
#[derive(Debug)]
struct Ended {
    client: Option<Error>,
    server: Option<Error>,
}

/// Moves bytes until nobody has any left, alerts included.
fn ended(client: ClientConfig, server: ServerConfig) -> Ended {
    let name = "ignored.invalid".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut ended = Ended {
        client: None,
        server: None,
    };
    loop {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        let mut unread = to_server.as_slice();
        while ended.server.is_none() && !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            ended.server = server.process_new_packets().err();
        }
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        let mut unread = to_client.as_slice();
        while ended.client.is_none() && !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            ended.client = client.process_new_packets().err();
        }
        if to_server.is_empty() && to_client.is_empty() {
            assert!(server.is_handshaking() && ended.client.is_some(), "{ended:?}");
            return ended;
        }
    }
}

/// Sends a share that is not what it made.
#[derive(Debug)]
struct Spoilt(fn(&mut Vec<u8>));

struct SpoiltStart(Box<dyn ActiveKeyExchange>, Vec<u8>);

impl SupportedKxGroup for Spoilt {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let started = group().start()?;
        let mut share = started.pub_key().to_vec();
        (self.0)(&mut share);
        Ok(Box::new(SpoiltStart(started, share)))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let mut completed = group().start_and_complete(share)?;
        (self.0)(&mut completed.pub_key);
        Ok(completed)
    }

    fn name(&self) -> NamedGroup {
        group().name()
    }
}

impl ActiveKeyExchange for SpoiltStart {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.0.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.1
    }

    fn group(&self) -> NamedGroup {
        self.0.group()
    }
}

/// How a share that is none is found out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Found {
    /// At once: `illegal_parameter`.
    AtOnce,
    /// As a message that is none: `decode_error`.
    Unread,
    /// By the two having different secrets: nobody reads the other's next message.
    Apart,
}

const fn point(share: &[u8]) -> usize {
    share.len() - POINT
}

type Spoil = (&'static str, fn(&mut Vec<u8>), Found, Found);

/// What is done to a share; how a server finds it out of a client's, and a client of a server's.
const SPOILT: [Spoil; 14] = [
    (
        "one byte",
        |share| share.truncate(1),
        Found::AtOnce,
        Found::AtOnce,
    ),
    (
        "too short",
        |share| share.truncate(share.len() - 1),
        Found::AtOnce,
        Found::AtOnce,
    ),
    ("too long", |share| share.push(0), Found::AtOnce, Found::AtOnce),
    (
        "twice",
        |share| share.extend_from_within(..),
        Found::AtOnce,
        Found::AtOnce,
    ),
    (
        "no X25519",
        |share| share.truncate(point(share)),
        Found::AtOnce,
        Found::AtOnce,
    ),
    (
        "no ML-KEM",
        |share| drop(share.drain(..point(share))),
        Found::AtOnce,
        Found::AtOnce,
    ),
    (
        "X25519 of zeroes",
        |share| {
            let at = point(share);
            share[at..].fill(0);
        },
        Found::AtOnce,
        Found::AtOnce,
    ),
    (
        "X25519 of a low order",
        |share| {
            let at = point(share);
            share[at..].fill(0);
            share[at] = 1;
        },
        Found::AtOnce,
        Found::AtOnce,
    ),
    ("zeroes", |share| share.fill(0), Found::AtOnce, Found::AtOnce),
    // A ciphertext has no form that it could lack.
    ("ones", |share| share.fill(0xff), Found::AtOnce, Found::Apart),
    (
        "coefficients that are not reduced",
        |share| share[..384].fill(0xff),
        Found::AtOnce,
        Found::Apart,
    ),
    (
        "the halves changed about",
        |share| {
            let at = point(share);
            share.rotate_left(at);
        },
        Found::AtOnce,
        Found::Apart,
    ),
    (
        "another bit of ML-KEM",
        |share| {
            let at = point(share);
            share[at - 8] ^= 1;
        },
        Found::Apart,
        Found::Apart,
    ),
    (
        "another bit of X25519",
        |share| {
            let at = point(share);
            share[at + 8] ^= 1;
        },
        Found::Apart,
        Found::Apart,
    ),
];

fn found(by: Option<&Error>, alert: Option<&Error>) -> Option<Found> {
    let told = |description| alert == Some(&Error::AlertReceived(description));
    match by? {
        error if *error == BAD_SHARE => told(AlertDescription::IllegalParameter).then_some(Found::AtOnce),
        Error::InvalidMessage(_) => told(AlertDescription::DecodeError).then_some(Found::Unread),
        _ => None,
    }
}

#[test]
fn shares_that_are_none_end_the_handshake_with_an_alert() {
    for (what, spoil, by_server, by_client) in SPOILT {
        let spoiling = only(&[Box::leak(Box::new(Spoilt(spoil)))]);
        let (server, client) = configs(&provider(Hybrid::Prefer), &spoiling);
        let by = ended(client, server);
        match by_server {
            Found::Apart => assert_eq!(by.client, Some(Error::DecryptError), "{what} of a client"),
            expected => assert_eq!(
                found(by.server.as_ref(), by.client.as_ref()),
                Some(expected),
                "{what} of a client: {by:?}"
            ),
        }
        let (server, client) = configs(&spoiling, &provider(Hybrid::Prefer));
        let by = ended(client, server);
        match by_client {
            Found::Apart => assert_eq!(by.client, Some(Error::DecryptError), "{what} of a server"),
            expected => assert_eq!(
                found(by.client.as_ref(), by.server.as_ref()),
                Some(expected),
                "{what} of a server: {by:?}"
            ),
        }
    }
}

fn completed(started: Box<dyn ActiveKeyExchange>, share: &[u8]) -> Result<Vec<u8>, Error> {
    Ok(started.complete(share)?.secret_bytes().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes as a share: a secret of full length or a word, and from nothing but a whole share a secret.
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..1300), cut in 0..3_u8) {
        let to_client = |length| [bytes.as_slice(), &[7; 1300]].concat()[..length].to_vec();
        let (of_client, of_server) = match cut {
            0 => (bytes.clone(), bytes.clone()),
            1 => (to_client(ENCAPSULATION_KEY + POINT), to_client(CIPHERTEXT + POINT)),
            // Coefficients below 256 are reduced, so this one is a key.
            _ => {
                let mut share = to_client(ENCAPSULATION_KEY + POINT);
                share[..ENCAPSULATION_KEY - 32].chunks_exact_mut(3).for_each(|pair| {
                    pair[1] &= 0xf0;
                    pair[2] &= 0x0f;
                });
                (share, to_client(CIPHERTEXT + POINT))
            }
        };
        let answered = group().start_and_complete(&of_client);
        match answered {
            Ok(answer) => {
                prop_assert_eq!(of_client.len(), ENCAPSULATION_KEY + POINT);
                prop_assert_eq!((answer.pub_key.len(), answer.secret.secret_bytes().len()), (CIPHERTEXT + POINT, 64));
            }
            Err(error) => {
                prop_assert_eq!(error, BAD_SHARE);
                prop_assert!(cut < 2);
            }
        }
        match completed(group().start().unwrap(), &of_server) {
            Ok(secret) => prop_assert_eq!((of_server.len(), secret.len()), (CIPHERTEXT + POINT, 64)),
            Err(error) => prop_assert_eq!(error, BAD_SHARE),
        }
    }
}

#[test]
fn two_who_are_honest_have_the_same_secret_and_it_is_the_rows_of_both_halves() {
    let started = group().start().unwrap();
    assert_eq!(started.pub_key().len(), ENCAPSULATION_KEY + POINT);
    let (of, classical) = started.hybrid_component().unwrap();
    assert_eq!(of, NamedGroup::X25519);
    assert_eq!(classical, &started.pub_key()[ENCAPSULATION_KEY..]);
    let answer = group().start_and_complete(started.pub_key()).unwrap();
    let secret = completed(started, &answer.pub_key).unwrap();
    assert_eq!(secret, answer.secret.secret_bytes());
    assert_ne!(secret[..32], secret[32..]);
}

/// A source that has run dry.
#[derive(Debug)]
struct Dry;

impl SecureRandom for Dry {
    fn fill(&self, _: &mut [u8]) -> Result<(), GetRandomFailed> {
        Err(GetRandomFailed)
    }
}

#[test]
fn without_randomness_there_is_no_share() {
    let dry = X25519MlKem768(&Dry);
    let started = group().start().unwrap();
    assert_eq!(dry.start().err(), Some(Error::FailedToGetRandomBytes));
    let answered = dry.start_and_complete(started.pub_key());
    assert_eq!(answered.err(), Some(Error::FailedToGetRandomBytes));
}

/// Made by Go's library, by tests/interop/go/vectors.
const VECTORS: &str = include_str!("mlkem768.txt");

#[test]
fn ml_kem_is_what_another_implementation_says_it_is() {
    let bytes = |hex: &str| hex::decode(hex).unwrap();
    let mut counted = (0, 0);
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split(' ').collect();
        let [seed, key_hash, message, ciphertext, secret] = fields[..] else {
            panic!("{line}");
        };
        let key = decapsulation_key(&bytes(seed).try_into().unwrap());
        let share = key.encapsulation_key().to_bytes();
        assert_eq!(digest(&SHA256, &share).as_ref(), bytes(key_hash));
        let (ciphertext, secret) = (bytes(ciphertext), bytes(secret));
        if message == "-" {
            counted.1 += 1;
        } else {
            counted.0 += 1;
            let share: [u8; ENCAPSULATION_KEY] = share.as_slice().try_into().unwrap();
            let (made, shared) = encapsulate(&share, &bytes(message).try_into().unwrap()).unwrap();
            assert_eq!(
                (made.to_vec(), shared.to_vec()),
                (ciphertext.clone(), secret.clone())
            );
        }
        assert_eq!(
            decapsulate(&key, &ciphertext.try_into().unwrap()).to_vec(),
            secret
        );
    }
    assert_eq!(counted, (12, 12));
}

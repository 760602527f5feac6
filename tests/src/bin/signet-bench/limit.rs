//! The limit that physics sets here: one CSR's signature verified and one certificate's made, on all cores, no I/O.

use std::{
    thread,
    time::{Duration, Instant},
};

use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
    },
};

/// Bytes that are signed: the size of a CSR's and of a certificate's signed part.
const CSR_BYTES: usize = 100;
const CERTIFICATE_BYTES: usize = 400;
/// Pairs between two looks at the clock.
const ROUND: u32 = 64;

/// Pairs per second over all cores, in one slice.
pub(crate) fn per_second(duration: Duration) -> anyhow::Result<f64> {
    let cores = thread::available_parallelism()?.get();
    let workers: Vec<_> = (0..cores)
        .map(|_| thread::spawn(move || one_core(duration)))
        .collect();
    let mut sum = 0.0;
    for worker in workers {
        sum += worker
            .join()
            .map_err(|_| anyhow::anyhow!("a measuring thread panicked"))??;
    }
    Ok(sum)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn one_core(duration: Duration) -> anyhow::Result<f64> {
    let rng = SystemRandom::new();
    let failed = |_| anyhow::anyhow!("ring failed");
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).map_err(failed)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &rng)
        .map_err(|_| anyhow::anyhow!("ring failed"))?;
    let (csr, certificate) = ([1; CSR_BYTES], [2; CERTIFICATE_BYTES]);
    let proof = key.sign(&rng, &csr).map_err(failed)?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref().to_vec());
    let start = Instant::now();
    let mut pairs = 0u32;
    while start.elapsed() < duration {
        for _ in 0..ROUND {
            public.verify(&csr, proof.as_ref()).map_err(failed)?;
            std::hint::black_box(key.sign(&rng, &certificate).map_err(failed)?);
        }
        pairs += ROUND;
    }
    Ok(f64::from(pairs) / start.elapsed().as_secs_f64())
}

//! A key that remembers what was recorded when it signed.

use signet_certs::signer::{AuthoritySigner, SignError, SignatureAlgorithm};
use signet_runtime::sync::Mutex;

use super::*;

/// Signs, and remembers how many rows the store held at that moment.
struct Witness {
    signer: Arc<dyn AuthoritySigner>,
    store: Arc<MemoryStore>,
    rows: Arc<Mutex<Vec<usize>>>,
}

impl AuthoritySigner for Witness {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.signer.algorithm()
    }

    fn is_remote(&self) -> bool {
        self.signer.is_remote()
    }

    fn public_point(&self) -> &[u8] {
        self.signer.public_point()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.rows.lock().push(self.store.issued().len());
        self.signer.sign(message)
    }
}

/// Covers INV-4.
#[tokio::test(start_paused = true)]
async fn the_key_is_used_only_once_every_row_of_the_batch_is_recorded() {
    let mut world = World::new().await;
    let rows = Arc::new(Mutex::new(Vec::new()));
    let mut view = (**world.running.manager.current().borrow()).clone();
    let Held::X509(active) = &mut view.kind_mut(AuthorityKind::X509).authorities[0].held;
    let witness = Witness {
        signer: active.signer().clone(),
        store: world.running.store.clone(),
        rows: rows.clone(),
    };
    *active = X509Authority::new(active.certificate().clone(), Arc::new(witness)).unwrap();
    let (_keep, authorities) = watch::channel(Arc::new(view));
    world.issuer.parts.authorities = authorities;
    let items = || vec![item(csr(), "pod-token"), item(csr(), "pod-token")];

    world.running.store.issue_failures.store(1, Ordering::SeqCst);
    world.issue(items()).await;
    let denial = world.deny().await;
    world.issue(items()).await;
    assert!(rows.lock().is_empty(), "signed what was not recorded");

    let store = &world.running.store;
    store.allow(&denial, "admin", world.running.now()).await.unwrap();
    let before = world.running.store.issued().len();
    world
        .issue(items())
        .await
        .into_iter()
        .for_each(|outcome| drop(issued(outcome)));
    assert_eq!(*rows.lock(), [before + 2, before + 2]);
}

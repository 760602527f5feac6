//! Keys that live in a token, and authorities that somebody above signs: the machine, the journal and the publisher notice nothing.

use std::sync::atomic::AtomicBool;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, pending};
use signet_certs::authority::{AuthorityChain, AuthorityProfile};
use signet_certs::signer::{AuthoritySigner, SignatureAlgorithm};
use signet_runtime::sync::Mutex;
use signet_testkit::Upstream;

use super::*;
use crate::authority::source::{AuthoritySource, SelfSigned, SourceError};
use crate::fixtures::Seams;
use crate::key_manager::token::Token;

fn in_token(token: &Arc<Token>) -> Seams {
    Seams {
        keys: token.clone(),
        source: Arc::new(SelfSigned),
    }
}

async fn rotate_to(running: &Running, algorithm: Option<SignatureAlgorithm>) -> OperationReport {
    let wish = wants(Order::Rotate {
        force: true,
        algorithm,
        retire: false,
    });
    outcome(running.manager.order(wish).await.unwrap()).await
}

fn algorithms(running: &Running) -> Vec<SignatureAlgorithm> {
    let view = running.manager.current().borrow().clone();
    let authorities = view.kind(X509).authorities.iter();
    authorities
        .map(|viewed| viewed.x509().signer().algorithm())
        .collect()
}

/// Covers INV-5.
#[tokio::test(start_paused = true)]
async fn keys_in_a_token_live_through_rotations_and_restarts_and_go_with_their_authorities() {
    let token = Token::new();
    let running = Running::elsewhere(in_token(&token)).await;
    rotate_to(&running, Some(SignatureAlgorithm::P384)).await;
    assert_eq!(
        algorithms(&running),
        [SignatureAlgorithm::P256, SignatureAlgorithm::P384]
    );
    assert_eq!(
        running.store.kept().keys.len(),
        0,
        "the store has nothing of them"
    );
    let (active, held) = (running.active(X509), token.ids());
    let running = running.restart().await;
    assert_eq!((running.active(X509), token.ids()), (active, held));
    running.pass(2 * HOUR).await;
    assert_eq!(running.states(X509), ["active"], "the first one has gone");
    let mut left = [active, running.active(AuthorityKind::Control)];
    left.sort();
    assert_eq!(token.ids(), left, "and its key with it");
    let on_it = token.signed_on_the_serving_thread.load(Ordering::SeqCst);
    assert_eq!(on_it, 0, "a key that is elsewhere holds up no thread that serves");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_away_delays_a_rotation_and_an_unsaved_key_is_left_nowhere() {
    let token = Token::new();
    let running = Running::elsewhere(in_token(&token)).await;
    let held = token.ids();
    token.away.store(true, Ordering::SeqCst);
    let refused = running.manager.order(wish(false)).await;
    assert!(matches!(refused, Err(OrderError::Failed(_))), "{refused:?}");
    token.away.store(false, Ordering::SeqCst);
    running.store.journal_failures.store(1, Ordering::SeqCst);
    let refused = running.manager.order(wish(false)).await;
    assert!(matches!(refused, Err(OrderError::Failed(_))), "{refused:?}");
    assert_eq!(token.ids(), held);
    rotate_to(&running, None).await;
    assert_eq!(token.ids().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_journal_may_name_is_not_destroyed() {
    let token = Token::new();
    let running = Running::elsewhere(in_token(&token)).await;
    running.store.journal_answers_lost.store(1, Ordering::SeqCst);
    let refused = running.manager.order(wish(false)).await;
    assert!(matches!(refused, Err(OrderError::Failed(_))), "{refused:?}");
    let running = running.restart().await;
    assert_eq!(running.states(X509), ["active", "prepared"]);
    assert_eq!(token.ids().len(), 3);
}

/// A step before the one that the key was made for fails.
#[tokio::test(start_paused = true)]
async fn a_key_whose_turn_never_comes_is_left_nowhere() {
    let token = Token::new();
    let running = Running::elsewhere(in_token(&token)).await;
    rotate_to(&running, None).await;
    let held = token.ids();
    assert!(running.drain.finish(MINUTE).await);
    // The old one is over, and the active ones want successors.
    running.pass(7 * HOUR).await;
    running.store.journal_failures.store(9, Ordering::SeqCst);
    let outcome = start_over(&running, in_token(&token)).await;
    assert!(matches!(outcome, Err(LifecycleError::Store(_))));
    assert_eq!(token.ids(), held);
}

#[tokio::test(start_paused = true)]
async fn a_token_without_the_key_is_fatal_at_the_start() {
    let token = Token::new();
    let running = Running::elsewhere(in_token(&token)).await;
    assert!(running.drain.finish(MINUTE).await);
    let other = Token::new();
    let outcome = start_over(&running, in_token(&other)).await;
    assert!(matches!(outcome, Err(LifecycleError::MissingKey { .. })));
}

/// Somebody above, and how he behaves.
#[derive(Default)]
struct Above {
    root: Upstream,
    /// Says nothing.
    silent: AtomicBool,
    /// Signs something else than what he was asked for.
    wrong: Mutex<Option<fn(&mut AuthorityProfile)>>,
}

impl AuthoritySource for Above {
    fn certify<'a>(
        &'a self,
        profile: &'a AuthorityProfile,
        signer: &'a Arc<dyn AuthoritySigner>,
    ) -> BoxFuture<'a, Result<AuthorityChain, SourceError>> {
        async move {
            if self.silent.load(Ordering::SeqCst) {
                return pending().await;
            }
            let mut profile = profile.clone();
            if let Some(change) = *self.wrong.lock() {
                change(&mut profile);
            }
            Ok(self.root.certify(&profile, &signer.spki(), |_| {})?)
        }
        .boxed()
    }
}

async fn below(above: &Arc<Above>) -> (Running, Arc<Token>) {
    let token = Token::new();
    let seams = Seams {
        keys: token.clone(),
        source: above.clone(),
    };
    (Running::elsewhere(seams).await, token)
}

#[tokio::test(start_paused = true)]
async fn an_authority_below_a_root_shows_the_way_to_it_over_restarts() {
    let above = Arc::new(Above::default());
    let (running, _) = below(&above).await;
    let running = running.restart().await;
    let view = running.manager.current().borrow().clone();
    let authority = view.kind(X509).active().unwrap().x509();
    let certificates: Vec<_> = authority.chain().certificates().cloned().collect();
    assert_eq!(
        certificates,
        [authority.certificate().clone(), above.root.certificate().clone()]
    );
    let shown = authority.chain_of(vec![1]);
    assert_eq!(shown, [vec![1], authority.certificate().der().to_vec()]);
    let published = running.snapshot();
    assert_eq!(
        published.kind(X509)[0].certificate,
        *authority.certificate(),
        "readers of our own are told of the authority itself"
    );
    rotate_to(&running, None).await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_above_signs_is_not_taken_for_more_than_was_asked() {
    let above = Arc::new(Above::default());
    let (running, token) = below(&above).await;
    let (held, states) = (token.ids(), running.states(X509));
    let wrong: [fn(&mut AuthorityProfile); 2] = [
        |profile| profile.not_after += HOUR,
        |profile| profile.trust_domain = signet_testkit::td("elsewhere.example"),
    ];
    for change in wrong {
        *above.wrong.lock() = Some(change);
        let refused = running.manager.order(wish(true)).await;
        let Err(OrderError::Failed(LifecycleError::Certificate { .. })) = refused else {
            panic!("{refused:?}")
        };
    }
    assert_eq!((token.ids(), running.states(X509)), (held, states));
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_answer_is_waited_for_half_a_minute_and_holds_up_nobody_else() {
    let above = Arc::new(Above::default());
    let (running, token) = below(&above).await;
    let held = token.ids();
    above.silent.store(true, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    let refused = running.manager.order(wish(true)).await;
    let Err(OrderError::Failed(LifecycleError::NoAnswer { .. })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(token.ids(), held, "the key that nobody certified is gone");
    above.silent.store(false, Ordering::SeqCst);
    rotate_to(&running, None).await;
}

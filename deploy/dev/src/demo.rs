//! The story: two pods talk, renew, survive a rotation, and one is shut out. Every sentence is checked.

mod envoy;
mod traffic;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use signet_certs::{
    authority::{AuthorityCertificate, AuthorityId},
    crl::Crl,
    serial::SerialNumber,
};
use signet_runtime::output::Narration;
use signet_server::cli::admin::{AdminClient, CaOrder, Revoke, Target};
use signet_tests::http;
use signet_workload::X509Source;

use self::traffic::Traffic;
use crate::{
    domain::{Domain, Times},
    layout::{self, Layout},
    voice::Voice,
};

/// Each awaited event; the whole story takes under a minute.
const PATIENCE: Duration = Duration::from_secs(25);

/// Tells the story, with sidecar proxies where there is an `envoy` of that version.
pub(crate) async fn run(
    dir: Option<PathBuf>,
    envoy: Option<(PathBuf, String)>,
    voice: &Voice,
) -> anyhow::Result<()> {
    let temporary = match dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("signet-")
                .tempdir_in(layout::parent_for("signet-123456"))
                .context("make a folder")?,
        ),
    };
    let folder = dir
        .or_else(|| temporary.as_ref().map(|t| t.path().to_owned()))
        .context("no folder")?;
    let narrator = Narrator::new(voice);
    narrator.say("starting a server, an agent and a fake Kubernetes API");
    let mut domain = Domain::start(Layout::prepare(&folder)?, &Times::story(), voice.clone()).await?;
    let told = match &envoy {
        Some(envoy) => envoy::tell(&domain, &narrator, envoy).await,
        None => tell(&domain, &narrator).await,
    };
    domain.stop().await;
    told?;
    narrator.say("all of it held");
    Ok(())
}

async fn tell(domain: &Domain, narrator: &Narrator) -> anyhow::Result<()> {
    let frontend = traffic::source(&domain.pod_socket("shop", "frontend")).await?;
    let backend = traffic::source(&domain.pod_socket("shop", "backend")).await?;
    let traffic = Traffic::start(&frontend, &backend).await?;
    traffic.more(10, PATIENCE).await?;
    narrator.say(&format!(
        "shop/frontend talks to shop/backend over mTLS, as {}",
        id(&frontend)?
    ));

    let first = serial(&frontend)?;
    let renewed = changed(&frontend, |context| serial_of(context) != Some(first))
        .await
        .context("no renewal")?;
    traffic.more(10, PATIENCE).await?;
    narrator.say(&format!(
        "its SVID renewed under traffic: serial {first} became {renewed}"
    ));

    let mut admin = AdminClient::connect(&domain.admin_socket()).await?;
    let old_authority = authority(&frontend)?;
    admin
        .order(
            CaOrder::rotation(),
            true,
            Narration::untold(),
            std::future::pending(),
        )
        .await
        .context("ca rotate")?;
    changed(&frontend, |context| authority_of(context) != Some(old_authority))
        .await
        .context("no SVID of the new authority")?;
    traffic.more(10, PATIENCE).await?;
    let done = traffic.requests();
    ensure!(
        traffic.failures().is_empty(),
        "requests failed: {:?}",
        traffic.failures()
    );
    narrator.say(&format!(
        "the CA rotated under traffic; {done} requests so far, none failed"
    ));

    let victim = serial(&frontend)?;
    let signer = authority(&frontend)?;
    let spiffe_id = id(&frontend)?;
    let revoked = admin.revoke(revocation(&spiffe_id)).await.context("revoke")?;
    ensure!(
        revoked.problem.is_none(),
        "the list was not published: {:?}",
        revoked.problem
    );
    narrator.say(&format!("revoked {spiffe_id}"));
    let reason = traffic.cut(PATIENCE).await?;
    narrator.say(&format!("backend cut frontend's connection: {reason}"));
    let refusal = traffic.refused(&frontend).await?;
    narrator.say(&format!("frontend's next connection was refused: {refusal}"));
    listed(&domain.publish_url(), signer, victim).await?;
    narrator.say(&format!(
        "the list at {}/crl/{signer}.crl shows serial {victim}",
        domain.publish_url()
    ));
    Ok(())
}

fn revocation(spiffe_id: &str) -> Revoke {
    Revoke {
        target: Some(Target::SpiffeId(spiffe_id.to_owned())),
        reason: "keyCompromise".to_owned(),
        comment: "demo".to_owned(),
        ..Revoke::default()
    }
}

type State = signet_workload::X509Context;

fn serial_of(context: &State) -> Option<SerialNumber> {
    context.default_svid().map(|svid| svid.serial())
}

fn authority_of(context: &State) -> Option<AuthorityId> {
    context.default_svid().map(|svid| svid.authority_id())
}

fn context(source: &X509Source) -> anyhow::Result<State> {
    source.context().context("the source has no SVID")
}

fn serial(source: &X509Source) -> anyhow::Result<SerialNumber> {
    serial_of(&context(source)?).context("no SVID")
}

fn authority(source: &X509Source) -> anyhow::Result<AuthorityId> {
    authority_of(&context(source)?).context("no SVID")
}

fn id(source: &X509Source) -> anyhow::Result<String> {
    Ok(context(source)?
        .default_svid()
        .context("no SVID")?
        .spiffe_id()
        .to_string())
}

/// Waits for a state of the source; gives the serial it then has.
async fn changed(source: &X509Source, is: impl Fn(&State) -> bool) -> anyhow::Result<SerialNumber> {
    let mut changes = source.changes();
    let wanted = changes.wait_for(|state| state.context.as_ref().is_some_and(&is));
    let state = tokio::time::timeout(PATIENCE, wanted)
        .await
        .context("waited too long")??;
    state.context.as_ref().and_then(serial_of).context("no SVID")
}

/// The published list, verified as a stranger would, must name the serial.
async fn listed(publish: &str, authority: AuthorityId, serial: SerialNumber) -> anyhow::Result<()> {
    let get = async |path: String| {
        let answer = http::get(&format!("{publish}{path}")).await?;
        ensure!(
            answer.status.is_success(),
            "GET {path} answered {}",
            answer.status
        );
        anyhow::Ok(answer.body)
    };
    let certificate = AuthorityCertificate::from_der(&get(format!("/ca/{authority}.cer")).await?)?;
    let crl = Crl::verify(&get(format!("/crl/{authority}.crl")).await?, &certificate)?;
    ensure!(
        crl.is_revoked(&serial),
        "serial {serial} is not in CRL {}",
        crl.number()
    );
    Ok(())
}

/// Speaks with the time since the beginning.
struct Narrator {
    start: Instant,
    voice: Voice,
}

impl Narrator {
    #[expect(clippy::disallowed_methods, reason = "the story's clock is the listener's")]
    fn new(voice: &Voice) -> Self {
        Self {
            start: Instant::now(),
            voice: voice.clone(),
        }
    }

    fn say(&self, sentence: &str) {
        let seconds = self.start.elapsed().as_secs_f32();
        self.voice.say(&format!("[{seconds:5.1} s] {sentence}"));
    }
}

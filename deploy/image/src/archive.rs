//! The image as an OCI layout (image-layout.md of the specification) in a tar file. Nothing in it tells who made it, when or
//! where: names sorted, owner root, dates at the epoch.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, Digest, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, RootFsBuilder, SCHEMA_VERSION,
};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Map, Value};
use tar::{Builder, EntryType, Header};

use crate::files::{BIN, Files};

/// What `ctr images import` calls the image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// What the specification calls it, within the archive.
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// One image of one layer.
pub(crate) struct Image<'a> {
    pub(crate) name: &'a str,
    pub(crate) user: &'a str,
    pub(crate) files: &'a Files,
}

/// Bytes with their place in a layout.
struct Blob {
    bytes: Vec<u8>,
    descriptor: Descriptor,
}

impl Blob {
    fn new(kind: MediaType, bytes: Vec<u8>) -> Result<Self> {
        let sha256 = digest(&SHA256, &bytes);
        let name = Digest::from_str(&format!("sha256:{}", hex::encode(sha256)))?;
        let size = u64::try_from(bytes.len())?;
        Ok(Self {
            descriptor: Descriptor::new(kind, size, name),
            bytes,
        })
    }

    fn json(kind: MediaType, document: &impl Serialize) -> Result<Self> {
        Self::new(kind, canonical(document)?)
    }

    fn path(&self) -> PathBuf {
        Path::new("blobs/sha256").join(self.descriptor.digest().digest())
    }
}

impl Image<'_> {
    /// Writes the archive.
    pub(crate) fn write(&self, out: impl Write) -> Result<()> {
        let layer = Blob::new(MediaType::ImageLayer, self.layer()?)?;
        let config = Blob::json(MediaType::ImageConfig, &self.config(&layer)?)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config.descriptor.clone())
            .layers(vec![layer.descriptor.clone()])
            .build()?;
        let manifest = Blob::json(MediaType::ImageManifest, &manifest)?;
        let mut named = manifest.descriptor.clone();
        named.set_annotations(Some(self.names()));
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![named])
            .build()?;
        let layout = OciLayoutBuilder::default()
            .image_layout_version("1.0.0")
            .build()?;
        let mut archive = Builder::new(out);
        file(&mut archive, Path::new("oci-layout"), &canonical(&layout)?, 0o644)?;
        file(&mut archive, Path::new("index.json"), &canonical(&index)?, 0o644)?;
        for folder in ["blobs", "blobs/sha256"] {
            directory(&mut archive, Path::new(folder))?;
        }
        for blob in [&config, &manifest, &layer] {
            file(&mut archive, &blob.path(), &blob.bytes, 0o644)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    /// The root file system.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        let above = self.files.keys().flat_map(|path| path.ancestors().skip(1));
        let folders: BTreeSet<&Path> = above.filter(|folder| !folder.as_os_str().is_empty()).collect();
        for folder in folders {
            directory(&mut layer, folder)?;
        }
        for (place, source) in self.files {
            let bytes = fs::read(source).with_context(|| source.display().to_string())?;
            file(&mut layer, place, &bytes, 0o755)?;
        }
        Ok(layer.into_inner()?)
    }

    fn config(&self, layer: &Blob) -> Result<oci_spec::image::ImageConfiguration> {
        let program = self.files.keys().find(|path| path.starts_with(BIN));
        let program = Path::new("/").join(program.context("an image without a program")?);
        let run = ConfigBuilder::default()
            .user(self.user)
            .entrypoint(vec![program.display().to_string()])
            .env(vec![format!("PATH=/{BIN}")])
            .build()?;
        let rootfs = RootFsBuilder::default()
            .typ("layers")
            .diff_ids(vec![layer.descriptor.digest().to_string()])
            .build()?;
        let config = ImageConfigurationBuilder::default()
            .architecture(architecture())
            .os(Os::Linux)
            .config(run)
            .rootfs(rootfs)
            .build()?;
        Ok(config)
    }

    fn names(&self) -> HashMap<String, String> {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let first = self.name.split('/').next().unwrap_or_default();
        let has_registry = self.name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
        let full = match (has_registry, self.name.contains('/')) {
            (true, _) => self.name.to_owned(),
            (false, true) => format!("docker.io/{}", self.name),
            (false, false) => format!("docker.io/library/{}", self.name),
        };
        HashMap::from([
            (CONTAINERD_NAME.to_owned(), full),
            (REFERENCE.to_owned(), tag.to_owned()),
        ])
    }
}

/// This machine's, for which the program was made too.
fn architecture() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::Other(other.to_owned()),
    }
}

/// JSON with the names of every object sorted.
fn canonical(document: &impl Serialize) -> Result<Vec<u8>> {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut members: Vec<(String, Value)> = members.into_iter().collect();
                members.sort_by(|left, right| left.0.cmp(&right.0));
                let members = members.into_iter().map(|(name, value)| (name, sorted(value)));
                Value::Object(members.collect::<Map<_, _>>())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
            other => other,
        }
    }
    Ok(serde_json::to_vec(&sorted(serde_json::to_value(document)?))?)
}

fn file(archive: &mut Builder<impl Write>, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = header(EntryType::Regular, mode);
    header.set_size(u64::try_from(bytes.len())?);
    Ok(archive.append_data(&mut header, path, bytes)?)
}

fn directory(archive: &mut Builder<impl Write>, path: &Path) -> Result<()> {
    let mut header = header(EntryType::Directory, 0o755);
    header.set_size(0);
    Ok(archive.append_data(&mut header, path, std::io::empty())?)
}

/// Of root, at the epoch.
fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests;

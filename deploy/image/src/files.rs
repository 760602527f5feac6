//! Which files a program needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Folder of the program in the image.
pub(crate) const BIN: &str = "usr/bin";

/// Where each file stands in the image, without a leading slash, and where it is read.
pub(crate) type Files = BTreeMap<PathBuf, PathBuf>;

/// The program below [`BIN`], its loader, and the libraries that the loader would take on this machine.
pub(crate) fn of_program(program: &Path) -> Result<Files> {
    let name = program.file_name().context("a program has a name")?;
    let mut files = Files::from([(Path::new(BIN).join(name), program.to_owned())]);
    for library in libraries(program)? {
        // Found there by its name; what the name leads to is what is read.
        let real = fs::canonicalize(&library).with_context(|| library.display().to_string())?;
        let place = library
            .strip_prefix("/")
            .context("the loader finds libraries by whole paths")?;
        files.insert(place.to_owned(), real);
    }
    Ok(files)
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    if !needs_loader(program)? {
        return Ok(Vec::new());
    }
    let told = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("ldd, which names the libraries of a program")?;
    if !told.status.success() {
        bail!(
            "ldd {}: {}",
            program.display(),
            String::from_utf8_lossy(&told.stderr)
        );
    }
    parse(&String::from_utf8_lossy(&told.stdout))
}

/// Whether it has a program header of the type `PT_INTERP` (ELF-64, little endian, as all machines of Kubernetes are).
fn needs_loader(program: &Path) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("{}: not a program of a 64-bit machine", program.display());
    }
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    };
    let headers = || -> Option<bool> {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for index in 0..count {
            let at = usize::try_from(start.checked_add(index * size)?).ok()?;
            if number(at, 4)? == u64::from(PT_INTERP) {
                return Some(true);
            }
        }
        Some(false)
    };
    headers().with_context(|| format!("{}: its headers are cut off", program.display()))
}

/// `name => path (address)`, or the loader's own `path (address)`; the kernel's own library has no path.
fn parse(told: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in told.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let place = line.split_once("=>").map_or(line, |(_, place)| place.trim());
        let path = place.rsplit_once(" (").map_or(place, |(path, _)| path);
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        } else if !path.starts_with("linux-vdso") {
            bail!("a library is missing on this machine: {line}");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_would_take_is_read_and_a_missing_library_is_named() {
        let told = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse(told).unwrap(), expected.map(PathBuf::from));
        let missing = parse("\tlibssl.so.3 => not found\n").unwrap_err().to_string();
        assert!(missing.contains("libssl.so.3"), "{missing}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(of_program(&manifest).is_err());
    }
}

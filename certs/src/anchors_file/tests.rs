use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::testing::authority;

/// Certificates of control authorities are read as any: making one costs, so the tests share them.
static CERTIFICATES: LazyLock<Vec<AuthorityCertificate>> =
    LazyLock::new(|| (0..4).map(|_| authority("td").certificate().clone()).collect());

fn some_id(byte: u8) -> AuthorityId {
    AuthorityId::from_bytes([byte; 20])
}

fn refused(text: &str) -> String {
    AnchorsFile::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_file_of_certificates_alone_reads_as_it_always_has() {
    let text = format!(
        "of the cluster alpha\n{}\r\n# distrusted: nobody\r\n{}",
        CERTIFICATES[0].pem().replace('\n', "\r\n"),
        CERTIFICATES[1].pem()
    );
    let file = AnchorsFile::parse(text.as_bytes()).unwrap();
    assert_eq!(file.certificates(), &CERTIFICATES[..2]);
    assert!(file.distrusted().is_empty());
}

#[test]
fn a_certificate_that_the_same_file_distrusts_is_none_of_it() {
    let (bad, good) = (&CERTIFICATES[0], &CERTIFICATES[1]);
    let text = format!(
        "\u{feff}  Distrusted: {},{}\t{}\n{}{}",
        bad.id().to_string().to_uppercase(),
        some_id(1),
        some_id(2),
        bad.pem(),
        good.pem()
    );
    let file = AnchorsFile::parse(text.as_bytes()).unwrap();
    assert_eq!(file.certificates(), std::slice::from_ref(good));
    assert_eq!(
        file.distrusted(),
        &[bad.id(), some_id(1), some_id(2)].into_iter().collect()
    );
    let alone = format!("distrusted: {}\n{}", bad.id(), bad.pem());
    let alone = AnchorsFile::parse(alone.as_bytes()).unwrap();
    assert!(alone.certificates().is_empty(), "it says something all the same");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let pem = CERTIFICATES[0].pem();
    for (text, wanted) in [
        ("", "it holds no certificate"),
        ("distrusted:\n", "it holds no certificate"),
        ("\n\ndistrusted: 0102\n", "line 3: \"0102\" is no authority's ID"),
        ("hello\n-----END CERTIFICATE-----\n", "line 2: a block ends"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "line 1: a block begins that does not end",
        ),
        (
            &format!("\n{}{pem}", pem.split("-----END").next().unwrap()),
            "a block begins inside",
        ),
        (
            "\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "line 2: ",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "line 1: the PEM text is refused: it holds a",
        ),
    ] {
        let said = refused(text);
        assert!(said.contains(wanted), "{text:?}: {said}");
    }
}

#[test]
fn there_are_bounds() {
    let many: String = (0..=MAX_DISTRUSTED)
        .map(|number| format!("distrusted: {number:040x}\n"))
        .collect();
    assert_eq!(AnchorsFile::parse(many.as_bytes()), Err(AnchorsFileError::Many));
    assert_eq!(readable_distrust(many.as_bytes()).len(), MAX_DISTRUSTED);
    let large = vec![b' '; MAX_ANCHORS_FILE + 1];
    assert_eq!(
        AnchorsFile::parse(&large),
        Err(AnchorsFileError::Large(MAX_ANCHORS_FILE + 1))
    );
}

/// A file whose writer made a mistake distrusts whom he named.
#[test]
fn what_a_broken_file_distrusts_counts() {
    let broken = format!(
        "distrusted: {} nonsense {}\n-----BEGIN CERTIFICATE-----\ndistrusted: {}\n",
        some_id(1),
        some_id(2),
        some_id(3)
    );
    assert!(AnchorsFile::parse(broken.as_bytes()).is_err());
    let counted = readable_distrust(broken.as_bytes());
    assert_eq!(
        counted,
        [some_id(1), some_id(2), some_id(3)].into_iter().collect()
    );
}

fn file() -> impl Strategy<Value = AnchorsFile> {
    let certificates = prop::collection::vec(0..4_usize, 0..5);
    let own = prop::collection::vec(0..4_usize, 0..2);
    (certificates, own, prop::collection::btree_set(any::<u8>(), 0..40)).prop_map(|(held, own, others)| {
        let held = held.into_iter().map(|index| CERTIFICATES[index].clone());
        let own = own.into_iter().map(|index| CERTIFICATES[index].id());
        AnchorsFile::new(held, own.chain(others.into_iter().map(some_id)))
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(file in file()) {
        let text = file.render();
        match AnchorsFile::parse(text.as_bytes()) {
            Ok(read) => prop_assert_eq!(&read, &file),
            Err(error) => prop_assert!(error == AnchorsFileError::Empty && file == AnchorsFile::default()),
        }
        prop_assert_eq!(&readable_distrust(text.as_bytes()), file.distrusted());
    }

    /// Wherever a file is cut and whatever gets into it, whom a whole line before that names stays distrusted; and a file that is read
    /// distrusts no fewer than can be read of it, and trusts none of them.
    #[test]
    fn damage_trusts_nobody(file in file(), at in any::<prop::sample::Index>(), junk in any::<Vec<u8>>(), cut in any::<bool>()) {
        let text = file.render();
        let at = at.index(text.len() + 1);
        let (before, after) = text.as_bytes().split_at(at);
        let damaged = [before, &junk, if cut { b"" } else { after }].concat();
        let readable = readable_distrust(&damaged);
        let whole = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for id in readable_distrust(&before[..whole]) {
            prop_assert!(readable.contains(&id));
        }
        if let Ok(read) = AnchorsFile::parse(&damaged) {
            prop_assert!(read.distrusted().is_subset(&readable));
            prop_assert!(read.certificates().iter().all(|one| !read.distrusted().contains(&one.id())));
        }
    }
}

/// A mistake beside a name must not make the bearer of that name trusted.
#[test]
fn a_line_that_speaks_of_distrust_and_is_mistyped_is_a_mistake_and_counts() {
    let id = "0a".repeat(20);
    for line in [
        format!("distrusted : {id}"),
        format!("# distrusted: {id}"),
        format!("\u{feff}distrusted: {id}"),
        format!("Distrust {id}"),
    ] {
        let file = format!("hello\n{line}\n");
        assert!(AnchorsFile::parse(file.as_bytes()).is_err(), "{line:?}");
        assert_eq!(readable_distrust(file.as_bytes()).len(), 1, "{line:?}");
    }
    let words = "# whom to distrust is said below\n";
    assert_eq!(AnchorsFile::parse(words.as_bytes()), Err(AnchorsFileError::Empty));
}

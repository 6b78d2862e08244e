//! Files that can be used, and every way in which they can't. C03.

use rcgen::date_time_ymd;

use super::*;
use crate::testing::Files;

fn fault(certificate: &Path, key: &Path) -> String {
    let error = Identity::load(certificate, key).unwrap_err();
    error.to_string()
}

#[test]
fn each_fault_names_the_file_and_what_is_wrong_with_it() {
    let (files, others) = (Files::new(), Files::new());
    let (cert, key) = (&files.certificate, &files.key);
    let file = |name: &str, text: &[u8]| {
        let path = files.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let missing = files.folder.path().join("missing.pem");
    assert!(fault(&missing, key).ends_with("missing.pem cannot be read"));
    assert!(fault(cert, &missing).ends_with("missing.pem cannot be read"));
    assert!(fault(key, key).contains("key.pem holds no certificate"));
    assert!(fault(cert, cert).contains("cert.pem holds no private key"));
    assert!(fault(&file("empty.pem", b""), key).contains("empty.pem holds no certificate"));
    let text = std::fs::read(cert).unwrap();
    let half = file("half.pem", &text[..text.len() / 2]);
    assert!(fault(&half, key).contains("half.pem is no PEM file"), "{}", fault(&half, key));
    let other_bytes = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(fault(&file("odd.pem", other_bytes), key).contains("can't be parsed"));
    let odd_key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(
        fault(cert, &file("odd-key.pem", odd_key)).contains("odd-key.pem holds a key of a kind")
    );
    let large = file("large.pem", &vec![b'x'; FILE_BYTES_MAX as usize + 1]);
    assert!(fault(&large, key).contains("larger than 1 MiB"));
    let mismatch = fault(cert, &others.key);
    assert!(mismatch.contains("does not match") && mismatch.contains("cert.pem"), "{mismatch}");
    assert_eq!(Identity::load(cert, &others.key).unwrap_err().part(), Part::Key);
    // The same file for both.
    assert_eq!(Identity::load(key, key).unwrap_err().part(), Part::Certificate);
    assert_eq!(Identity::load(cert, cert).unwrap_err().part(), Part::Key);
}

#[test]
fn a_certificate_counts_from_its_first_day_to_its_last() {
    let files = Files::with(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let identity = files.identity();
    let at = |seconds| identity.validity(Duration::from_secs(seconds));
    assert_eq!(at(1_577_836_799), Validity::NotYet);
    assert_eq!(at(1_577_836_801), Validity::Valid);
    assert_eq!(at(1_609_459_199), Validity::Valid);
    assert_eq!(at(1_609_459_201), Validity::Expired);
}

#[test]
fn the_same_files_are_the_same_identity_and_its_key_is_not_shown() {
    let (files, others) = (Files::new(), Files::new());
    assert!(files.identity().is_same_as(&files.identity()));
    assert!(!files.identity().is_same_as(&others.identity()));
    let shown = format!("{:?}", files.identity());
    assert_eq!(shown, "Identity { certificates: 1 }");
}

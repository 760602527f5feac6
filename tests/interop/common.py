"""What the peers' scripts share: settings, and checks on certificates that no client library makes."""

import os
import subprocess
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

TIMEOUT = float(os.environ.get("INTEROP_TIMEOUT", "60"))
NO_IDENTITY = "no identity issued"


def socket_path():
    target = os.environ["SPIFFE_ENDPOINT_SOCKET"]
    if not target.startswith("unix:/"):
        sys.exit(f"SPIFFE_ENDPOINT_SOCKET must be unix:///absolute/path, not {target}")
    return "/" + target.removeprefix("unix:").lstrip("/")


def mode():
    if len(sys.argv) != 2 or sys.argv[1] not in ("fetch", "watch", "deny"):
        sys.exit(f"usage: {sys.argv[0]} fetch|watch|deny")
    return sys.argv[1]


def rotate():
    """Makes SVIDs change, if the caller said how."""
    command = os.environ.get("INTEROP_ROTATE")
    if command:
        subprocess.run(command, shell=True, check=True, timeout=TIMEOUT)


def split_der(data):
    """Cuts concatenated DER structures apart."""
    parts = []
    while data:
        length, header = data[1], 2
        if length & 0x80:
            header += length & 0x7F
            length = int.from_bytes(data[2:header], "big")
        parts.append(data[: header + length])
        data = data[header + length :]
    return parts


def check_svid(spiffe_id, chain, key, bundle):
    """A leaf that carries exactly this ID, its key, and a chain that ends in the bundle. Gives the leaf."""
    chain = [x509.load_der_x509_certificate(der) for der in split_der(chain)]
    anchors = [x509.load_der_x509_certificate(der) for der in split_der(bundle)]
    leaf = chain[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe_id], names
    public = load_der_private_key(key, None).public_key()
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public.public_bytes(*spki) == leaf.public_key().public_bytes(*spki), "the key does not fit the leaf"
    now = time.time()
    assert leaf.not_valid_before_utc.timestamp() <= now < leaf.not_valid_after_utc.timestamp(), "not valid now"
    for below, above in zip(chain, chain[1:]):
        below.verify_directly_issued_by(above)
    assert any(issued_by(chain[-1], anchor) for anchor in anchors), "the bundle does not verify the chain"
    return leaf


def issued_by(certificate, issuer):
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:
        return False
    return True


def check_crls(crls, bundle):
    """Each CRL is of an authority of the bundle and in time; each authority has at most one."""
    anchors = [x509.load_der_x509_certificate(der) for der in split_der(bundle)]
    issuers = []
    for der in crls:
        crl = x509.load_der_x509_crl(der)
        signers = [anchor for anchor in anchors if crl.is_signature_valid(anchor.public_key())]
        assert len(signers) == 1, f"{len(signers)} authorities of the bundle have signed a CRL"
        assert signers[0].subject == crl.issuer, "the issuer of a CRL is not its signer"
        assert crl.next_update_utc.timestamp() > time.time(), "a CRL has expired"
        issuers.append(signers[0].subject)
    assert len(set(issuers)) == len(issuers), "two CRLs of one authority"
    return len(anchors)


def revokes():
    """Whether the command that makes SVIDs change also revokes the old ones."""
    return bool(os.environ.get("INTEROP_REVOKES"))


def revoked(crls):
    """Every serial that the CRLs name."""
    return {entry.serial_number for der in crls for entry in x509.load_der_x509_crl(der)}


def check_expected_id(spiffe_id):
    expected = os.environ.get("INTEROP_SPIFFE_ID")
    assert expected in (None, spiffe_id), f"expected {expected}, got {spiffe_id}"

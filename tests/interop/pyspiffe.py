"""py-spiffe: the library as workloads use it, with its own checks on what it is given."""

import queue

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import WorkloadApiError

import common


def check(context):
    """Checks the default SVID of a context and gives its serial."""
    svid = context.default_svid
    common.check_expected_id(str(svid.spiffe_id))
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    assert bundle is not None, "no bundle of the own trust domain"
    leaf = common.check_svid(
        str(svid.spiffe_id),
        b"".join(certificate.public_bytes(Encoding.DER) for certificate in svid.cert_chain),
        svid.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        b"".join(authority.public_bytes(Encoding.DER) for authority in bundle.x509_authorities),
    )
    return leaf.serial_number


def fetch():
    with WorkloadApiClient() as client:
        check(client.fetch_x509_context(timeout=common.TIMEOUT))
        assert client.fetch_x509_svids(timeout=common.TIMEOUT)
        assert client.fetch_x509_bundles(timeout=common.TIMEOUT).bundles
    with X509Source(timeout_in_seconds=common.TIMEOUT) as source:
        common.check_expected_id(str(source.get_x509_context().default_svid.spiffe_id))


def watch():
    events = queue.Queue()
    with WorkloadApiClient() as client:
        watcher = client.stream_x509_contexts(events.put, events.put)
        try:
            before = check(received(events))
            common.rotate()
            while check(received(events)) == before:
                pass
        finally:
            watcher.cancel()


def received(events):
    event = events.get(timeout=common.TIMEOUT)
    if isinstance(event, Exception):
        raise event
    return event


def deny():
    with WorkloadApiClient() as client:
        try:
            client.fetch_x509_svid(timeout=common.TIMEOUT)
        except WorkloadApiError as error:
            assert common.NO_IDENTITY in str(error), error
            return
    raise AssertionError("a workload without identity was given one")


if __name__ == "__main__":
    {"fetch": fetch, "watch": watch, "deny": deny}[common.mode()]()

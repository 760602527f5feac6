"""grpc-python without generated code: what the library itself does on a Unix socket, and the wire as it is."""

from urllib.parse import quote

import grpc

import common

SERVICE = "/SpiffeWorkloadAPI/"
HEADER = (("workload.spiffe.io", "true"),)


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """Field number → list of values of a message that has only length-delimited fields."""
    found, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        assert tag & 7 == 2, f"unexpected wire type {tag & 7}"
        size, at = varint(data, at)
        found.setdefault(tag >> 3, []).append(data[at : at + size])
        at += size
    return found


def mapping(entries):
    pairs = [fields(entry) for entry in entries]
    return {pair[1][0].decode(): pair[2][0] for pair in pairs}


def channel(authority=None):
    options = [] if authority is None else [("grpc.default_authority", authority)]
    return grpc.insecure_channel("unix://" + common.socket_path(), options=options)


def stream(over, method, metadata=HEADER, timeout=common.TIMEOUT):
    call = over.unary_stream(SERVICE + method, request_serializer=bytes, response_deserializer=bytes)
    return call(b"", metadata=metadata, timeout=timeout)


def status(calling):
    """The status that a call ends with instead of an answer."""
    try:
        answer = calling()
        if hasattr(answer, "__next__"):
            next(answer)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call was answered")


def check(message):
    """Checks one answer of FetchX509SVID; gives the leaves' serials."""
    response = fields(message)
    serials = []
    for svid in map(fields, response[1]):
        spiffe_id = svid[1][0].decode()
        serials.append(common.check_svid(spiffe_id, svid[2][0], svid[3][0], svid[4][0]).serial_number)
    first = fields(response[1][0])
    common.check_expected_id(first[1][0].decode())
    crls = response.get(2, [])
    authorities = common.check_crls(crls, first[4][0])
    assert len(crls) == authorities, f"{len(crls)} CRLs for {authorities} authorities"
    return serials


def fetch():
    path = common.socket_path()
    for authority in (None, "localhost", path, quote(path, safe=""), path.lstrip("/"), ""):
        with channel(authority) as over:
            # Twice: the second request comes out of the client's header table.
            for _ in range(2):
                call = stream(over, "FetchX509SVID")
                check(next(call))
                call.cancel()
    with channel() as over:
        response = fields(next(stream(over, "FetchX509Bundles")))
        assert all(name.startswith("spiffe://") and not name.endswith("/") for name in mapping(response[2]))
        for metadata in ((), (("workload.spiffe.io", "True"),), HEADER + HEADER):
            error = status(lambda: stream(over, "FetchX509SVID", metadata))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        unary = over.unary_unary(SERVICE + "FetchJWTSVID", request_serializer=bytes, response_deserializer=bytes)
        error = status(lambda: unary(b"\x0a\x01a", metadata=HEADER, timeout=common.TIMEOUT))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        health = over.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes)
        assert health(b"", timeout=common.TIMEOUT) == b"\x08\x01"


def watch():
    with channel() as over:
        call = stream(over, "FetchX509SVID")
        before = set(check(next(call)))
        common.rotate()
        # The bundle may change first; every message is complete and verifies.
        message = next(call)
        while before & set(check(message)):
            message = next(call)
        # What was revoked is named to the workload itself, on the same stream.
        while common.revokes() and not before <= common.revoked(fields(message).get(2, [])):
            message = next(call)
            check(message)
        call.cancel()


def deny():
    with channel() as over:
        for method in ("FetchX509SVID", "FetchX509Bundles"):
            error = status(lambda: stream(over, method))
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
            assert common.NO_IDENTITY in error.details(), error


if __name__ == "__main__":
    {"fetch": fetch, "watch": watch, "deny": deny}[common.mode()]()

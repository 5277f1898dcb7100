"""A second implementation of the sealed record, of Debian's python3-cbor2 and python3-cryptography: no code in common.

  cose-peer.py verify PUBLIC_KEY_HEX     a message in hex on stdin; prints what it holds as JSON; exit 1: does not verify
  cose-peer.py sign SEED_HEX             prints a record of its own, in hex
"""
import hashlib
import json
import sys

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

STATUSES = "GNTDRMXIOSEF"


def to_be_signed(protected, payload):
    return cbor2.dumps(["Signature1", protected, b"", payload], canonical=True)


def verify(public_key, message):
    tagged = cbor2.loads(message)
    protected, unprotected, payload, signature = tagged.value if isinstance(tagged, cbor2.CBORTag) else tagged
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, to_be_signed(protected, payload))
    header = cbor2.loads(protected)
    record = cbor2.loads(payload)
    codes, flat, values, rows = record[9], record[10], [0] * len(record[9]), []
    for i in range(0, len(flat), len(codes)):
        values = [last + difference for last, difference in zip(values, flat[i : i + len(codes)])]
        row = i // len(codes)
        status = record.get(12, {}).get(row, record.get(11, 0))
        rows.append([record[6] + row * record[8], STATUSES[status], values])
    digest = hashlib.sha256(cbor2.dumps([protected, {}, payload, signature], canonical=True)).hexdigest()
    return {
        "algorithm": header[1],
        "contentType": header[3],
        "kid": unprotected[4].hex() if 4 in unprotected else None,
        "epoch": record[2],
        "sequence": record[3],
        "codes": codes,
        "rows": rows,
        "digest": digest,
    }


def sign(seed):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    kid = hashlib.sha256(cbor2.dumps({1: 1, -1: 6, -2: public_key}, canonical=True)).digest()[:8]
    payload = cbor2.dumps(
        {
            1: 1,
            2: 0x12345678,
            3: 42,
            4: hashlib.sha256(b"the record before").digest()[:16],
            6: 1774008000,
            8: 60,
            9: [2, 4],
            10: [41237512, 18904377, 7, 0, 0, 0, 6, -1],
            12: {2: 2},
        },
        canonical=True,
    )
    protected = cbor2.dumps({1: -8, 3: 65000}, canonical=True)
    signature = key.sign(to_be_signed(protected, payload))
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {4: kid}, payload, signature]), canonical=True)


if sys.argv[1] == "sign":
    print(sign(bytes.fromhex(sys.argv[2])).hex())
else:
    try:
        print(json.dumps(verify(bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.stdin.read().strip()))))
    except InvalidSignature:
        print("the signature does not hold", file=sys.stderr)
        sys.exit(1)

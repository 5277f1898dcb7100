"""A second implementation of the sealed record, of Debian's python3-cbor2 and python3-cryptography: no code in common.

  cose-peer.py verify PUBLIC_KEY_HEX     a message in hex on stdin; prints what it holds as JSON; exit 1: does not verify
  cose-peer.py sign SEED_HEX             prints a record of its own, in hex
  cose-peer.py decrypt SECRET_HEX        an encrypted record in hex on stdin, and the node's X25519 secret; prints the record inside, in hex
  cose-peer.py encrypt SECRET_HEX SHARE_HEX   a record in hex on stdin, the device's secret, the node's share; prints it encrypted, in hex
  cose-peer.py check-receipt SECRET_HEX SHARE_HEX   short receipts in hex on stdin, one a line, the device's secret, the node's share; prints a
                                              line of JSON each: what it says is stored, and whether its MAC holds
  cose-peer.py receipt SECRET_HEX SHARE_HEX TYPE EPOCH SEQUENCE BITMAP DIGEST_HEX TIME   the node's secret, the device's share; prints one in hex
"""
import hashlib
import hmac
import json
import struct
import sys

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
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


def agreed_keys(secret, device_share, node_share, peer_share):
    shared = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer_share))
    info = b"ecp/1 encrypted record" + device_share + node_share
    keys = HKDF(algorithm=hashes.SHA256(), length=64, salt=None, info=info).derive(shared)
    return keys[:32], keys[32:]


def share_of(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


ENCRYPTED_HEADER = cbor2.dumps({1: 24, 3: 65007}, canonical=True)
ENC_STRUCTURE = cbor2.dumps(["Encrypt0", ENCRYPTED_HEADER, b""], canonical=True)


def nonce_of(key, padded):
    return hmac.new(key, padded, hashlib.sha256).digest()[:12]


def decrypt(secret, message):
    tagged = cbor2.loads(message)
    assert tagged.tag == 16
    protected, unprotected, ciphertext = tagged.value
    assert protected == ENCRYPTED_HEADER and sorted(unprotected) == [4, 5]
    key, nonce_key = agreed_keys(secret, unprotected[4], share_of(secret), unprotected[4])
    padded = ChaCha20Poly1305(key).decrypt(unprotected[5], ciphertext, ENC_STRUCTURE)
    assert nonce_of(nonce_key, padded) == unprotected[5]
    record = padded.rstrip(b"\0")
    assert record[-1] == 0x80
    return record[:-1]


def encrypt(secret, node_share, record):
    key, nonce_key = agreed_keys(secret, share_of(secret), node_share, node_share)
    length = 192
    while length <= len(record):
        length *= 2
    padded = (record + b"\x80").ljust(length, b"\0")
    nonce = nonce_of(nonce_key, padded)
    ciphertext = ChaCha20Poly1305(key).encrypt(nonce, padded, ENC_STRUCTURE)
    message = [ENCRYPTED_HEADER, {4: share_of(secret), 5: nonce}, ciphertext]
    return cbor2.dumps(cbor2.CBORTag(16, message), canonical=True)


def receipt_mac(secret, peer_share, device_share, node_share, signed):
    shared = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer_share))
    info = b"ecp lorawan receipt 1" + device_share + node_share
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(shared)
    return hmac.new(key, signed, hashlib.sha256).digest()[:16]


RECEIPT = struct.Struct(">BIII8sI")


def check_receipt(secret, node_share, message):
    signed, mac = message[: RECEIPT.size], message[RECEIPT.size :]
    kind, epoch, sequence, bitmap, digest, time = RECEIPT.unpack(signed)
    bits = [i for i in range(32) if bitmap & (1 << (31 - i))]
    if kind == 1:
        named = set(range(max(1, sequence - 99), sequence + 1)) | {sequence + 1 + i for i in bits}
    else:
        named = {sequence} | {sequence - 1 - i for i in bits}
    holds = len(mac) == 16 and receipt_mac(secret, node_share, share_of(secret), node_share, signed) == mac
    return {"type": kind, "epoch": epoch, "time": time, "digest": digest.hex(), "named": sorted(named), "holds": holds}


def make_receipt(secret, device_share, fields):
    kind, epoch, sequence, bitmap, digest, time = fields
    signed = RECEIPT.pack(int(kind), int(epoch), int(sequence), int(bitmap), bytes.fromhex(digest), int(time))
    return signed + receipt_mac(secret, device_share, device_share, share_of(secret), signed)


if sys.argv[1] == "check-receipt":
    for line in sys.stdin.read().split():
        print(json.dumps(check_receipt(*map(bytes.fromhex, sys.argv[2:4]), bytes.fromhex(line))))
elif sys.argv[1] == "receipt":
    print(make_receipt(*map(bytes.fromhex, sys.argv[2:4]), sys.argv[4:10]).hex())
elif sys.argv[1] == "sign":
    print(sign(bytes.fromhex(sys.argv[2])).hex())
elif sys.argv[1] == "decrypt":
    print(decrypt(bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.stdin.read().strip())).hex())
elif sys.argv[1] == "encrypt":
    arguments = [bytes.fromhex(argument) for argument in sys.argv[2:4]]
    print(encrypt(*arguments, bytes.fromhex(sys.stdin.read().strip())).hex())
else:
    try:
        print(json.dumps(verify(bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.stdin.read().strip()))))
    except InvalidSignature:
        print("the signature does not hold", file=sys.stderr)
        sys.exit(1)

/**
 * The LoRaWAN codec against vectors on which two implementations agreed, RFC 4493, and npm lora-packet 0.9.3 as an oracle. Its declarations
 * say `export default` where the module is `module.exports`, so it is loaded by require and typed here.
 */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { aesCmac } from "../../simulator/lorawan-crypto.ts";
import { dataFrameHead, encodeDataFrame, openDataFrame } from "../../simulator/lorawan-frame.ts";
import {
  decodeChannelList,
  decodeJoinAccept,
  decodeJoinRequest,
  encodeChannelList,
  encodeJoinAccept,
  encodeJoinRequest,
  isJoinRequestAuthentic,
  sessionKeysOf,
} from "../../simulator/lorawan-join.ts";
import { linkAdrRequest, readMacCommands } from "../../simulator/lorawan-mac-command.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

interface OraclePacket {
  getBuffers(): Record<string, Buffer>;
  getDir(): string;
  getFPort(): number | null;
  getFCnt(): number;
  isConfirmed(): boolean;
  getFCtrlACK(): boolean;
  getFCtrlADR(): boolean;
  getFCtrlADRACKReq(): boolean;
  getFCtrlFPending(): boolean;
}

interface Oracle {
  fromWire(bytes: Buffer): OraclePacket;
  decrypt(packet: OraclePacket, appSKey: Buffer, nwkSKey: Buffer, counterMsb: Buffer): Buffer;
  verifyMIC(packet: OraclePacket, nwkSKey?: Buffer, appKey?: Buffer, counterMsb?: Buffer): boolean;
  decryptJoinAccept(packet: OraclePacket, appKey: Buffer): Buffer;
  generateSessionKeys(appKey: Buffer, netId: Buffer, joinNonce: Buffer, devNonce: Buffer): Record<string, Buffer>;
}

const oracle = createRequire(import.meta.url)("lora-packet") as Oracle;
const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "hex"));
const appKey = bytes("00112233445566778899aabbccddeeff");
const request = { joinEui: "70b3d57ed0000001", devEui: "0101010101010101", devNonce: 7 };
const accept = { joinNonce: 1, netId: 0x13, devAddr: 0x26010203, dlSettings: 0, rxDelay: 1 };
const keys = sessionKeysOf(appKey, accept, request.devNonce);
const frame = {
  direction: "up",
  confirmed: false,
  devAddr: accept.devAddr,
  adr: true,
  adrAckRequest: false,
  ack: false,
  pending: false,
  frameCounter: 1,
  fOpts: new Uint8Array(0),
  port: 20,
  payload: bytes("3e64000102"),
} as const;

test("AES-CMAC is that of RFC 4493 clause 4, for messages of 0, 16, 40 and 64 bytes", () => {
  const key = bytes("2b7e151628aed2a6abf7158809cf4f3c");
  const message = bytes(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
  );
  assert.equal(hex(aesCmac(key, message.subarray(0, 0))), "bb1d6929e95937287fa37d129b756746");
  assert.equal(hex(aesCmac(key, message.subarray(0, 16))), "070a16b46b4d4144f79bdd9dd04a287c");
  assert.equal(hex(aesCmac(key, message.subarray(0, 40))), "dfa66747de9ae63030ca32611497c827");
  assert.equal(hex(aesCmac(key, message)), "51f0bebf7e3b9d92fc49741779363cfe");
});

test("a join and the two uplinks of the vectors are these bytes", () => {
  assert.equal(hex(encodeJoinRequest(request, appKey)), "00010000d07ed5b3700101010101010101070017f842b4");
  assert.equal(hex(encodeJoinAccept(accept, appKey)), "2073a01675ddd538a39422a7452bf20198");
  assert.equal(hex(keys.appSKey), "fddcaa10b482fa649351e0ae6e1feaca");
  assert.equal(hex(keys.nwkSKey), "6d6b09023f002e36b5c4815ab0fceae1");
  assert.equal(hex(encodeDataFrame(frame, keys)), "400302012680010014a2577651e76d9181fd");
  const late = { ...frame, adr: false, frameCounter: 0x10001, payload: bytes("3e") };
  assert.equal(hex(encodeDataFrame(late, keys)), "400302012600010014f9991853e9");
  assert.deepEqual(openDataFrame(bytes("400302012600010014f9991853e9"), keys, 0xffff), late);
});

test("lora-packet reads our joins, finds their MICs right, and derives the same keys", () => {
  for (let i = 0; i < 50; i++) {
    const key = random.bytes(16);
    const wanted = {
      joinEui: hex(random.bytes(8)),
      devEui: hex(random.bytes(8)),
      devNonce: random.integer(0, 0xffff),
    };
    const wire = encodeJoinRequest(wanted, key);
    const read = oracle.fromWire(Buffer.from(wire));
    const { JoinEUI, AppEUI, DevEUI, DevNonce } = read.getBuffers();
    assert.equal((JoinEUI ?? AppEUI)?.toString("hex"), wanted.joinEui);
    assert.equal(DevEUI?.toString("hex"), wanted.devEui);
    assert.equal(DevNonce?.readUInt16BE(), wanted.devNonce);
    assert.equal(oracle.verifyMIC(read, undefined, Buffer.from(key)), true);
    assert.deepEqual(decodeJoinRequest(wire), wanted);
    assert.equal(isJoinRequestAuthentic(wire, key), true);
    assert.equal(isJoinRequestAuthentic(wire, random.bytes(16)), false);

    const answer = {
      joinNonce: random.integer(0, 2 ** 24 - 1),
      netId: random.integer(0, 2 ** 24 - 1),
      devAddr: random.uint32(),
      dlSettings: random.integer(0, 0x7f),
      rxDelay: random.integer(0, 15),
      ...(i % 2 === 0 && { cfList: encodeChannelList([867_100_000, 867_300_000, 867_500_000]) }),
    };
    const accepted = encodeJoinAccept(answer, key);
    const plain = oracle.decryptJoinAccept(oracle.fromWire(Buffer.from(accepted)), Buffer.from(key));
    const clear = oracle.fromWire(plain);
    assert.equal(oracle.verifyMIC(clear, undefined, Buffer.from(key)), true);
    const { AppNonce, JoinNonce, NetID, DevAddr } = clear.getBuffers();
    const nonce = (JoinNonce ?? AppNonce) as Buffer;
    assert.equal(nonce.readUIntBE(0, 3), answer.joinNonce);
    assert.equal(NetID?.readUIntBE(0, 3), answer.netId);
    assert.equal(DevAddr?.readUInt32BE(), answer.devAddr);
    assert.deepEqual(decodeJoinAccept(accepted, key), answer);
    assert.equal(decodeJoinAccept(accepted, random.bytes(16)), undefined);

    const theirs = oracle.generateSessionKeys(Buffer.from(key), NetID as Buffer, nonce, DevNonce as Buffer);
    const ours = sessionKeysOf(key, answer, wanted.devNonce);
    assert.equal(theirs.AppSKey?.toString("hex"), hex(ours.appSKey));
    assert.equal(theirs.NwkSKey?.toString("hex"), hex(ours.nwkSKey));
  }
});

test("lora-packet opens our data frames of both directions, with every flag, counters over 16 bits, FOpts and FPort 0", () => {
  for (let i = 0; i < 200; i++) {
    const direction = random.pick(["up", "down"] as const);
    const hasPayload = random.chance(85);
    const port = random.chance(15) ? 0 : random.integer(1, 223);
    const sent = {
      direction,
      confirmed: random.chance(30),
      devAddr: random.uint32(),
      adr: random.chance(50),
      adrAckRequest: direction === "up" && random.chance(30),
      ack: random.chance(30),
      pending: direction === "down" && random.chance(30),
      frameCounter: random.chance(50) ? random.integer(0, 0xffff) : random.uint32(),
      fOpts: hasPayload && port === 0 ? new Uint8Array(0) : random.bytes(random.integer(0, 15)),
      ...(hasPayload && { port }),
      payload: hasPayload ? random.bytes(random.integer(1, 222)) : new Uint8Array(0),
    };
    const session = { appSKey: random.bytes(16), nwkSKey: random.bytes(16) };
    const wire = encodeDataFrame(sent, session);
    const read = oracle.fromWire(Buffer.from(wire));
    // Undocumented: the upper half of the counter is little-endian.
    const msb = Buffer.alloc(2);
    msb.writeUInt16LE(sent.frameCounter >>> 16);
    const [appSKey, nwkSKey] = [Buffer.from(session.appSKey), Buffer.from(session.nwkSKey)];
    assert.equal(oracle.verifyMIC(read, nwkSKey, undefined, msb), true);
    assert.equal(read.getDir(), direction);
    assert.equal(read.isConfirmed(), sent.confirmed);
    assert.equal(read.getFCnt(), sent.frameCounter & 0xffff);
    assert.equal(read.getFCtrlADR(), sent.adr);
    assert.equal(read.getFCtrlACK(), sent.ack);
    if (direction === "up") assert.equal(read.getFCtrlADRACKReq(), sent.adrAckRequest);
    else assert.equal(read.getFCtrlFPending(), sent.pending);
    assert.equal(read.getBuffers().DevAddr?.readUInt32BE(), sent.devAddr);
    assert.equal(hex(read.getBuffers().FOpts ?? new Uint8Array(0)), hex(sent.fOpts));
    if (hasPayload) {
      assert.equal(read.getFPort(), port);
      assert.equal(hex(oracle.decrypt(read, appSKey, nwkSKey, msb)), hex(sent.payload));
    }
    const from = Math.max(0, sent.frameCounter - random.integer(0, 60_000));
    assert.deepEqual(openDataFrame(wire, session, from), sent);
    assert.equal(dataFrameHead(wire)?.devAddr, sent.devAddr);
  }
});

test("one flipped bit, another key, an older counter, a cut frame, FOpts past the end: nothing opens, nothing throws", () => {
  const wire = encodeDataFrame({ ...frame, fOpts: bytes("0307") }, keys);
  for (let bit = 0; bit < wire.length * 8; bit++) {
    const spoilt = Uint8Array.from(wire);
    spoilt[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(openDataFrame(spoilt, keys, 0), undefined, `bit ${bit}`);
  }
  for (let length = 0; length < wire.length; length++)
    assert.equal(openDataFrame(wire.subarray(0, length), keys, 0), undefined);
  assert.equal(openDataFrame(wire, { ...keys, nwkSKey: random.bytes(16) }, 0), undefined);
  assert.equal(openDataFrame(wire, keys, 2), undefined, "counter 1 comes after 2 only with another upper half");
  for (let i = 0; i < 2_000; i++) openDataFrame(random.bytes(random.integer(0, 60)), keys, 0);
  assert.throws(() => encodeDataFrame({ ...frame, fOpts: new Uint8Array(16) }, keys), RangeError);
});

test("MAC commands are read until one is cut or unknown; channel lists come back as they went", () => {
  const request = linkAdrRequest(3, 2);
  assert.deepEqual(
    readMacCommands(Uint8Array.from([...request, 0x06, 0x03, 0x00]), "down").map(({ id }) => id),
    [0x03, 0x06],
  );
  assert.deepEqual(readMacCommands(bytes("0307ff06"), "up"), [{ id: 3, body: bytes("07") }]);
  assert.deepEqual(decodeChannelList(encodeChannelList([867_100_000, 867_900_000])), [867_100_000, 867_900_000]);
});

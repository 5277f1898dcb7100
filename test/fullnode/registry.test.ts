import assert from "node:assert/strict";
import { verify } from "node:crypto";
import { test } from "node:test";
import { ed25519PublicKey } from "../../fullnode/node-keys.ts";
import { enrolDevice } from "../../fullnode/registry.ts";
import { openEnrolmentAnswer, openEnrolmentRequest } from "../../protocol/enrolment.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { DeviceFixture, sha256 } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";

const check = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array) =>
  verify(null, message, ed25519PublicKey(publicKey), signature);

test("a device is enrolled by its request; the answer holds under the node's key and names the request", async (t) => {
  const node = new NodeFixture(t);
  const device = new DeviceFixture();
  const request = device.request();
  const { isNew, answer, did } = await enrolDevice(node.store, node.keys, request, 5_000);
  assert.equal(isNew, true);
  assert.equal(did, device.did);
  const opened = openEnrolmentAnswer(answer, check);
  assert.deepEqual(opened.publicKey, node.keys.publicKey);
  assert.deepEqual(opened.share, node.keys.share);
  assert.deepEqual(opened.device, device.kid);
  assert.deepEqual(opened.request, Uint8Array.from(openEnrolmentRequest(request, check, sha256).digest));
  assert.equal(opened.nodeName, "test node");
});

test("the same request again gives the same device", async (t) => {
  const node = new NodeFixture(t);
  const device = new DeviceFixture();
  const request = device.request();
  await enrolDevice(node.store, node.keys, request, 5_000);
  await node.deliver(device, device.reading());
  const again = await enrolDevice(node.store, node.keys, request, 6_000);
  assert.equal(again.isNew, false);
  assert.equal(node.count("devices"), 1);
  assert.equal(node.count("epochs"), 1);
  await node.deliver(device, device.reading());
  assert.equal(node.lastReceipt().through, 2);
});

test("a request with any byte of its signature or content changed enrols nobody", async (t) => {
  const node = new NodeFixture(t);
  await node.store.foreignChanges(); // it is open
  const device = new DeviceFixture();
  const request = device.request();
  const kid = Buffer.from(request).indexOf(device.kid); // a hint outside the signature
  for (let offset = 0; offset < request.length; offset++) {
    if (offset >= kid && offset < kid + 8) continue;
    const changed = Uint8Array.from(request);
    changed[offset] = (changed[offset] as number) ^ 1;
    await assert.rejects(enrolDevice(node.store, node.keys, changed, 1), Refusal);
  }
  assert.equal(node.count("devices"), 0);
});

// What the owner sees of devices that nobody has enrolled.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { NodeFixture } from "../fullnode/node-fixture.ts";
import { ecpNode } from "./node-process-fixture.ts";

test("ecp-node quarantine lists who is not enrolled and how much is kept, and nothing of those who are", async (t) => {
  const node = new NodeFixture(t);
  assert.match(ecpNode("quarantine", "--data", node.data).stdout, /Nothing is in quarantine/);
  const enrolled = await node.enrolled();
  const stranger = new DeviceFixture();
  await node.deliver(enrolled, enrolled.reading());
  await node.deliver(stranger, ...stranger.readings(3));
  const listed = ecpNode("quarantine", "--data", node.data);
  assert.equal(listed.status, 0, listed.stderr);
  assert.match(listed.stdout, new RegExp(`${stranger.did} +3 `));
  assert.ok(!listed.stdout.includes(enrolled.did));
  const entry = JSON.parse(ecpNode("quarantine", "--data", node.data, "--json").stdout);
  assert.deepEqual([entry.device, entry.reason, entry.records], [stranger.did, "unknown-device", 3]);
  assert.ok(entry.firstReceivedMs <= entry.lastReceivedMs);
});

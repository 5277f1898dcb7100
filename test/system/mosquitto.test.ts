// Hub and full node as processes of their own, with a broker between them that is not ours: Debian's mosquitto.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { publicKeyOfDid } from "../../protocol/public-key.ts";
import { Community } from "./community-fixture.ts";
import { Mosquitto, mosquittoMissing } from "./mosquitto-fixture.ts";
import { eventually, type RunningProgram } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";
import { assertWholeChain, storedConflicts, storedRecords } from "./stored-chain-fixture.ts";

if (mosquittoMissing) console.log(`skipped: ${mosquittoMissing}`);

async function setUp(scene: Scene): Promise<{ broker: Mosquitto; community: Community }> {
  const broker = await Mosquitto.prepare(scene);
  const community = await Community.setUp(scene, { broker });
  return { broker, community };
}

function startNode(community: Community, broker: Mosquitto): Promise<RunningProgram> {
  const credentials = ["--username", broker.username, "--password-file", broker.passwordFile];
  return community.startNode("--broker", `mqtt://127.0.0.1:${broker.port}`, ...credentials);
}

const stored = (count: number) => {
  let seen = 0;
  return ({ event }: Record<string, unknown>): boolean => event === "stored" && ++seen === count;
};

/** All that the hub has sealed is acknowledged, and the node has one whole chain of it. */
async function assertNothingLost(community: Community): Promise<void> {
  await eventually("the hub has nothing that waits", async () => {
    const { wallet } = await community.status();
    return wallet !== null && wallet.through === wallet.nextSequence - 1;
  });
  const { wallet } = await community.status();
  const last = assertWholeChain(storedRecords(community.nodeFolder), publicKeyOfDid(community.device));
  assert.ok(last >= (wallet?.through ?? Number.POSITIVE_INFINITY), "what the wallet released is stored");
  assert.equal(storedConflicts(community.nodeFolder), 0);
}

test("records go through mosquitto over MQTT 5, and its death loses nothing", { skip: mosquittoMissing }, async (t) => {
  const scene = new Scene(t);
  const { broker, community } = await setUp(scene);
  const first = await broker.start();
  const node = await startNode(community, broker);
  await community.startMeter();
  const hub = await community.startHub();
  await node.event(stored(4));
  const connected = first.stderr.filter((line) => line.includes("New client connected"));
  assert.equal(connected.length, 2, "the hub and the node, each once");
  for (const line of connected) assert.match(line, /\(p5, .*u'community'\)/, "protocol 5, with its user");

  const hubPosition = hub.position;
  first.signal("SIGKILL");
  await first.ending();
  await hub.line(/uplink disconnected/, hubPosition);
  // Readings go on being sealed while there is nobody to send them to.
  const before = (await community.status()).wallet?.nextSequence ?? 0;
  await eventually("more is sealed", async () => ((await community.status()).wallet?.nextSequence ?? 0) > before + 1);
  const nodePosition = node.position;
  await broker.start();
  await hub.line(/uplink connected/, hubPosition);
  await node.event(stored(3), nodePosition);
  await assertNothingLost(community);
});

test("a broker that is down at the start is named, tried again, and used when it comes", {
  skip: mosquittoMissing,
}, async (t) => {
  const scene = new Scene(t);
  const { broker, community } = await setUp(scene);
  await community.startMeter();
  const hub = await community.startHub();
  const node = startNode(community, broker);
  const refused = await hub.event(({ message }) => message === "uplink disconnected");
  assert.equal(refused.address, `mqtt://127.0.0.1:${broker.port}`);
  assert.match(String(refused.detail), /ECONNREFUSED/);
  await eventually("readings are sealed all the same", async () => {
    const { wallet, agent } = await community.status();
    assert.notEqual(agent?.uplink?.connected, true);
    return (wallet?.nextSequence ?? 0) > 4;
  });
  await broker.start();
  await hub.line(/uplink connected/);
  await (await node).event(stored(5));
  await assertNothingLost(community);
});

test("a password that the broker does not take is said, and nothing is lost meanwhile", {
  skip: mosquittoMissing,
}, async (t) => {
  const scene = new Scene(t);
  const { broker, community } = await setUp(scene);
  await broker.start();
  await community.startMeter();
  writeFileSync(broker.passwordFile, "another\n", { mode: 0o600 });
  const hub = await community.startHub();
  const refused = await hub.event(({ message }) => message === "uplink disconnected");
  assert.match(String(refused.detail), /not authorized/i);
  writeFileSync(broker.passwordFile, "never on a command line\n", { mode: 0o600 });
  const node = await startNode(community, broker);
  await hub.line(/uplink connected/);
  await node.event(stored(3));
  await assertNothingLost(community);
});

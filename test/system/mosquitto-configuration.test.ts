// The configuration of build/mosquitto under a real mosquitto: what a hub may and may not do there.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { MqttUplink } from "../../agent/mqtt-uplink.ts";
import { topicFilter, topicKinds, topicOf } from "../../protocol/mqtt-topic.ts";
import { decodeReceipt } from "../../protocol/receipt.ts";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { nextMessage } from "../fullnode/mqtt-client-fixture.ts";
import { mosquittoMissing } from "./mosquitto-fixture.ts";
import { projectRoot } from "./running-program-fixture.ts";
import { freePort, Scene } from "./scene-fixture.ts";

const openssl = "/usr/bin/openssl";
const skip = mosquittoMissing || (existsSync(openssl) ? false : `no ${openssl}: apt-get install openssl`);
if (skip) console.log(`skipped: ${skip}`);

const nodes = ["ecp-node-1", "ecp-node-2"];

/** The files of build/mosquitto, installed in a folder of the test instead of /etc/mosquitto, and mosquitto on them. */
class CommunityBroker {
  readonly scene: Scene;
  readonly folder: string;
  nodePort = 0;
  hubPort = 0;
  certificatePort = 0;

  constructor(scene: Scene) {
    this.scene = scene;
    this.folder = scene.path("mosquitto");
  }

  static async start(scene: Scene, hubs: readonly string[], change = (text: string) => text): Promise<CommunityBroker> {
    const broker = new CommunityBroker(scene);
    [broker.nodePort, broker.hubPort, broker.certificatePort] = [await freePort(), await freePort(), await freePort()];
    mkdirSync(path.join(broker.folder, "certs"), { recursive: true });
    broker.#makeCertificates(hubs);
    const passwords = path.join(broker.folder, "ecp.passwords");
    const users = [...nodes, ...hubs];
    writeFileSync(passwords, users.map((user) => `${user}:${passwordOf(user)}\n`).join(""), { mode: 0o600 });
    broker.#run("/usr/bin/mosquitto_passwd", "-U", passwords);
    writeFileSync(path.join(broker.folder, "ecp.acl"), readFileSync(path.join(projectRoot, "build/mosquitto/ecp.acl")));
    // As root it would become the user mosquitto, who may not read this folder.
    const text = [
      "user root",
      "log_dest stderr",
      "persistence false",
      ...["ecp.conf", "ecp-certificates.conf"].map(source),
    ]
      .join("\n")
      .replaceAll("/etc/mosquitto", broker.folder)
      .replace("listener 1883 ", `listener ${broker.nodePort} `)
      .replace("listener 8883", `listener ${broker.hubPort} 127.0.0.1`)
      .replace("listener 8884", `listener ${broker.certificatePort} 127.0.0.1`);
    const file = path.join(broker.folder, "mosquitto.conf");
    writeFileSync(file, change(text));
    const running = scene.startCommand("/usr/sbin/mosquitto", ["-c", file]);
    await running.line(/mosquitto version .* running/);
    return broker;
  }

  #run(command: string, ...args: string[]): void {
    const { status, stderr } = spawnSync(command, args, { encoding: "utf8", cwd: this.folder });
    if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
  }

  #makeCertificates(hubs: readonly string[]): void {
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    this.#run(
      openssl,
      "req",
      "-x509",
      ...key,
      "-keyout",
      "certs/ca.key",
      "-out",
      "certs/ca.crt",
      "-subj",
      "/CN=community",
      "-days",
      "2",
    );
    const make = (name: string, subject: string) => {
      const names = path.join(this.folder, "names");
      writeFileSync(names, "subjectAltName=IP:127.0.0.1\n");
      this.#run(
        openssl,
        "req",
        ...key,
        "-keyout",
        `certs/${name}.key`,
        "-out",
        "request.csr",
        "-subj",
        `/CN=${subject}`,
      );
      const signed = [
        "-CA",
        "certs/ca.crt",
        "-CAkey",
        "certs/ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        names,
      ];
      this.#run(openssl, "x509", "-req", "-in", "request.csr", "-out", `certs/${name}.crt`, ...signed);
    };
    make("broker", "127.0.0.1");
    for (const [i, hub] of hubs.entries()) make(`hub-${i}`, hub);
  }

  file(name: string): string {
    return path.join(this.folder, "certs", name);
  }

  async connect(options: IClientOptions): Promise<MqttClient> {
    const client = await mqtt.connectAsync({ host: "127.0.0.1", reconnectPeriod: 0, protocolVersion: 5, ...options });
    client.on("error", () => {});
    this.scene.atEnd(() => client.end(true));
    return client;
  }

  node(user = "ecp-node-1", clientId = user): Promise<MqttClient> {
    return this.connect({ port: this.nodePort, username: user, password: passwordOf(user), clientId });
  }

  hub(device: string, options: IClientOptions = {}): Promise<MqttClient> {
    const ca = readFileSync(this.file("ca.crt"));
    const tls = { protocol: "mqtts", port: this.hubPort, ca } as const;
    return this.connect({
      ...tls,
      username: device,
      password: passwordOf(device),
      clientId: `ecp-${device}`,
      ...options,
    });
  }

  certifiedHub(place: number): Promise<MqttClient> {
    const [ca, cert, key] = ["ca.crt", `hub-${place}.crt`, `hub-${place}.key`].map((name) =>
      readFileSync(this.file(name)),
    );
    return this.connect({
      protocol: "mqtts",
      port: this.certificatePort,
      ca: ca as Buffer,
      cert: cert as Buffer,
      key: key as Buffer,
    });
  }
}

function source(name: string): string {
  return readFileSync(path.join(projectRoot, "build/mosquitto", name), "utf8");
}

function passwordOf(user: string): string {
  return `the password of ${user}`;
}

/** Topics of messages that came to a client so far. */
function heard(client: MqttClient): string[] {
  const topics: string[] = [];
  client.on("message", (topic, payload) => topics.push(`${topic} ${payload}`));
  return topics;
}

async function subscribe(client: MqttClient, ...topics: string[]): Promise<void> {
  for (const topic of topics) await client.subscribeAsync(topic, { qos: 1 }).catch(() => undefined); // a refusal is an error
}

/** Publishes; a refusal (MQTT 5 reason 0x87) is an error there. */
async function publish(client: MqttClient, topic: string, payload: string): Promise<void> {
  await client.publishAsync(topic, payload, { qos: 1 }).catch(() => undefined);
}

const [a, b] = [new DeviceFixture(), new DeviceFixture()] as const;
const everything = [
  "#",
  "ecp/#",
  "+/+/+/+",
  ...topicKinds.flatMap((kind) => [topicOf(a.name, kind), topicFilter(kind)]),
];

/** What a hub hears of another, and what comes of what it publishes in its name. */
async function overreach(broker: CommunityBroker, intruder: MqttClient) {
  const node = await broker.node();
  const hub = await broker.hub(a.name);
  const [nodeHeard, hubHeard, intruderHeard] = [heard(node), heard(hub), heard(intruder)];
  await subscribe(node, topicFilter("record"), topicFilter("status"));
  await subscribe(hub, topicOf(a.name, "receipt"), topicOf(a.name, "command"));
  await subscribe(intruder, ...everything, `$share/x/${topicFilter("record")}`, "$SYS/#", topicOf(b.name, "receipt"));
  for (const kind of topicKinds) await publish(intruder, topicOf(a.name, kind), "forged");
  for (const kind of ["receipt", "command"] as const) await publish(intruder, topicOf(b.name, kind), "forged");
  await publish(hub, topicOf(a.name, "record"), "a's record");
  await publish(hub, topicOf(a.name, "status"), "a's status");
  await publish(node, topicOf(a.name, "receipt"), "a's receipt");
  await publish(intruder, topicOf(b.name, "record"), "b's record");
  await publish(node, topicOf(b.name, "receipt"), "the end");
  // The order of messages between two clients is kept: when its own comes, whatever else there was has come.
  while (!intruderHeard.some((text) => text.endsWith("the end"))) await nextMessage(intruder);
  while (!nodeHeard.some((text) => text.endsWith("b's record"))) await nextMessage(node);
  while (!hubHeard.some((text) => text.endsWith("a's receipt"))) await nextMessage(hub);
  return { nodeHeard, hubHeard, intruderHeard: [...new Set(intruderHeard)], hub };
}

test("a hub reads and writes its own topics and no other's, over passwords and over certificates", {
  skip,
}, async (t) => {
  const scene = new Scene(t);
  const broker = await CommunityBroker.start(scene, [a.name, b.name]);
  // One after the other: whoever comes in twice under one name is there once.
  for (const comeIn of [() => broker.hub(b.name), () => broker.certifiedHub(1)]) {
    const intruder = await comeIn();
    const { nodeHeard, hubHeard, intruderHeard } = await overreach(broker, intruder);
    assert.deepEqual(intruderHeard, [`${topicOf(b.name, "receipt")} the end`]);
    assert.deepEqual(hubHeard, [`${topicOf(a.name, "receipt")} a's receipt`]);
    const expected = [
      [a, "record"],
      [a, "status"],
      [b, "record"],
    ] as const;
    assert.deepEqual(
      nodeHeard,
      expected.map(([{ name }, kind]) => `${topicOf(name, kind)} ${name === a.name ? "a" : "b"}'s ${kind}`),
    );
    await intruder.endAsync();
  }
});

test("the control: without the access list all of it comes through", { skip }, async (t) => {
  const scene = new Scene(t);
  const broker = await CommunityBroker.start(scene, [a.name, b.name], (text) => text.replace(/^acl_file .*$/m, ""));
  const { intruderHeard, nodeHeard } = await overreach(broker, await broker.hub(b.name));
  assert.ok(intruderHeard.includes(`${topicOf(a.name, "record")} a's record`));
  assert.ok(nodeHeard.includes(`${topicOf(a.name, "record")} forged`));
});

/** The version of TLS that came about with this as the highest, or the error. */
function handshake(broker: CommunityBroker, maxVersion: "TLSv1.1" | "TLSv1.2"): Promise<string> {
  return new Promise((resolve) => {
    const ca = readFileSync(broker.file("ca.crt"));
    const versions = { minVersion: "TLSv1", maxVersion, ciphers: "DEFAULT@SECLEVEL=0" } as const;
    const socket = connect({ host: "127.0.0.1", port: broker.hubPort, ca, ...versions }, () => {
      resolve(`${socket.getProtocol()}`);
      socket.destroy();
    });
    socket.once("error", (error) => resolve(error.message));
  });
}

test("nobody comes in without a name, its password, TLS and the right authority; nobody ends another's connection", {
  skip,
}, async (t) => {
  const scene = new Scene(t);
  const broker = await CommunityBroker.start(scene, [a.name, b.name]);
  const hub = await broker.hub(a.name);
  let closed = false;
  hub.on("close", () => {
    closed = true;
  });
  await assert.rejects(broker.hub(a.name, { password: "another" }), /not authori[sz]ed/i);
  await assert.rejects(broker.connect({ port: broker.nodePort }), /not authori[sz]ed/i);
  await assert.rejects(broker.hub(a.name, { ca: readFileSync(broker.file("hub-0.crt")) }), /certificate/);
  await assert.rejects(broker.hub(a.name, { protocol: "mqtt" }));
  assert.match(await handshake(broker, "TLSv1.1"), /version/i);
  assert.equal(await handshake(broker, "TLSv1.2"), "TLSv1.2");
  await assert.rejects(broker.hub(a.name, { port: broker.certificatePort }), /certificate|handshake|closed/i);
  // Under another's client id one gets in as oneself, and the other stays.
  const other = await broker.hub(b.name, { clientId: `ecp-${a.name}` });
  await publish(other, topicOf(b.name, "record"), "x");
  await publish(hub, topicOf(a.name, "record"), "x");
  assert.equal(closed, false);
  assert.equal(hub.connected && other.connected, true);
});

/** Somebody with hub b's certificate takes the client ids of hub a and of a node; says who was pushed off. */
async function pushedOff(broker: CommunityBroker): Promise<string[]> {
  const victims = { hub: await broker.hub(a.name, { clientId: a.name }), node: await broker.node("ecp-node-1") };
  const closed: string[] = [];
  for (const [name, victim] of Object.entries(victims)) victim.on("close", () => closed.push(name));
  for (const clientId of [a.name, "ecp-node-1"]) {
    const intruder = await broker.connect({
      ...{ protocol: "mqtts", port: broker.certificatePort, ca: readFileSync(broker.file("ca.crt")), clientId },
      ...{ cert: readFileSync(broker.file("hub-1.crt")), key: readFileSync(broker.file("hub-1.key")) },
    });
    await publish(intruder, topicOf(b.name, "record"), "x"); // by then the broker has ended whom it ends
    await intruder.endAsync();
  }
  const isAlive = async (victim: (typeof victims)["hub"]): Promise<unknown> =>
    victim.connected && publish(victim, topicOf(a.name, "record"), "x");
  await Promise.all(Object.values(victims).map(isAlive));
  return closed.sort();
}

test("a hub's certificate pushes nobody else off, whatever client id comes with it", { skip }, async (t) => {
  const broker = await CommunityBroker.start(new Scene(t), [a.name, b.name]);
  assert.deepEqual(await pushedOff(broker), []);
});

test("the control: where client ids are not bound to users it does", { skip }, async (t) => {
  const unbound = (text: string): string => text.replaceAll(/^use_username_as_clientid .*$/gm, "");
  const broker = await CommunityBroker.start(new Scene(t), [a.name, b.name], unbound);
  assert.ok((await pushedOff(broker)).includes("hub"));
});

test("two nodes of one group share the records, each record to one of them", { skip }, async (t) => {
  const scene = new Scene(t);
  const broker = await CommunityBroker.start(scene, [a.name]);
  const both = await Promise.all(nodes.map((name) => broker.node(name)));
  const heardBy = both.map(heard);
  for (const node of both) await node.subscribeAsync(`$share/community/${topicFilter("record")}`, { qos: 1 });
  const hub = await broker.hub(a.name);
  const sent = Array.from({ length: 40 }, (_, i) => `record ${i}`);
  for (const text of sent) await hub.publishAsync(topicOf(a.name, "record"), text, { qos: 1 });
  while (heardBy.flat().length < sent.length) await Promise.race(both.map((node) => nextMessage(node)));
  const texts = heardBy.flat().map((text) => text.replace(/^\S+ /, ""));
  assert.deepEqual(texts.sort(), sent.toSorted());
  for (const one of heardBy) assert.ok(one.length > 5, `shared ${heardBy.map(({ length }) => length)}`);
});

test("a full node and a hub's uplink work on it as they are", { skip }, async (t) => {
  const scene = new Scene(t);
  const device = new DeviceFixture();
  const broker = await CommunityBroker.start(scene, [device.name]);
  const data = scene.path("node");
  writeFileSync(scene.path("request"), device.request());
  const password = (user: string): string => {
    const file = scene.path(`password of ${user}`);
    writeFileSync(file, passwordOf(user), { mode: 0o600 });
    return file;
  };
  await scene.succeed("ecp-node", "init", "--data", data);
  await scene.succeed("ecp-node", "enrol", scene.path("request"), "--data", data);
  const credentials = ["--username", "ecp-node-1", "--password-file", password("ecp-node-1")];
  const address = `mqtt://127.0.0.1:${broker.nodePort}`;
  const node = scene.start("ecp-node", "run", "--data", data, "--json", "--broker", address, ...credentials);
  await node.event(({ event }) => event === "connected");
  const where = { protocol: "mqtts", host: "127.0.0.1", caFile: broker.file("ca.crt") } as const;
  const waysIn = [
    { ...where, port: broker.hubPort, username: device.name, passwordFile: password(device.name) },
    { ...where, port: broker.certificatePort, certFile: broker.file("hub-0.crt"), keyFile: broker.file("hub-0.key") },
  ];
  for (const [i, wayIn] of waysIn.entries()) {
    const connected = Promise.withResolvers<void>();
    const receipt = Promise.withResolvers<Uint8Array>();
    const uplink = new MqttUplink({
      brokers: [wayIn],
      device: device.name,
      onReceipt: receipt.resolve,
      onState: (isConnected) => isConnected && connected.resolve(),
    });
    scene.atEnd(() => uplink.stop());
    uplink.start();
    await connected.promise;
    const isTaken = uplink.publish(device.reading().bytes, "live", () => {});
    assert.equal(isTaken, true);
    assert.equal(decodeReceipt(await receipt.promise).content.through, i + 1);
    await uplink.stop();
  }
});

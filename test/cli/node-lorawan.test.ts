// ecp-node lorawan, enrol --dev-eui, and the options of run, as an operator types them.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parseLorawan } from "../../cli/node-lorawan-options.ts";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { temporaryFolder } from "../fullnode/node-fixture.ts";
import { ecpNode, startNode } from "./node-process-fixture.ts";

const devEui = "70b3d57ed0061234";
const uuid = "7f0c2f6e-0b0e-4f5a-9d0f-2b9c6a1d8e11";

test("a modem is bound to a device at enrolment or later, listed, and unbound", async (t) => {
  const data = join(temporaryFolder(t), "node");
  assert.equal(ecpNode("init", "--data", data).status, 0);
  const devices = [new DeviceFixture(), new DeviceFixture()];
  const [first, second] = devices.map((device, i) => {
    const file = join(data, `${i}.request`);
    writeFileSync(file, device.request());
    return { file, did: device.did };
  });
  assert.ok(first && second);
  const enrolled = ecpNode("enrol", first.file, "--data", data, "--dev-eui", "70-B3-D5-7E-D0-06-12-34");
  assert.equal(enrolled.status, 0, enrolled.stderr);
  assert.match(enrolled.stdout, new RegExp(`DevEUI {6}${devEui}`));
  const taken = ecpNode("enrol", second.file, "--data", data, "--dev-eui", devEui);
  assert.equal(taken.status, 1);
  assert.match(taken.stderr, new RegExp(`bound to ${first.did}`));
  assert.match(taken.stderr, /ecp-node lorawan unbind/);
  const bound = ecpNode("lorawan", "bind", "0011223344556677", second.did, "--data", data);
  assert.equal(bound.status, 0, bound.stderr);
  const listed = ecpNode("lorawan", "list", "--data", data, "--json").stdout.trim().split("\n");
  assert.deepEqual(
    listed.map((line) => {
      const { devEui: of, device } = JSON.parse(line);
      return [of, device];
    }),
    [
      ["0011223344556677", second.did],
      [devEui, first.did],
    ],
  );
  assert.match(ecpNode("lorawan", "list", "--data", data).stdout, /0011223344556677 .* never/);
  assert.equal(ecpNode("lorawan", "unbind", devEui, "--data", data).status, 0);
  assert.equal(ecpNode("lorawan", "unbind", devEui, "--data", data).status, 2);
  assert.equal(ecpNode("lorawan", "bind", "70b3", second.did, "--data", data).status, 64);
  assert.equal(ecpNode("lorawan", "bind", devEui, "did:key:z6Mknobody", "--data", data).status, 2);

  // A broker that is away is said, and ends nothing; the rest of the node does its work.
  const lorawan = ["--lorawan", "chirpstack", "--lorawan-broker", "mqtt://127.0.0.1:1", "--lorawan-application", uuid];
  const node = await startNode(t, data, "--listen", "127.0.0.1:0", ...lorawan);
  await node.eventCount("lorawan", 2);
  assert.deepEqual(
    node.events.filter(({ event }) => event === "lorawan").map(({ state }) => state),
    ["standby", "connecting"],
  );
  const alarms = ecpNode("alarms", "--data", data);
  assert.match(alarms.stdout, /LoRaWAN: NO CONNECTION to the network server's broker/);
  const { problems } = JSON.parse(ecpNode("alarms", "--data", data, "--json").stdout);
  assert.deepEqual(problems, ["no connection to the LoRaWAN network server's broker"]);
  node.child.kill("SIGTERM");
  assert.equal(await node.ended, 0);
});

test("the options of run: what is wrong is said, and nothing of a password", (t) => {
  const folder = temporaryFolder(t);
  const open = join(folder, "open.password");
  writeFileSync(open, "secret", { mode: 0o644 });
  const closed = join(folder, "closed.password");
  writeFileSync(closed, "secret\n", { mode: 0o600 });
  const der = join(folder, "ca.der");
  writeFileSync(der, "\u0030\u0082");
  const good = { lorawan: "chirpstack", "lorawan-broker": "mqtt://[::1]", "lorawan-application": uuid };
  const tts = {
    lorawan: "tts",
    "lorawan-broker": "mqtts://eu1.cloud.thethings.network",
    "lorawan-application": "meters@ttn",
  };
  const wrong: [RegExp, Parameters<typeof parseLorawan>[0]][] = [
    [/--lorawan-broker without --lorawan/, { "lorawan-broker": "mqtt://a" }],
    [/neither chirpstack nor tts/, { ...good, lorawan: "ttn" }],
    [/without --lorawan-application/, { lorawan: "tts" }],
    [/which is not the ID of a ChirpStack application/, { ...good, "lorawan-application": "meters" }],
    [/which is not APPLICATION@TENANT/, { ...tts, "lorawan-application": "a/+/b" }],
    [
      /which is not APPLICATION@TENANT of The Things Stack but of ChirpStack's form/,
      { ...tts, "lorawan-application": uuid },
    ],
    [/--lorawan-password-file without --lorawan-user/, { ...good, "lorawan-password-file": closed }],
    [/without --lorawan-broker/, { ...good, "lorawan-broker": undefined }],
    [/which is not mqtt:\/\/HOST:PORT/, { ...good, "lorawan-broker": "http://a" }],
    [/a password on the command line/, { ...good, "lorawan-broker": "mqtt://u:secret@a" }],
    [/neither each nor 1 to 24 hours/, { ...good, "lorawan-receipts": "25" }],
    [/without encryption/, { ...good, "lorawan-ca-file": der }],
    [/belong together/, { ...tts, "lorawan-cert-file": der }],
    [/a file in PEM/, { ...tts, "lorawan-ca-file": der }],
    [/no such file/, { ...tts, "lorawan-ca-file": join(folder, "none") }],
    [/mode 600/, { ...good, "lorawan-user": "u", "lorawan-password-file": open }],
  ];
  for (const [message, values] of wrong)
    assert.throws(
      () => parseLorawan(values),
      (error: Error & { text?: object }) => {
        const said = `${error.message} ${JSON.stringify(error.text ?? {})}`;
        assert.match(said, message);
        return !said.includes("secret@") && !said.includes("u:secret");
      },
    );
  assert.deepEqual(parseLorawan({}), {});
  const parsed = parseLorawan({ ...good, "lorawan-user": "u", "lorawan-password-file": closed }).lorawan;
  assert.deepEqual(parsed?.broker, { host: "::1", port: 1883, username: "u", password: "secret" });
  assert.deepEqual([parsed?.receipts, parsed?.server.name], ["each", "chirpstack"]);
  const secure = parseLorawan({ ...tts, "lorawan-receipts": "6" }).lorawan;
  assert.deepEqual([secure?.broker.port, secure?.broker.tls, secure?.receipts], [8883, {}, 6]);
});

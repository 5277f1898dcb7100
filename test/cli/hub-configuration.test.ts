import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { parseDocument } from "yaml";
import { CommandError, exit } from "../../cli/command.ts";
import schema from "../../cli/hub.schema.json" with { type: "json" };
import { hubOf, readHubFile } from "../../cli/hub-configuration.ts";
import { factoryBauds, modemFamilies } from "../../drivers/lora/modem.ts";
import { publicKeyOfDid } from "../../protocol/public-key.ts";
import { configurationPage, hubSchema, keysOf, withTables } from "./configuration-document.ts";

const good = `wallet: { folder: wallet }
lines:
  - name: main
    serial: { path: /dev/ttyUSB0, baud: 9600 }
meters:
  - name: house
    line: main
    unit: 1
    profile: eastron-sdm630
`;
const second = `  - name: barn
    line: main
    unit: 2
    profile: eastron-sdm630
`;
const uplink = (text: string): string => `${good}uplink: { mqtt: { ${text} } }\n`;
const lora = (modem: string, more: string): string =>
  `${good}uplink: { lora: { modem: { path: /dev/ttyACM0, ${modem} }, ${more} } }\n`;
const meter = (more: string): string => good.replace("unit: 1", `unit: 1\n    ${more}`);

/** [what is wrong, the file, line:column, what the message must hold] */
const wrong: [name: string, text: string, place: string, says: RegExp][] = [
  ["an empty file", "", "1:1", /a block of keys.*nothing/],
  ["only a comment", "# later\n", "1:1", /a block of keys.*nothing/],
  ["a list", "- a\n", "1:1", /a block of keys/],
  ["YAML that does not end", "wallet: [", "1:10", /YAML that can be read.*Flow sequence/],
  ["a tab as indentation", good.replace("  - name: main", "\t- name: main"), "3:1", /YAML that can be read/],
  ["two documents", `${good}---\na: 1\n`, "10:1", /multiple documents/],
  ["a key twice", meter("unit: 2"), "9:5", /unique/],
  ["an alias", good.replace("unit: 1", "unit: &one 1\n    index: *one"), "9:12", /written out.*\*one/],
  ["an alias that leads nowhere", meter("index: *none"), "9:12", /none/],
  ["an unknown key", `${good}mqtt: 1\n`, "10:1", /wallet, agent, lines, meters, profiles, uplink.*unknown key 'mqtt'/],
  ["an unknown key of a meter", meter("units: 3"), "9:5", /unknown key 'units'/],
  ["a mistyped key", good.replace("- name: main", "- nam: main"), "3:5", /name, serial, tcp.*unknown key 'nam'/],
  [
    "__proto__",
    good.replace("folder: wallet", "folder: wallet, __proto__: { a: 1 }"),
    "1:27",
    /unknown key '__proto__'/,
  ],
  ["a missing key", good.replace("    unit: 1\n", ""), "6:5", /the key 'unit' in meters/],
  ["a missing block", good.replace("wallet: { folder: wallet }\n", ""), "1:1", /the key 'wallet' in the file/],
  ["a key without a value", good.replace("unit: 1", "unit:"), "8:10", /an integer from 1 to 247.*nothing/],
  ["a text for a number", good.replace("unit: 1", "unit: '1'"), "8:11", /an integer from 1 to 247.*"1"/],
  ["a fraction", good.replace("unit: 1", "unit: 1.5"), "8:11", /an integer from 1 to 247.*1\.5/],
  ["not a number", good.replace("unit: 1", "unit: .nan"), "8:11", /an integer from 1 to 247/],
  ["unit 0, the broadcast", good.replace("unit: 1", "unit: 0"), "8:11", /an integer from 1 to 247.*0/],
  ["unit 248", good.replace("unit: 1", "unit: 248"), "8:11", /an integer from 1 to 247.*248/],
  ["a speed that no port has", good.replace("9600", "9601"), "4:41", /one of 1200, .*115200.*9601/],
  ["a parity in other words", good.replace("9600", "9600, parity: Even"), "4:55", /none, even, odd.*"Even"/],
  ["a negative window", good.replace("folder: wallet", "folder: wallet, seal_every_s: -1"), "1:41", /0 to 86400/],
  ["when_full in other words", good.replace("wallet }", "wallet, when_full: stop }"), "1:38", /refuse, drop_oldest/],
  ["an empty path", good.replace("folder: wallet", "folder: ''"), "1:19", /not empty/],
  ["no meter", `${good.slice(0, good.indexOf("  - name: house"))}  []\n`, "6:3", /a list of 1 to 64/],
  ["a name in capitals", good.replace("house", "House"), "6:11", /small letters.*"House"/],
  ["a line without a port", good.replace(/ {4}serial.*\n/, ""), "3:5", /one of 'serial:' and 'tcp:'/],
  ["a line with both", good.replace("    serial", "    tcp: { host: a }\n    serial"), "3:5", /'serial:' and 'tcp:'/],
  ["a line that is not there", good.replace("line: main", "line: mian"), "7:11", /one of the lines: main.*mian/],
  ["an unknown profile", good.replace("sdm630", "sdm631"), "9:14", /eastron-sdm630.*eastron-sdm631/],
  ["an interval that leaves the clock's multiples", meter("interval_s: 7"), "9:17", /divides a day.*7/],
  ["an unknown quantity", meter("quantities: [voltage-l1, volts]"), "9:30", /voltage-l2.*volts/],
  ["a quantity twice", meter("quantities: [voltage-l1, voltage-l1]"), "9:17", /different/],
  ["no quantity", meter("quantities: []"), "9:17", /a list of 1 to 64/],
  [
    "two lines of one name",
    good.replace("meters:", "  - { name: main, tcp: { host: a } }\nmeters:"),
    "5:13",
    /of its own/,
  ],
  [
    "two lines on one port",
    good.replace("meters:", "  - { name: other, serial: { path: /dev/ttyUSB0, baud: 9600 } }\nmeters:"),
    "5:5",
    /a port of its own.*\/dev\/ttyUSB0, as main has/,
  ],
  ["two meters of one name", good + second.replace("barn", "house"), "10:11", /a name of its own/],
  ["two meters of one index", `${good}${second}    index: 0\n`, "14:12", /an index of its own/],
  ["one unit under two names", good + second.replace("unit: 2", "unit: 1"), "12:11", /of its own.*1, as house has/],
  ["another scheme", uplink("url: 'http://node'"), "10:24", /mqtt:\/\/host:1883.*http/],
  ["a port beyond 65535", uplink("url: 'mqtt://node:99999'"), "10:24", /mqtt:\/\/host:port/],
  ["port 0", uplink("url: 'mqtt://node:0'"), "10:24", /mqtt:\/\/host:port/],
  ["a path behind the port", uplink("url: 'mqtt://node:1883/a'"), "10:24", /mqtt:\/\//],
  ["a query behind the port", uplink("url: 'mqtt://node:1883?a=1'"), "10:24", /mqtt:\/\//],
  ["a password in the address", uplink("url: 'mqtt://me:secret@node'"), "10:24", /mqtt:\/\//],
  ["a CA without TLS", uplink("url: 'mqtt://node', ca_file: ca.pem"), "10:39", /mqtts:\/\//],
  ["a hub's certificate without its key", uplink("url: 'mqtts://node', cert_file: c"), "10:40", /key_file/],
  ["a key without its certificate", uplink("url: 'mqtts://node', key_file: k"), "10:40", /cert_file/],
  ["a certificate without TLS", uplink("url: 'ws://node', cert_file: c, key_file: k"), "10:37", /wss:\/\//],
  [
    "a proxy",
    uplink("url: 'mqtt://node', proxy: 'http://p:3128'"),
    "10:46",
    /no proxy: the hub connects to its broker directly/,
  ],
  ["a query behind a WebSocket's path", uplink("url: 'wss://node/mqtt?a=1'"), "10:24", /wss:\/\//],
  ["a fallback without an address", uplink("url: 'mqtt://node', fallbacks: [{ username: me }]"), "10:51", /url/],
  [
    "a fallback with a password alone",
    uplink("url: 'mqtt://n', fallbacks: [{ url: 'mqtt://b', password_file: p }]"),
    "10:67",
    /username/,
  ],
  ["an uplink of nothing", `${good}uplink: { window_kib: 64 }\n`, "10:1", /'mqtt' or 'lora'.*neither/],
  ["a modem's family that is none", lora("family: rak", "region: EU868"), "10:56", /rui3, lora-e5, .*"rak"/],
  ["no region", lora("family: rui3", "slot_s: 900"), "10:17", /the key 'region' in lora/],
  [
    "rows that no reading gives",
    lora("family: rui3", "region: EU868, slot_s: 90"),
    "10:87",
    /multiple of the 60 s.*house.*90/,
  ],
  ["rows that no day holds", lora("family: rui3", "region: EU868, slot_s: 840000"), "10:87", /10 to 86400/],
  ["rows off the clock's multiples", lora("family: rui3", "region: EU868, slot_s: 420"), "10:87", /divides a day.*420/],
  [
    "a batch shorter than a row",
    lora("family: rui3", "region: EU868, batch_s: 600"),
    "10:88",
    /multiple of slot_s .900.*600/,
  ],
  ["a batch of another length", lora("family: rui3", "region: EU868, batch_s: 1000"), "10:88", /auto, 10, .*1000/],
  [
    "a quantity that no meter gives",
    lora("family: rui3", "region: EU868, quantities: [volts]"),
    "10:92",
    /active-power-import.*volts/,
  ],
  [
    "a modem on a meter's line",
    lora("family: rui3", "region: EU868").replace("/dev/ttyACM0", "/dev/ttyUSB0"),
    "10:34",
    /a port of its own/,
  ],
  ["a password without a name", uplink("url: 'mqtt://node', password_file: p"), "10:39", /username/],
  [
    "a socket's path that is too long",
    good.replace("folder: wallet", `folder: wallet, socket: /${"x".repeat(107)}`),
    "1:35",
    /at most 107 bytes/,
  ],
];

for (const [name, text, place, says] of wrong)
  test(`${name}: refused at ${place}`, () => {
    assert.throws(
      () => hubOf("/etc/ecp/hub.yaml", text),
      (error) => {
        assert.ok(error instanceof CommandError, `${error}`);
        const { expected, got, where, todo } = error.text;
        assert.equal(where, `/etc/ecp/hub.yaml:${place}`);
        assert.match(`${expected}; got ${got}`, says);
        assert.match(todo, /ecp config check/);
        assert.equal(error.status, exit.badConfiguration);
        return true;
      },
    );
  });

for (const [name, text] of [
  ["an address", uplink("url: 'mqtt://me:s3cret@node'")],
  ["an address with a slash in the password", uplink("url: 'wss://me:s3/s3cret@node/mqtt'")],
  ["a long address", uplink(`url: 'mqtt://me:s3cret${"x".repeat(80)}@node'`)],
  ["a WebSocket's query", uplink("url: 'wss://node/mqtt?token=s3cret'")],
  ["a fallback's address", uplink("url: 'mqtt://node', fallbacks: [{ url: 'mqtts://me:s3cret@node' }]")],
  ["a proxy's address", uplink("url: 'mqtt://node', proxy: 'http://me:s3cret@p:3128'")],
  ["the home's broker", `${good}home: { mqtt: { url: 'mqtt://me:s3cret@node' } }\n`],
] as const)
  test(`a password in ${name} is not in the error, which goes into logs`, () => {
    assert.throws(
      () => hubOf("/etc/ecp/hub.yaml", text),
      (error) => {
        assert.ok(error instanceof CommandError, `${error}`);
        assert.doesNotMatch(JSON.stringify(error.text), /s3c/);
        assert.match(error.text.got, /:\/\//, "what came is shown all the same");
        return true;
      },
    );
  });

test("the smallest file gets the defaults, and paths beside it", () => {
  const { configuration, policy } = hubOf("/etc/ecp/hub.yaml", good);
  assert.deepEqual(configuration, {
    walletFolder: "/etc/ecp/wallet",
    walletSocket: "/etc/ecp/wallet/wallet.sock",
    agentSocket: "/etc/ecp/agent.sock",
    lines: [{ name: "main", serial: { path: "/dev/ttyUSB0", baud: 9600, dataBits: 8, parity: "none", stopBits: 1 } }],
    meters: [
      { index: 0, name: "house", line: "main", unit: 1, profile: "eastron-sdm630", intervalS: 60, powerMaxW: 0 },
    ],
    sealEveryS: 60,
  });
  assert.deepEqual(policy, {
    meters: [
      {
        index: 0,
        name: "house",
        profile: "eastron-sdm630",
        powerMaxW: 0,
        slotS: 60,
        rowsPerMinute: 2,
        resolutionWh: 1_000,
        installation: 0,
        installationReason: "",
      },
    ],
    sealEveryS: 60,
    whenFull: "refuse",
    retentionDays: 30,
    encryptTo: "first",
    plans: [],
  });
});

test("everything given is taken: paths by the file's folder, codes ascending, IPv6 without brackets", () => {
  const text = `wallet:
  folder: ../w
  socket: run/w.sock
  passphrase_file: secret
  seal_every_s: 0
  when_full: drop_oldest
  retention_days: 0
agent: { socket: /run/ecp/agent.sock }
lines:
  - { name: gateway, tcp: { host: "fe80::1" } }
meters:
  - { name: house, index: 7, line: gateway, unit: 247, profile: eastron-sdm630, interval_s: 1, power_max_w: 43000,
      quantities: [voltage-l1, active-power-import] }
uplink:
  mqtt: { url: "mqtts://[2001:db8::1]", username: hub, password_file: p, ca_file: /etc/ca.pem }
`;
  const { configuration, policy } = hubOf("/etc/ecp/hub.yaml", text);
  assert.deepEqual(configuration, {
    walletFolder: "/etc/w",
    walletSocket: "/etc/ecp/run/w.sock",
    passphraseFile: "/etc/ecp/secret",
    agentSocket: "/run/ecp/agent.sock",
    lines: [{ name: "gateway", tcp: { host: "fe80::1", port: 502, framing: "tcp" } }],
    meters: [
      {
        ...{ index: 7, name: "house", line: "gateway", unit: 247, profile: "eastron-sdm630" },
        ...{ intervalS: 1, codes: [1, 20], powerMaxW: 43_000 },
      },
    ],
    sealEveryS: 0,
    mqtt: {
      ...{ protocol: "mqtts", host: "2001:db8::1", port: 8883 },
      ...{ username: "hub", passwordFile: "/etc/ecp/p", caFile: "/etc/ca.pem" },
    },
    windowBytes: 524_288,
  });
  assert.equal(policy.meters[0]?.rowsPerMinute, 120);
  assert.equal(policy.whenFull, "drop_oldest");
});

test("brokers in their order, with all that each may have", () => {
  const text = uplink(
    "url: 'wss://[2001:db8::1]/a/b', cert_file: c, key_file: k, server_name: n, reconnect_s: 3, fallbacks: [{ url: 'ws://h' }, { url: 'mqtt://h:99', carries: newest }]",
  );
  const { configuration } = hubOf("/etc/ecp/hub.yaml", text);
  assert.deepEqual(configuration.mqtt, {
    ...{ protocol: "wss", host: "2001:db8::1", port: 443, path: "/a/b", serverName: "n" },
    ...{ certFile: "/etc/ecp/c", keyFile: "/etc/ecp/k", reconnectFirstMs: 3_000 },
  });
  assert.deepEqual(configuration.mqttFallbacks, [
    { protocol: "ws", host: "h", port: 80, path: "/mqtt" },
    { protocol: "mqtt", host: "h", port: 99, carries: "newest" },
  ]);
});

test("LoRaWAN alone: rows of a quarter hour, batches that follow the data rate, the wallet told", () => {
  const { configuration, policy } = hubOf("/etc/ecp/hub.yaml", lora("family: rui3", "region: EU868"));
  assert.equal(configuration.mqtt, undefined);
  assert.deepEqual(configuration.lora, {
    modem: { path: "/dev/ttyACM0", family: "rui3", baud: 115_200 },
    ...{ region: "EU868", slotS: 900, codes: [1], batchS: "auto", rx1DelayS: 1, when: "always" },
    stateFolder: "/etc/ecp/agent-state",
  });
  assert.deepEqual(policy.plans, [{ plan: 1, slotS: 900, sealEveryS: 86_400 }]);
  assert.equal(policy.meters[0]?.rowsPerMinute, 3, "the rows of both plans");
});

test("where a meter is read for its energies alone, these go over LoRaWAN; one that gives nothing is refused", () => {
  const of = (names: string, more = "") =>
    hubOf(
      "/etc/ecp/hub.yaml",
      lora("family: rui3", `region: EU868${more}`).replace("unit: 1", `unit: 1\n    quantities: [${names}]`),
    );
  assert.deepEqual(of("active-energy-import").configuration.lora?.codes, []);
  assert.deepEqual(of("active-energy-import, active-power-import", ", quantities: []").configuration.lora?.codes, []);
  assert.throws(
    () => of("voltage-l1", ", quantities: []"),
    (error) => error instanceof CommandError && /a quantity of meter house/.test(error.text.expected),
  );
});

test("a modem is spoken to at the speed at which its family leaves the factory", () => {
  for (const family of modemFamilies)
    assert.equal(
      hubOf("/etc/ecp/hub.yaml", lora(`family: ${family}`, "region: EU868")).configuration.lora?.modem.baud,
      factoryBauds[family],
    );
});

test("LoRaWAN beside MQTT is for when that fails, unless the file says otherwise", () => {
  const both = (more: string) =>
    hubOf(
      "/etc/ecp/hub.yaml",
      `${good}uplink:
  mqtt: { url: "mqtt://node" }
  lora:
    modem: { path: /dev/ttyACM0, family: lora-e5, baud: 19200 }
    region: US915
    slot_s: 300
    quantities: [voltage-l1, active-energy-import, active-power-import]
    batch_s: 3600
    fair_use_s_per_day: 30
    rx1_delay_s: 5
    receipts_h: 3
    state_folder: /var/lib/ecp-agent
${more}`,
    );
  const { configuration, policy } = both("");
  assert.equal(configuration.mqtt?.host, "node");
  assert.deepEqual(configuration.lora, {
    modem: { path: "/dev/ttyACM0", family: "lora-e5", baud: 19_200 },
    ...{ region: "US915", slotS: 300, codes: [1, 20], batchS: 3_600, fairUseSPerDay: 30, rx1DelayS: 5 },
    ...{ receiptsH: 3, when: "fallback", stateFolder: "/var/lib/ecp-agent" },
  });
  assert.deepEqual(policy.plans, [{ plan: 1, slotS: 300, sealEveryS: 3_600 }]);
  assert.equal(both("    when: always\n").configuration.lora?.when, "always");
});

test("a file that is missing, and one that is no configuration at all", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ecp-hub-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "hub.yaml");
  assert.throws(
    () => readHubFile(path),
    (error) => error instanceof CommandError && error.status === exit.noInput && /ecp init/.test(error.text.todo),
  );
  writeFileSync(path, Buffer.alloc(300_000, "#"));
  assert.throws(
    () => readHubFile(path),
    (error) => error instanceof CommandError && /at most 262144 bytes/.test(error.text.expected),
  );
});

test("any cut and any changed byte of a good file is taken or refused in words, never a crash", () => {
  const text = uplink("url: 'mqtt://node:1883'");
  const variants = Array.from({ length: text.length }, (_, i) => [
    text.slice(0, i),
    `${text.slice(0, i)}:${text.slice(i + 1)}`,
    `${text.slice(0, i)}[${text.slice(i)}`,
    `${text.slice(0, i)}\u0000${text.slice(i)}`,
  ]).flat();
  let refused = 0;
  for (const variant of variants)
    try {
      hubOf("hub.yaml", variant);
    } catch (error) {
      assert.ok(error instanceof CommandError, `${JSON.stringify(variant)}: ${error}`);
      refused++;
    }
  assert.ok(refused > variants.length / 2);
});

test("the published schema is one (draft 2020-12), and every key of it is described", () => {
  new Ajv2020({ strict: true, allErrors: true }).compile(schema);
  const keys = [...keysOf(hubSchema)];
  assert.ok(keys.length >= 30, `${keys.length} keys`);
  for (const [path, { description = "" }] of keys) assert.match(description, /^\S.*\.$/, path.join("."));
});

test("docs/configuration.md has the schema's tables, names every key, and its example passes", () => {
  const page = readFileSync(configurationPage, "utf8");
  assert.equal(page, withTables(page), "run: node test/cli/configuration-document.ts");
  for (const [path] of keysOf(hubSchema)) assert.ok(page.includes(`| \`${path.at(-1)}\` |`), path.join("."));
  const [, example = ""] = /```yaml\n([\s\S]*?)```/.exec(page) ?? [];
  assert.equal(parseDocument(example).errors.length, 0);
  assert.equal(hubOf("/etc/ecp/hub.yaml", example).configuration.mqtt?.host, "node.example");
});

test("records are encrypted unless the broker is the node's own or the file says otherwise", () => {
  const did = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
  const encryptTo = (uplink: string) => hubOf("/etc/ecp/hub.yaml", `${good}\nuplink:\n${uplink}`).policy.encryptTo;
  const mqtt = "  mqtt: { url: mqtt://127.0.0.1";
  assert.equal(encryptTo(`${mqtt} }`), "first");
  assert.equal(encryptTo(`${mqtt}, own_broker: true }`), "nobody");
  assert.equal(encryptTo(`${mqtt}, own_broker: true }\n  encrypt: true`), "first");
  assert.equal(encryptTo(`${mqtt} }\n  encrypt: false`), "nobody");
  assert.deepEqual(encryptTo(`${mqtt} }\n  encrypt_to: ${did}`), publicKeyOfDid(did));
  const isRefused = (uplink: string, says: RegExp): void =>
    assert.throws(
      () => encryptTo(uplink),
      (error) => error instanceof CommandError && says.test(error.text.expected),
    );
  isRefused(`${mqtt} }\n  encrypt: false\n  encrypt_to: ${did}`, /no encrypt_to/);
  isRefused(`${mqtt} }\n  encrypt_to: ${did.slice(0, -1)}`, /did:key:z6Mk/);
});

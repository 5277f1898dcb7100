import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { readHubFile } from "../../cli/hub-configuration.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { ecp, startBus, temporaryFolder } from "./simulated-bus-fixture.ts";

const quick = ["--units", "1-5", "--timeout", "120", "--bauds", "9600,19200"];
const strict = { parity: "even", stopBits: 1 } as const;
const three = ["eastron-sdm72v2@1", "cg-em340@3", "schneider-iem3155@5"];

test("scan shows make, serial number and the lines for hub.yaml; the estimate comes first, and no progress in a pipe", async (t) => {
  const { link } = await startBus(t, three, { baud: 19_200, strict });
  const { status, out, error } = await ecp("scan", "--serial", link, ...quick);
  assert.equal(status, 0, error);
  assert.match(out, /^Searching .*: at most \d+ (s|min)/);
  assert.match(out, /3 devices found at 19200 8E1/);
  assert.match(out, /unit {3}3 {2}Carlo Gavazzi EM340/);
  assert.match(out, /unit {3}1 {2}Eastron .*serial number 21000001, profile eastron-sdm72v2/);
  assert.ok(out.includes(`serial: { path: "${link}", baud: 19200, parity: even }`), out);
  assert.match(out, /- name: iem3155-5\n {4}line: main\n {4}unit: 5\n {4}profile: schneider-iem3155\n/);
  assert.equal(error, "");
  assert.ok(!out.includes("\x1b"), "no escape sequence in a pipe");
});

/** As a person wrote it: comments in every place, another line, an index that is not its place. */
const handwritten = (link: string): string => `# my hub
wallet: { folder: wallet, socket: wallet.sock }
lines:   # the wires
  - name: cellar           # the port with the red plug
    serial: { path: ${link}, baud: 9600 }   # as printed on the meter
  - name: attic
    tcp: { host: 127.0.0.1, port: 1 }
  # the last of the lines

meters:
  - name: house
    index: 7               # never change
    line: cellar
    unit: 1
    profile: eastron-sdm72v2
    # power_max_w: 43000

# what comes behind
agent:
  socket: agent.sock
`;

test("scan --write adds what is new and leaves every other byte; what it cannot add is said", async (t) => {
  const { link } = await startBus(t, three, { baud: 9600 });
  const folder = temporaryFolder(t);
  const file = join(folder, "hub.yaml");
  writeFileSync(file, handwritten(link), { mode: 0o640 });
  const { status, out, error } = await ecp("scan", "--serial", link, ...quick, "--write", "--config", file);
  assert.equal(status, 0, error);
  const added = `  - name: em340-3
    index: 8
    line: cellar
    unit: 3
    profile: cg-em340
  - name: iem3155-5
    index: 9
    line: cellar
    unit: 5
    profile: schneider-iem3155
`;
  const comment = "    # power_max_w: 43000\n";
  assert.equal(readFileSync(file, "utf8"), handwritten(link).replace(comment, comment + added));
  assert.equal(statSync(file).mode & 0o777, 0o640);
  assert.match(out, /meter em340-3: unit 3 on cellar, cg-em340/);
  assert.match(out, /left alone: unit 1 on cellar is there already: house/);
  assert.match(out, /ecp config apply/);
  const again = await ecp("scan", "--serial", link, ...quick, "--write", "--config", file);
  assert.match(again.out, /nothing was added/);
  assert.equal(readFileSync(file, "utf8"), handwritten(link).replace(comment, comment + added));
});

test("a line that hub.yaml has at another speed is put right, its comment kept", async (t) => {
  const { link } = await startBus(t, three, { baud: 19_200, strict });
  const file = join(temporaryFolder(t), "hub.yaml");
  writeFileSync(file, handwritten(link));
  const { status, out } = await ecp("scan", "--serial", link, ...quick, "--write", "--config", file);
  assert.equal(status, 0);
  assert.match(out, /line cellar: now 19200 8E1, before 9600 8N1/);
  assert.ok(readFileSync(file, "utf8").includes(`baud: 19200, parity: even }   # as printed on the meter`));
  const { configuration } = readHubFile(file);
  assert.deepEqual(
    configuration.meters.map(({ name, index, unit }) => [name, index, unit]),
    [
      ["house", 7, 1],
      ["em340-3", 8, 3],
      ["iem3155-5", 9, 5],
    ],
  );
});

test("lists in brackets, and a port that hub.yaml does not know: a line and meters are added", async (t) => {
  const { link } = await startBus(t, ["cg-em340@2"]);
  const file = join(temporaryFolder(t), "hub.yaml");
  writeFileSync(
    file,
    `wallet: { folder: w }
lines: [ { name: main, tcp: { host: 127.0.0.1, port: 1 } } ] # mine
meters: [ { name: em340-2, line: main, unit: 1, profile: eastron-sdm630 } ]
`,
  );
  const { status, out } = await ecp("scan", "--serial", link, ...quick, "--write", "--config", file);
  assert.equal(status, 0, out);
  const { configuration } = readHubFile(file);
  assert.deepEqual(configuration.lines[1]?.serial?.path, link);
  assert.deepEqual(
    configuration.meters.map(({ name, line, index }) => [name, line, index]),
    [
      ["em340-2", "main", 0],
      ["em340-2-2", "line-2", 1],
    ],
  );
  assert.match(readFileSync(file, "utf8"), /# mine/);
});

test("--json: one object with every device; the estimate goes to standard error", async (t) => {
  const { link } = await startBus(t, ["eastron-sdm630@2"]);
  const { status, out, error } = await ecp("scan", "--serial", link, ...quick, "--json");
  assert.equal(status, 0, error);
  const [line] = JSON.parse(out).lines;
  assert.deepEqual([line.serial, line.baud, line.parity, line.end], [link, 9600, "none", "ended"]);
  const [{ unit, certainty, profile, serialNumber }] = line.devices;
  assert.deepEqual([unit, certainty, profile, serialNumber], [2, "plausible", "eastron-sdm630", "21000002"]);
});

test("a gateway that passes RTU frames on is searched with --framing rtu, and written so", async (t) => {
  const bus = await startBus(t, ["cg-em340@4"], { tcp: { host: "127.0.0.1", port: 0, framing: "rtu" } });
  const { status, out, error } = await ecp("scan", "--tcp", bus.address ?? "", "--framing", "rtu", ...quick);
  assert.equal(status, 0, error);
  assert.match(out, /unit {3}4 {2}Carlo Gavazzi EM340/);
  assert.match(out, /tcp: { host: "127.0.0.1", port: \d+, framing: rtu }/);
});

test("a port that is held or missing is said with its reason, and the others are searched", async (t) => {
  const held = await startBus(t, ["cg-em340@1"]);
  const free = await startBus(t, ["cg-em340@1"]);
  const holder = await openSerialPort({ path: held.link, baud: 9600 });
  t.after(() => holder.close());
  const ports = ["--serial", held.link, "--serial", free.link, "--serial", "/dev/ecp-nowhere"];
  const { status, out } = await ecp("scan", ...ports, ...quick);
  assert.equal(status, 0);
  assert.match(out, /expected to have it alone, but it is held by .*\(pid \d+\)/);
  assert.match(out, /\/dev\/ecp-nowhere: expected a device, found none/);
  assert.match(out, /unit {3}1 {2}Carlo Gavazzi EM340/);
  assert.equal((await ecp("scan", "--serial", "/dev/ecp-nowhere", ...quick)).status, 69);
});

test("nothing found is status 1 with what to check; Ctrl-C shows what was found until then, status 130", async (t) => {
  const empty = await startBus(t, []);
  const nothing = await ecp("scan", "--serial", empty.link, "--units", "1", "--bauds", "9600", "--timeout", "50");
  assert.equal(nothing.status, 1);
  assert.match(nothing.out, /no meter found\n {2}Nothing answered: check that the meters have power, swap the wires/);
  const bus = await startBus(t, ["cg-em340@1", "cg-em340@9"]);
  const [, ninth = assert.fail()] = bus.slaves;
  ninth.setFault({ kind: "silent" });
  const program = join(import.meta.dirname, "../../cli/ecp.ts");
  const args = [program, "scan", "--serial", bus.link, "--timeout", "200"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 });
  const out = text(child.stdout);
  // Unit 1 is found before unit 9 is asked.
  while (ninth.requests === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill("SIGINT");
  const [status] = await once(child, "close");
  assert.equal(status, 130);
  assert.match(await out, /1 device found at 9600 8N1 \(ended before it was through\)\n {2}unit {3}1/);
});

test("wrong usage is told from what was meant, before any port is opened", async () => {
  for (const [args, problem] of [
    [["--units", "0-5"], /numbers and ranges from 1 to 247/],
    [["--units", "9-3"], /numbers and ranges/],
    [["--units", ""], /numbers and ranges/],
    [["--bauds", "9601"], /some of 1200,2400/],
    [["--parities", "mark"], /none,even,odd/],
    [["--timeout", "5"], /an integer from 20 to 10000/],
    [["--tcp", "h:0"], /HOST:PORT/],
    [["--all", "--serial", "/dev/x"], /--all and --serial together/],
    [["/dev/ttyUSB0"], /one argument too many/],
  ] as const) {
    const { status, error } = await ecp("scan", ...args);
    assert.equal(status, 64, `${args}: ${error}`);
    assert.match(error, problem);
  }
  const missing = await ecp("scan", "--serial", "/dev/x", "--write", "--config", "/nowhere/hub.yaml");
  assert.equal(missing.status, 66);
});

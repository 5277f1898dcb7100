// Faults of the hub's own set-up: each command ends with its status and says what was expected, got, where, and what to do.
import assert from "node:assert/strict";
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { WalletClient } from "../../agent/wallet-client.ts";
import { Community, exchanged, startSimulator } from "./community-fixture.ts";
import { eventually, isRunning } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";

test("a wrong passphrase ends ecp run with 77 and says so; control: the right one starts it", async (t) => {
  const scene = new Scene(t);
  const community = await Community.setUp(scene);
  const passphrase = scene.path("passphrase");
  const right = readFileSync(passphrase);
  writeFileSync(passphrase, "another\n");
  const hub = scene.start("ecp", "run", "--config", community.config, "--restart-after", "0");
  assert.deepEqual(await hub.ending(), { code: 77, signal: null });
  const said = hub.stderr.join("\n");
  assert.match(said, /ecp-wallet: .*(wrong passphrase|passphrase is wrong|passphrase does not)/i);
  assert.equal(hub.events().filter(({ name, message }) => name === "wallet" && message === "started").length, 1, said);
  for (const { message, pid } of hub.events()) if (message === "started" && pid) assert.ok(!isRunning(pid as number));
  const enrol = await scene.run("ecp", "enrol", "--config", community.config, "--out", scene.path("r"));
  assert.equal(enrol.code, 77, enrol.stderr);
  assert.match(enrol.stderr, /expected: a wallet that answers\n +got: .*passphrase.*\n +where: .*wallet\n +to do: /);

  writeFileSync(passphrase, right);
  chmodSync(passphrase, 0o644);
  const open = scene.start("ecp", "run", "--config", community.config, "--restart-after", "0");
  assert.equal((await open.ending()).code, 77, "a passphrase that all may read is none");
  assert.match(open.stderr.join("\n"), /mode 0644.*chmod 600/);
  chmodSync(passphrase, 0o600);
  const control = await community.startHub();
  await control.event(({ part, message }) => part === "wallet" && message === "ready");
  assert.equal((await control.stop()).code, 0);
});

/** Line and column of the last place in a text that is like `mark`, counted where `mark` has a bar. */
function placeOf(text: string, mark: string): string {
  const at = text.lastIndexOf(mark.replace("|", ""));
  assert.ok(at >= 0, mark);
  const before = text.slice(0, at + mark.indexOf("|")).split("\n");
  return `${before.length}:${(before.at(-1) ?? "").length + 1}`;
}

test("a configuration that is wrong is refused with file, line and column", async (t) => {
  const scene = new Scene(t);
  const good = scene.path("hub.yaml");
  const flags = ["--tcp", "192.0.2.1:502", "--mqtt", "mqtt://192.0.2.2:1883", "--segments", "4"];
  await scene.succeed("ecp", "init", "--folder", scene.folder, ...flags);
  assert.match(await scene.succeed("ecp", "config", "check", "--config", good), /is right/);
  const meter = `
  - name: house
    index: 1
    line: main
    unit: 2
    profile: eastron-sdm630
    interval_s: 60
`;
  const faults: readonly (readonly [what: string, part: string, by: string, place: string, says: RegExp])[] = [
    ["an unknown key", "unit: 1", "unitt: 1", "|unitt: 1", /one of the keys .*unit.*\n.*unknown key 'unitt'/],
    ["a missing key", "    profile: eastron-sdm630\n", "", "|name: house", /the key 'profile'/],
    [
      "a wrong type",
      "interval_s: 60",
      "interval_s: often",
      "interval_s: |often",
      /interval_s: an integer.*\n +got: "often"/,
    ],
    ["a value out of range", "unit: 1", "unit: 300", "unit: |300", /unit: .*247/],
    [
      "an unknown profile",
      "eastron-sdm630",
      "eastron-sdm999",
      "profile: |eastron",
      /one of the profiles: .*eastron-sdm630/,
    ],
    ["an unknown line", "line: main", "line: other", "line: |other", /one of the lines: main\n +got: other/],
    ["two meters of one name", "\nuplink:", `${meter}\nuplink:`, "name: |house", /a name of its own for each meter/],
    ["an interval that fits no day", "interval_s: 60", "interval_s: 7", "interval_s: |7", /divides a day/],
    ["a URL that is none", '"mqtt://192.0.2.2:1883"', '"http://192.0.2.2"', "url: |", /mqtts?:\/\//],
    ["a name that is none", "name: house", "name: My House", "name: |My", /name: 1 to 32 small letters/],
    ["YAML that cannot be read", "wallet:\n", "wallet: [\n", "", /YAML that can be read/],
    ["a key twice", "    unit: 1\n", "    unit: 1\n    unit: 2\n", "", /YAML that can be read\n.*unique/i],
    [
      "a line that is serial and TCP",
      "    tcp:",
      '    serial: { path: "/dev/x" }\n    tcp:',
      "",
      /one of 'serial:' and 'tcp:'/,
    ],
  ];
  for (const [what, part, by, place, says] of faults) {
    const file = scene.path("wrong.yaml");
    const text = exchanged(good, part, by);
    writeFileSync(file, text);
    const where = place === "" ? "\\d+:\\d+" : placeOf(text, place);
    for (const command of [["config", "check"], ["run"]]) {
      if (command[0] === "run" && what !== "an unknown key") continue;
      const { code, stdout, stderr } = await scene.run("ecp", ...command, "--config", file);
      assert.equal(code, 78, `${what}: ${stdout}${stderr}`);
      assert.match(stderr, says, what);
      assert.match(stderr, new RegExp(`\\n +where: ${file}:${where}\\n +to do: `), what);
      assert.doesNotMatch(stderr, /\n {4}at /, `${what}: no stack`);
    }
  }
  const absent = await scene.run("ecp", "config", "check", "--config", scene.path("nowhere.yaml"));
  assert.equal(absent.code, 66);
  assert.match(absent.stderr, /no such file\n +where: .*nowhere\.yaml\n +to do: 'ecp init'/);
});

test("a command that is killed takes the wallet that it had started with it", async (t) => {
  const scene = new Scene(t);
  const community = await Community.setUp(scene);
  const command = scene.start("ecp", "enrol", "--config", community.config, "--out", scene.path("r.cose"));
  const children = (): number[] =>
    readFileSync(`/proc/${command.pid}/task/${command.pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
  await eventually("it has started a wallet", () => children().length > 0);
  command.signal("SIGSTOP"); // it must not finish before the wallet serves
  const [wallet = 0] = children();
  scene.atEnd(() => isRunning(wallet) && process.kill(wallet, "SIGKILL"));
  const sockets = (): string[] =>
    readdirSync(scene.temporary)
      .map((name) => scene.path("tmp", name, "wallet.sock"))
      .filter((file) => existsSync(file));
  await eventually("the wallet serves", () => sockets().length > 0);
  const client = new WalletClient(sockets()[0] as string);
  await client.hello(); // now it has nothing left to say, and no broken pipe to die of
  client.close();
  assert.ok(isRunning(wallet), "control: it runs");
  command.signal("SIGKILL");
  await eventually("the wallet has gone too", () => !isRunning(wallet), 10_000);
  // Control: nobody holds the wallet's lock, so the next command gets one.
  await scene.succeed("ecp", "enrol", "--config", community.config, "--out", scene.path("r.cose"));
});

test("ecp run that is killed takes wallet and agent with it, and starts again where it was", async (t) => {
  const scene = new Scene(t);
  const community = await Community.setUp(scene);
  await startSimulator(scene, "--link", community.meterLink);
  const hub = await community.startHub();
  await hub.line(/meter answers/);
  const pids = hub
    .events()
    .flatMap(({ message, part, pid }) => (message === "started" && part === "run" ? [pid as number] : []));
  assert.equal(pids.length, 2);
  hub.signal("SIGKILL");
  await hub.ending();
  await eventually("wallet and agent have gone", () => !pids.some(isRunning));
  const node = await community.startNode();
  const again = await community.startHub();
  await again.line(/meter answers/);
  await node.event(({ event, sequence }) => event === "stored" && (sequence as number) > 3);
  // A second one beside it would read the same meters: it is told so, and ends or waits without harm to the first.
  const second = await scene.run("ecp", "agent", "--config", community.config);
  assert.equal(second.code, 69);
  assert.match(second.stderr, /another agent answers/);
  assert.equal((await again.stop()).code, 0);
  assert.ok(!readdirSync(scene.folder).includes("agent.sock"));
});

test("a full node that cannot start ends and says why, also where it waits for its parent's end", async (t) => {
  const scene = new Scene(t);
  const data = scene.path("node");
  await scene.succeed("ecp-node", "init", "--data", data);
  const first = scene.start("ecp-node", "run", "--data", data, "--listen", "127.0.0.1:0", "--json");
  const { broker } = await first.event(({ event }) => event === "started");
  const address = String(broker).replace("mqtt://", "");
  const second = scene.start("ecp-node", "run", "--data", data, "--listen", "127.0.0.1:0", "--exit-with-parent");
  assert.deepEqual(await second.ending(), { code: 69, signal: null });
  assert.match(second.stderr.join("\n"), new RegExp(`in use by process ${first.pid}\n +where: .*\n +to do: stop`));
  const other = scene.path("other");
  await scene.succeed("ecp-node", "init", "--data", other);
  const third = scene.start("ecp-node", "run", "--data", other, "--listen", address, "--exit-with-parent");
  assert.deepEqual(await third.ending(), { code: 69, signal: null });
  assert.match(third.stderr.join("\n"), new RegExp(`where: .*${address}`));
});

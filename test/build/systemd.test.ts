import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { exposureMax } from "../../build/unit-exposure.ts";
import { temporaryTree } from "./temporary-tree.ts";

const folder = path.resolve(import.meta.dirname, "../../build/systemd");
const files = readdirSync(folder);
const units = files.filter((file) => file.endsWith(".service"));
const hasAnalyzer = spawnSync("systemd-analyze", ["--version"]).status === 0;
const skip = hasAnalyzer ? false : "no systemd-analyze: apt-get install systemd";

test("there is a unit for each of the three processes", () => {
  assert.deepEqual(units.sort(), Object.keys(exposureMax).sort());
  // What was decided, not what came of it.
  assert.ok((exposureMax["ecp-wallet.service"] as number) <= 2 && (exposureMax["ecp-agent.service"] as number) <= 15);
});

for (const unit of units) {
  const text = readFileSync(path.join(folder, unit), "utf8");

  test(`${unit} holds together`, { skip }, (t) => {
    // The programs are not installed where the tests run: /bin/true stands in for them.
    const root = temporaryTree(t, Object.fromEntries(files.map((file) => [file, installed(file)])));
    const { status, stderr } = spawnSync("systemd-analyze", ["verify", path.join(root, unit)], { encoding: "utf8" });
    assert.equal(
      stderr
        .split("\n")
        .filter((line) => line.includes("ecp-"))
        .join("\n"),
      "",
    );
    assert.equal(status, 0);
  });

  test(`${unit} is closed as far as its work allows`, { skip }, (t) => {
    const threshold = exposureMax[unit]!;
    const rate = (contents: string) => {
      const file = path.join(temporaryTree(t, { [unit]: contents }), unit);
      return spawnSync("systemd-analyze", ["security", "--offline=true", `--threshold=${threshold}`, file], {
        encoding: "utf8",
      });
    };
    const rated = rate(text);
    assert.equal(rated.status, 0, rated.stdout.split("\n").slice(-3).join("\n"));
    const opened = rate(
      text.replace(/^(SystemCallFilter|NoNewPrivileges|RestrictAddressFamilies|ProtectSystem)=.*$/gm, ""),
    );
    assert.notEqual(opened.status, 0, "the rating does not notice what was taken out");
  });
}

function installed(unit: string): string {
  return readFileSync(path.join(folder, unit), "utf8").replace(/^ExecStart=\S+/m, "ExecStart=/bin/true");
}

test("no unit listens where its configuration does not say so", () => {
  const bound = (unit: string) =>
    [...readFileSync(path.join(folder, unit), "utf8").matchAll(/^SocketBind(.*)$/gm)].map(([, rule]) => rule);
  assert.deepEqual(bound("ecp-agent.service"), ["Deny=any"]);
  assert.deepEqual(bound("ecp-node.service"), ["Allow=tcp:1883", "Deny=any"]);
});

test("the wallet has no network and the agent can reach its socket", () => {
  const wallet = readFileSync(path.join(folder, "ecp-wallet.service"), "utf8");
  const agent = readFileSync(path.join(folder, "ecp-agent.service"), "utf8");
  assert.match(wallet, /^PrivateNetwork=yes$/m);
  assert.match(wallet, /^RestrictAddressFamilies=AF_UNIX$/m);
  assert.match(wallet, /^MemoryDenyWriteExecute=yes$/m);
  assert.match(wallet, /^LimitCORE=0$/m);
  // The group may write to the socket, which systemd holds and hands over as standard input; what is said goes elsewhere.
  const socket = readFileSync(path.join(folder, "ecp-wallet.socket"), "utf8");
  assert.match(socket, /^SocketMode=0660$/m);
  assert.equal(/^SocketGroup=(.*)$/m.exec(socket)?.[1], /^Group=(.*)$/m.exec(agent)?.[1]);
  assert.match(wallet, /^StandardInput=socket$/m);
  assert.match(wallet, /^StandardOutput=journal$/m);
  assert.match(wallet, /^StandardError=journal$/m);
  assert.match(wallet, /^ExecStart=.* --socket-fd 0 --boot-id %b /m);
  assert.equal(/^Group=(.*)$/m.exec(wallet)?.[1], /^Group=(.*)$/m.exec(agent)?.[1]);
  assert.notEqual(/^User=(.*)$/m.exec(wallet)?.[1], /^User=(.*)$/m.exec(agent)?.[1]);
});

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { temporaryTree } from "./temporary-tree.ts";

const folder = path.resolve(import.meta.dirname, "../../build/systemd");
const units = readdirSync(folder).filter((file) => file.endsWith(".service"));
const hasAnalyzer = spawnSync("systemd-analyze", ["--version"]).status === 0;
const skip = hasAnalyzer ? false : "no systemd-analyze: apt-get install systemd";

/** How exposed `systemd-analyze security` may find a unit (0 none … 100); the agent needs the network and the serial ports. */
const exposureMax: Readonly<Record<string, number>> = {
  "ecp-wallet.service": 5,
  "ecp-agent.service": 20,
  "ecp-node.service": 15,
};

test("there is a unit for each of the three processes", () => {
  assert.deepEqual(units.sort(), Object.keys(exposureMax).sort());
});

for (const unit of units) {
  const text = readFileSync(path.join(folder, unit), "utf8");

  test(`${unit} holds together`, { skip }, (t) => {
    // The programs are not installed where the tests run: /bin/true stands in for them.
    const root = temporaryTree(t, Object.fromEntries(units.map((file) => [file, installed(file)])));
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

test("the wallet has no network and the agent can reach its socket", () => {
  const wallet = readFileSync(path.join(folder, "ecp-wallet.service"), "utf8");
  const agent = readFileSync(path.join(folder, "ecp-agent.service"), "utf8");
  assert.match(wallet, /^PrivateNetwork=yes$/m);
  assert.match(wallet, /^RestrictAddressFamilies=AF_UNIX$/m);
  assert.match(wallet, /^MemoryDenyWriteExecute=yes$/m);
  assert.match(wallet, /^LimitCORE=0$/m);
  // The socket lies in a folder that the group may enter, and the group may write to it.
  assert.match(wallet, /^RuntimeDirectoryMode=0750$/m);
  assert.match(wallet, /^ExecStart=.* --socket-mode 0660 /m);
  assert.equal(/^Group=(.*)$/m.exec(wallet)?.[1], /^Group=(.*)$/m.exec(agent)?.[1]);
  assert.notEqual(/^User=(.*)$/m.exec(wallet)?.[1], /^User=(.*)$/m.exec(agent)?.[1]);
});

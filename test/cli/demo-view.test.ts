import assert from "node:assert/strict";
import { test } from "node:test";
import { DemoTally } from "../../cli/demo-tally.ts";
import { DemoView, type PartView } from "../../cli/demo-view.ts";

const values = {
  ...{ "active-power-import": 1_234, "active-energy-import": 10_841_146, "active-power-export": 0 },
  ...{ "active-energy-export": 13_082_131, frequency: 49_996, "power-factor": -981 },
  ...{ "voltage-l1": 232_992, "voltage-l2": 231_726, "voltage-l3": 233_876 },
  ...{ "current-l1": 4_927, "current-l2": 14_842, "current-l3": 4_658 },
};
const parts: PartView[] = [
  { name: "simulator", address: `/tmp/${"a-long-path/".repeat(12)}meter.tty`, pid: 4_194_304, starts: 12 },
  { name: "node", address: "mqtt://127.0.0.1:34195", pid: undefined, starts: 1 },
];

function view(status?: string): { view: DemoView; tally: DemoTally } {
  const tally = new DemoTally();
  if (status !== undefined)
    tally.take({
      ...{ event: "reading", meter: 0, name: "house", timeS: 1_800_000_000, status, offsetMs: 12 },
      values: status === "G" ? values : {},
      ...(status !== "G" && { detail: `a port\nthat is\x1b[2J gone ${"and more ".repeat(30)}` }),
    });
  return { view: new DemoView(tally, () => parts), tally };
}

for (const width of [40, 59, 60, 76, 77, 79, 119, 250])
  test(`${width} columns: no line is longer, with values, without, before the first reading`, () => {
    for (const status of ["G", "D", undefined]) {
      const lines = view(status).view.lines(width);
      for (const line of lines) assert.ok([...line].length <= width, `${line.length}: ${line}`);
      assert.equal(lines.join("\n").includes("\x1b"), false, "colours only for a terminal, and never from a part");
    }
  });

test("over LoRaWAN: frames, airtime, budget and the uplink's state, within the width; in the last line too", () => {
  const { tally } = view("G");
  const radio = { name: "radio", address: "/tmp/modem.tty", pid: 7, starts: 1 };
  const shown = new DemoView(tally, () => [...parts, radio]);
  const linesBefore = shown.lines(77).length;
  const frame = {
    spreadingFactor: 7,
    phyBytes: 145,
    airtimeMs: 235.8,
    frames: 1,
    hourMs: 1_358.3,
    worstHourShare: 0.0265,
  };
  tally.frame({ ...frame, gateways: 2 });
  tally.frame({ ...frame, gateways: 0 });
  tally.take({ event: "lora-state", condition: "duty-cycle", detail: `until 10:15 ${"and so on ".repeat(30)}\x1b[2J` });
  const text = shown.lines(200).join("\n");
  for (const wanted of ["frames 2", "lost 1", "airtime 0.47 s", "2.6 % of", "duty-cycle: until 10:15"])
    assert.ok(text.includes(wanted), `${wanted} in\n${text}`);
  for (const width of [40, 77]) for (const line of shown.lines(width)) assert.ok([...line].length <= width, line);
  assert.equal(shown.lines(77).length, linesBefore, "nothing jumps");
  assert.equal(text.includes("\x1b"), false);
  assert.match(
    DemoView.ending(tally.summary()),
    /2 LoRaWAN frames, 0\.47 s on the air, at most 2\.6 % of what an hour/,
  );
});

test("nothing jumps: a reading that fails or has not come takes as many lines as one with values", () => {
  for (const width of [60, 79]) {
    const heights = ["G", "D", undefined].map((status) => view(status).view.lines(width).length);
    assert.equal(new Set(heights).size, 1, `${heights}`);
  }
});

test("shows the values with their units, the state of each part, and what waits", () => {
  const { view: shown, tally } = view("G");
  tally.begin(0);
  tally.take({ event: "sealed", sequence: 7, meter: 0, rows: 1 });
  tally.take({ event: "acknowledged", through: 5, receiptMs: [12, 13.25] });
  const text = shown.lines(79).join("\n");
  for (const wanted of [
    "1.234 kW",
    "10841.146 kWh",
    "49.996 Hz",
    "power factor -0.981",
    "L2  231.726 V  14.842 A",
    "sequence 7",
    "pid 4194304, start 12",
    "down, starting again",
    "meter.tty",
    "sealed 7 ",
    "acknowledged 5 ",
    "waiting 2",
    "half within 13.3 ms",
  ])
    assert.ok(text.includes(wanted), `${wanted} in\n${text}`);
});

test("warnings of the parts are shown, news is not, and their control characters are taken out", () => {
  const { view: shown } = view("G");
  shown.log("agent", JSON.stringify({ level: "warn", message: "uplink disconnected", part: "agent", time: "", at: 3 }));
  shown.log("wallet", JSON.stringify({ level: "info", message: "started" }));
  shown.log("node", "not JSON\x1b[2J\ttext");
  const text = shown.lines(79).join("\n");
  assert.match(text, /agent: uplink disconnected, at 3/);
  assert.doesNotMatch(text, /started/);
  assert.match(text, /node: not JSON \[2J text/);
  for (let i = 0; i < 6; i++) shown.log("agent", `line ${i}`);
  assert.equal(shown.lines(79).filter((line) => /agent: line/.test(line)).length, 4);
});

test("the end says whether all that was sealed was acknowledged", () => {
  const summary = { readings: 3, sealed: 4, acknowledged: 4, missing: 0, refused: 0, receiptP50Ms: 1, receiptP99Ms: 2 };
  assert.match(DemoView.ending(summary), /Everything that was sealed was acknowledged/);
  assert.match(DemoView.ending({ ...summary, acknowledged: 3, missing: 1 }), /1 sealed records were not acknowledged/);
  assert.match(DemoView.ending({ ...summary, readings: 0 }), /Nothing was read/);
});

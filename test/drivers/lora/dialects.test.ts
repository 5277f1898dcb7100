import assert from "node:assert/strict";
import { test } from "node:test";
import { DriverError } from "../../../drivers/failure.ts";
import { AtSlave } from "../../../drivers/lora/at-slave.ts";
import type { Dialect, Dialogue } from "../../../drivers/lora/dialogue.ts";
import { LoraE5 } from "../../../drivers/lora/lora-e5.ts";
import { type LoraDownlink, modemFamilies } from "../../../drivers/lora/modem.ts";
import { LineAssembler } from "../../../drivers/lora/modem-line.ts";
import type { RegionName } from "../../../drivers/lora/region.ts";
import { Rn2483 } from "../../../drivers/lora/rn2483.ts";
import { Rui3 } from "../../../drivers/lora/rui3.ts";
import { randomOfRun } from "../../protocol/seeded-random.ts";
import { keys, type RecordedDialogue, readDialogues } from "./dialogue-file.ts";

const dialects = { rui3: Rui3, "lora-e5": LoraE5, rn2483: Rn2483, "at-slave": AtSlave };
const dialogues = readDialogues();
const guardMs = 30_000;

/** How a firmware frames a line: the same words, whatever blank lines and pieces they come in. */
const framings = {
  "line by line": (line: string) => [`${line}\r\n`],
  "byte by byte, blank lines between": (line: string) => [..."\r\n", ...line, ..."\r\n"],
  "line feeds alone, a byte of noise before": (line: string) => [`\u00ff${line}\n`],
};

function ask(dialect: Dialect, run: string): Dialogue<unknown> {
  const [what, first = "", hex = ""] = run.split(" ");
  switch (what) {
    case "probe":
      return dialect.probe();
    case "setUp":
      return dialect.setUp();
    case "state":
      return dialect.state();
    case "join":
      return dialect.join(guardMs);
    case "send":
      return dialect.send({ port: Number(first), hex, guardMs, windowsMs: 5_000 });
    case "provision":
      return provisionAndRestart(dialect, first as RegionName, hex === "" ? undefined : Number(hex));
    default:
      throw new Error(run);
  }
}

function* provisionAndRestart(dialect: Dialect, region: RegionName, subBand: number | undefined): Dialogue<string> {
  const devEui = yield* dialect.provision({ ...keys, ...(subBand !== undefined && { subBand }) }, region);
  yield* dialect.restart();
  return devEui;
}

/** Plays the modem's part; the outcome of the last question. */
function play(recorded: RecordedDialogue, frame: (line: string) => string[]): { value: unknown; downlinks: unknown[] } {
  const dialect = new dialects[recorded.family]("/dev/test");
  const assembler = new LineAssembler();
  const downlinks: unknown[] = [];
  const note = (downlink: LoraDownlink | undefined): void => {
    if (downlink === undefined) return;
    const { bytes, ...rest } = downlink;
    downlinks.push({ ...rest, hex: Buffer.from(bytes).toString("hex") });
  };
  const left = [...recorded.lines];
  const hear = (): string | undefined => {
    const next = left.shift();
    assert.ok(
      next !== undefined && next.kind !== ">",
      `waits for a line, and the dialogue has ${next?.text ?? "none"}`,
    );
    if (next.kind === "~") return undefined;
    const lines = frame(next.text).flatMap((piece) => assembler.push(Buffer.from(piece, "latin1")));
    assert.deepEqual(lines, [next.text]);
    note(dialect.observe(next.text));
    return next.text;
  };
  let value: unknown;
  for (const run of recorded.runs) {
    const dialogue = ask(dialect, run);
    let result = dialogue.next();
    let isWaiting = false;
    while (!result.done) {
      const { write, waitMs } = result.value;
      isWaiting = waitMs !== undefined || (write === undefined && isWaiting);
      assert.ok(isWaiting, "says until when it waits");
      if (write !== undefined) {
        // What comes before a command is no answer to it.
        while (left[0]?.kind === "<") hear();
        assert.deepEqual(left.shift(), { kind: ">", text: write });
      }
      result = dialogue.next(hear());
    }
    value = result.value;
    if (!run.startsWith("send")) continue;
    // A line that is late is heard after the question's end as well.
    while (recorded.runs.length > 1 && left[0]?.kind === "<") hear();
    note(dialect.flush());
  }
  assert.deepEqual(left, [], "all of the dialogue was used");
  return { value, downlinks };
}

for (const family of modemFamilies)
  test(`${family}: each recorded dialogue comes to what is written, however its lines come`, () => {
    const own = dialogues.filter((recorded) => recorded.family === family);
    assert.ok(own.length > 20);
    for (const recorded of own)
      for (const [framing, frame] of Object.entries(framings)) {
        const { name, outcome, downlinks } = recorded;
        const where = `${family}: ${name} (${framing})`;
        try {
          const played = play(recorded, frame);
          assert.ok("value" in outcome, `${where}: expected an error, got ${JSON.stringify(played.value)}`);
          assert.deepEqual(played.value ?? null, outcome.value, where);
          assert.deepEqual(played.downlinks, downlinks, where);
        } catch (error) {
          if (!(error instanceof DriverError)) throw error;
          assert.ok("error" in outcome, `${where}: ${error.message}`);
          assert.equal(error.code, outcome.error, where);
          assert.ok(!error.message.toLowerCase().includes(keys.appKey), `${where}: the key is no part of an error`);
          assert.match(error.message, /^LoRaWAN modem at \/dev\/test: expected .+, (?:got|read back) .+/, where);
        }
      }
  });

/** What the makers' papers list, by family: each has to be in a dialogue. */
const words: Readonly<Record<string, readonly string[]>> = {
  rui3: [
    ..."AT_ERROR AT_PARAM_ERROR AT_BUSY_ERROR AT_TEST_PARAM_OVERFLOW AT_NO_CLASSB_ENABLE AT_NO_NETWORK_JOINED AT_RX_ERROR".split(
      " ",
    ),
    ..."AT_MODE_NO_SUPPORT AT_COMMAND_NOT_FOUND AT_UNSUPPORTED_BAND Restricted_Wait_ +EVT:TX_DONE +EVT:JOINED".split(
      " ",
    ),
    ..."+EVT:JOIN_FAILED_TX_TIMEOUT +EVT:JOIN_FAILED_RX_TIMEOUT +EVT:JOIN_FAILED_7 +EVT:SEND_CONFIRMED_FAILED(".split(
      " ",
    ),
  ],
  "lora-e5": [
    ...[-1, -10, -11, -12, -20, -21, -22, -23, -24].map((code) => `ERROR(${code})`),
    ...[
      "LoRaWAN modem is busy",
      "Please join network first",
      "No free channel",
      "No band in",
      "DR error",
      "Length error",
    ],
    ...["Joined already", "Join failed", "+INFO: Input timeout", "+LOWPOWER: WAKEUP", "FPENDING", "MULTICAST", "Link "],
  ],
  rn2483: [
    ..."invalid_param not_joined no_free_ch silent frame_counter_err fram_counter_err busy mac_paused invalid_data_len".split(
      " ",
    ),
    ..."mac_tx_ok mac_rx mac_err radio_tx_ok radio_err keys_not_init accepted denied".split(" "),
  ],
  "at-slave": [
    ..."AT_ERROR AT_PARAM_ERROR AT_BUSY_ERROR AT_TEST_PARAM_OVERFLOW AT_NO_NETWORK_JOINED AT_RX_ERROR".split(" "),
    ..."AT_NO_CLASS_B_ENABLE AT_DUTYCYCLE_RESTRICTED AT_CRYPTO_ERROR +EVT:JOINED +EVT:SWITCH_TO_CLASS_".split(" "),
    ...["error unknown", "+EVT:JOIN FAILED", "NVM DATA STORED"],
  ],
};

test("each error and event that the makers list is in a dialogue", () => {
  for (const [family, list] of Object.entries(words)) {
    const said = dialogues.filter((recorded) => recorded.family === family).flatMap(({ lines }) => lines);
    for (const word of list)
      assert.ok(
        said.some(({ kind, text }) => kind === "<" && text.includes(word)),
        `${family}: ${word}`,
      );
  }
});

test("a line that is too long is dropped and counted, never read in part; the next one is read", () => {
  const assembler = new LineAssembler();
  const long = `+EVT:RX_1:-70:8:UNICAST:20:${"ab".repeat(400)}`;
  assert.deepEqual(assembler.push(Buffer.from(`${long}\r\nOK\r\n`)), ["OK"]);
  assert.equal(assembler.tooLong, 1);
  const largest = `+EVT:RX_1:-70:8:UNICAST:20:${"ab".repeat(242)}`;
  assert.deepEqual(assembler.push(Buffer.from(`${largest}\n`)), [largest]);
});

const seeded = randomOfRun();
console.log(`seed ${seeded.seed} (ECP_TEST_SEED=${seeded.seed} repeats this run)`);
const random = (below: number): number => seeded.uint32() % below;

test("whatever a modem says, each question ends, in an outcome of the list or a DriverError", () => {
  const kinds = new Set("sent busy duty-cycle too-long not-joined fault joined refused no-answer no-keys".split(" "));
  const runs = ["probe", "setUp", "state", "join", "send 20 3e64", "send 100", "provision EU868", "provision US915"];
  for (const family of modemFamilies) {
    const said = dialogues.flatMap((own) =>
      own.family === family ? own.lines.filter(({ kind }) => kind === "<").map(({ text }) => text) : [],
    );
    for (let round = 0; round < 4_000; round++) {
      const dialect = new dialects[family]("/dev/test");
      const run = runs[random(runs.length)] ?? "";
      try {
        const dialogue = ask(dialect, run);
        let result = dialogue.next();
        for (let step = 0; !result.done; step++) {
          assert.ok(step < 1_000, `${family}: ${run} has no end`);
          const line = random(6) === 0 ? undefined : said[random(said.length)];
          if (line !== undefined) dialect.observe(line);
          result = dialogue.next(line);
        }
        if (/^(?:join|send)/.test(run)) assert.ok(kinds.has((result.value as { kind: string }).kind), run);
      } catch (error) {
        if (!(error instanceof DriverError)) throw error;
        assert.ok(/^(?:setUp|state|provision)/.test(run), `${family}: ${run} rejects: ${error.message}`);
        assert.ok(!error.message.includes(keys.appKey));
      }
    }
  }
});

test("no dialect makes a downlink, or an exception, of random lines", () => {
  const said = dialogues.flatMap(({ lines }) => lines.filter(({ kind }) => kind === "<").map(({ text }) => text));
  for (const Family of Object.values(dialects)) {
    const dialect: Dialect = new Family("/dev/test");
    for (let round = 0; round < 5_000; round++) {
      const line = said[random(said.length)] ?? "";
      const at = random(line.length + 1);
      const downlink = dialect.observe(
        line.slice(0, at) + String.fromCharCode(32 + random(95)) + line.slice(at + random(3)),
      );
      if (downlink === undefined) continue;
      assert.ok(
        downlink.port >= 1 && downlink.port <= 255 && downlink.bytes.length >= 1 && downlink.bytes.length <= 255,
      );
    }
  }
});

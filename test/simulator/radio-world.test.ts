/** The simulated LoRaWAN on a virtual clock: all four modems as a host sees them, the server as an application sees it, and the air. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ModemFamily } from "../../drivers/lora/modem.ts";
import { radioPlan, regionNames, subBands } from "../../drivers/lora/region.ts";
import type { SimulatedModem } from "../../simulator/lora-modem.ts";
import {
  createRadioWorld,
  type ModemOptions,
  modemTransport,
  type RadioWorld,
  type RadioWorldOptions,
} from "../../simulator/radio-world.ts";
import { VirtualTiming } from "../../simulator/simulator-timing.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);

interface Commands {
  readonly join: string;
  readonly joined: RegExp;
  readonly send: (port: number, hex: string) => readonly string[];
  readonly done: RegExp;
}

const commands: Readonly<Record<ModemFamily, Commands>> = {
  rui3: {
    join: "AT+JOIN=1:0:10:0",
    joined: /\+EVT:JOINED/,
    send: (port, hex) => [`AT+SEND=${port}:${hex}`],
    done: /\+EVT:TX_DONE/,
  },
  "lora-e5": {
    join: "AT+JOIN",
    joined: /Network joined/,
    send: (port, hex) => [`AT+PORT=${port}`, `AT+MSGHEX="${hex}"`],
    done: /\+MSGHEX: Done/,
  },
  rn2483: {
    join: "mac join otaa",
    joined: /accepted/,
    send: (port, hex) => [`mac tx uncnf ${port} ${hex}`],
    done: /mac_tx_ok|mac_rx/,
  },
  "at-slave": {
    join: "AT+JOIN=1",
    joined: /\+EVT:JOINED/,
    send: (port, hex) => [`AT+SEND=${port}:0:${hex}`],
    done: /OK/, // of an unconfirmed frame it says no more
  },
};
const families = Object.keys(commands) as ModemFamily[];

/** A world, a modem, and somebody at its serial port. */
class Bench {
  readonly timing = new VirtualTiming();
  readonly world: RadioWorld;
  readonly modem: SimulatedModem;
  readonly commands: Commands;
  readonly events: { topic: string; body: Record<string, unknown> }[] = [];
  /** Answers each uplink with a command, as a full node would. */
  onUp: (body: Record<string, unknown>) => void = () => {};
  #said = "";

  constructor(family: ModemFamily, options: Partial<RadioWorldOptions> = {}, modem: ModemOptions = {}) {
    this.commands = commands[family];
    this.world = createRadioWorld({
      timing: this.timing,
      random: () => random.uint32() / 2 ** 32,
      wallMs: (ms) => Date.UTC(2026, 0, 5) + ms,
      ...options,
    });
    this.modem = this.world.modem(family, modem);
    this.modem.onOutput((bytes) => {
      this.#said += Buffer.from(bytes).toString();
    });
    this.world.onUplinkJson((topic, json) => {
      const body = JSON.parse(json);
      this.events.push({ topic, body });
      if (topic.endsWith("/up")) this.onUp(body);
    });
  }

  get devEui(): string {
    return this.world.devices[0]!.devEui;
  }

  get airtime() {
    return this.world.airtimeOf(this.devEui);
  }

  ups(): Record<string, unknown>[] {
    return this.events.filter(({ topic }) => topic.endsWith("/up")).map(({ body }) => body);
  }

  /** Sends a line; what the modem says within `seconds`. */
  async ask(line: string, seconds = 1): Promise<string> {
    this.#said = "";
    this.modem.receive(Buffer.from(`${line}\r\n`));
    await this.timing.advance(seconds * 1_000);
    return this.#said;
  }

  async join(): Promise<void> {
    assert.match(await this.ask(this.commands.join, 9), this.commands.joined);
  }

  async send(port: number, hex: string, seconds = 10): Promise<string> {
    let said = "";
    for (const line of this.commands.send(port, hex)) said = await this.ask(line, seconds);
    return said;
  }

  down(port: number, hex: string): void {
    const { devEui } = this;
    const body = { devEui, fPort: port, data: Buffer.from(hex, "hex").toString("base64") };
    const topic = `application/${this.world.applicationId}/device/${devEui}/command/down`;
    assert.equal(this.world.command(topic, JSON.stringify(body)), true);
  }
}

for (const family of families) {
  test(`${family}: joins, sends, and gets a downlink in the window of the same frame`, async () => {
    const bench = new Bench(family, { gateways: 2 });
    bench.onUp = () => bench.down(20, "20");
    await bench.join();
    const said = await bench.send(100, "0102030405");
    assert.match(said, bench.commands.done);
    assert.match(said, /20:20|20; RX: "20"|mac_rx 20 20|20:01:20/);
    const up = bench.ups()[0]!;
    assert.equal(up.fPort, 100);
    assert.equal(up.data, "AQIDBAU=");
    assert.equal((up.rxInfo as unknown[]).length, 2, "both gateways' copies are in one event");
    assert.equal(bench.ups().length, 1);
    assert.equal(bench.events.filter(({ topic }) => topic.endsWith("/join")).length, 1);
    assert.equal(bench.events.filter(({ topic }) => topic.endsWith("/txack")).length, 1);
  });

  test(`${family}: a wrong AppKey is answered by nobody, and no keys is said at once`, async () => {
    const wrong = new Bench(family, {}, { appKey: "ff".repeat(16) });
    const said = await wrong.ask(wrong.commands.join, 12);
    assert.match(said, /JOIN_FAILED_RX_TIMEOUT|Join failed|denied|JOIN FAILED/);
    assert.equal(wrong.world.server.dropped, 1);
    const none = new Bench(family, {}, { hasKeys: false });
    assert.match(await none.ask(none.commands.join, 1), /ERROR|keys_not_init|join network first/);
  });

  test(`${family}: before a join it says so; over the limit an empty frame or a refusal; busy while windows are open`, async () => {
    const bench = new Bench(family, { dataRate: 0 }, { dutyCycle: "off" });
    assert.match(await bench.send(100, "01", 1), /NOT_?.*JOINED|NO_NETWORK_JOINED|not_joined|join network first/i);
    await bench.timing.advance(15_000); // one of them begins a join by itself
    if (!bench.modem.device.isJoined) await bench.join();
    const before = bench.airtime.frames;
    const refused = await bench.send(100, "00".repeat(52), 6);
    assert.match(refused, /AT_PARAM_ERROR|Length error 51|invalid_data_len|AT_ERROR/);
    const sentEmpty = family === "rui3" || family === "at-slave";
    assert.equal(bench.airtime.frames - before, sentEmpty ? 1 : 0);
    if (family === "rui3") assert.match(refused, /\+EVT:TX_DONE/);
    await bench.send(100, "00".repeat(51), 1);
    assert.match(await bench.send(100, "01", 0.5), /BUSY|busy/);
  });

  test(`${family}: a reset in mid-command leaves half a line, and a modem that has to join again`, async () => {
    const bench = new Bench(family);
    await bench.join();
    bench.modem.inject({ kind: "reset", command: /SEND|MSGHEX|mac tx/ });
    const said = await bench.send(100, "0102", 8);
    assert.doesNotMatch(said, /^(OK|ok|\+MSGHEX: Start)\r\n/);
    assert.equal(bench.modem.device.isJoined, false);
    await bench.join();
    assert.match(await bench.send(100, "0102"), bench.commands.done);
  });
}

test("The Things Stack's dialect: zeros left out, EUIs in capitals, the frequency a string; replace puts one in place of all", async () => {
  const bench = new Bench("rui3", { server: "tts" });
  const topic = `v3/meters@ttn/devices/eui-${bench.devEui}/down/`;
  const item = (port: number) => ({ f_port: port, frm_payload: "IA==" });
  bench.onUp = () => {
    assert.equal(bench.world.command(`${topic}push`, JSON.stringify({ downlinks: [item(20), item(24)] })), true);
    assert.equal(bench.world.command(`${topic}replace`, JSON.stringify({ downlinks: [item(25)] })), true);
  };
  await bench.join();
  assert.match(await bench.send(100, "0102"), /RX_1:.*:25:20\r\n/, "and its window is after 5 s");
  assert.equal(bench.world.server.queueLength(bench.devEui), 0);
  const { end_device_ids: ids, uplink_message: up } = bench.ups()[0] as Record<
    "end_device_ids" | "uplink_message",
    Record<string, unknown>
  >;
  assert.equal(ids.dev_eui, bench.devEui.toUpperCase());
  assert.equal(up.f_cnt, undefined);
  assert.equal(typeof (up.settings as Record<string, unknown>).frequency, "string");
  assert.equal(bench.world.command(`${topic}replace`, JSON.stringify({ downlinks: [] })), true);
  assert.equal(bench.world.command(`${topic}push`, "{"), false);
});

test("ADR: a new data rate is obeyed and answered, the answers take room in the next frame, silence makes it slower", async () => {
  const bench = new Bench("lora-e5", { adrAckLimit: 4, adrAckDelay: 2 });
  await bench.join();
  await bench.send(100, "01");
  bench.world.server.setDataRate(bench.devEui, 0);
  bench.world.server.requestStatus(bench.devEui, 3);
  await bench.send(100, "02");
  assert.match(await bench.ask("AT+DR"), /DR0 {2}SF12/);
  // LinkADRAns 2 bytes, three DevStatusAns of 3.
  assert.match(await bench.ask("AT+LW=LEN"), /LEN, 40\r\n/);
  await bench.send(100, "03", 12);
  assert.match(await bench.ask("AT+LW=LEN"), /LEN, 51\r\n/);
  assert.deepEqual(
    bench.ups().map(({ dr }) => dr),
    [5, 5, 0],
  );

  bench.world.server.setDataRate(bench.devEui, 2);
  await bench.send(100, "04", 12);
  bench.world.radio.setLoss("up", 1);
  for (let i = 0; i < 20; i++) await bench.send(100, "05", 12);
  assert.equal(bench.modem.device.dataRate, 0, "with nobody to hear it, it went down to the slowest");
});

test("a data rate that no channel takes is refused, by command and over the air: EU868's DR6 has no channel", async () => {
  for (const family of families) {
    const bench = new Bench(family);
    await bench.join();
    const set = { rui3: "AT+DR=6", "lora-e5": "AT+DR=6", rn2483: "mac set dr 6", "at-slave": "AT+DR=6" };
    assert.match(await bench.ask(set[family]), /PARAM_ERROR|ERROR\(-1\)|invalid_param/);
    await bench.send(100, "01");
    bench.world.server.setDataRate(bench.devEui, 6);
    await bench.send(100, "02");
    assert.equal(bench.modem.device.dataRate, 5);
    await bench.send(100, "03");
    assert.equal(bench.ups().length, 3);
  }
});

test("NbTrans: the same frame is sent again until something comes down; the application sees it once", async () => {
  const bench = new Bench("rui3", {}, { dutyCycle: "off" });
  await bench.join();
  await bench.send(100, "01");
  bench.world.server.setDataRate(bench.devEui, 5, 3);
  await bench.send(100, "02", 15);
  const before = bench.airtime.frames;
  await bench.send(100, "03", 30);
  assert.equal(bench.airtime.frames - before, 3);
  assert.deepEqual(
    bench.ups().map(({ data }) => data),
    ["AQ==", "Ag==", "Aw=="],
  );
});

test("a late downlink takes the second window, a later one the next frame; one that has expired is never sent", async () => {
  const bench = new Bench("rui3");
  await bench.join();
  bench.world.server.faults.downlinkLateMs = 900;
  bench.onUp = () => bench.down(20, "aa");
  assert.match(await bench.send(100, "01"), /RX_2:.*:20:aa/);
  bench.world.server.faults.downlinkLateMs = 3_000;
  assert.doesNotMatch(await bench.send(100, "02"), /RX_/);
  bench.world.server.faults.downlinkLateMs = 0;
  bench.onUp = () => {};
  assert.match(await bench.send(100, "03"), /RX_1:.*:20:aa/);

  const topic = `application/${bench.world.applicationId}/device/${bench.devEui}/command/down`;
  const expiresAt = new Date(Date.UTC(2026, 0, 5) + bench.timing.nowMs() + 1_000).toISOString();
  bench.world.command(topic, JSON.stringify({ devEui: bench.devEui, fPort: 20, data: "qg==", expiresAt }));
  await bench.timing.advance(5_000);
  assert.doesNotMatch(await bench.send(100, "04"), /RX_/);
});

test("duty cycle: the modem says for how long, and the radio's own meter finds no hour over 1 %; switched off, it finds one", async () => {
  const run = async (dutyCycle: "band" | "off") => {
    const bench = new Bench("rui3", { dataRate: 0 }, { dutyCycle });
    await bench.join();
    let refusals = 0;
    for (let i = 0; i < 300; i++) {
      const said = await bench.send(100, "00".repeat(51), 15);
      if (/Restricted_Wait_\d+_ms\r\nAT_BUSY_ERROR/.test(said)) refusals++;
    }
    return { refusals, bands: bench.airtime.subBands(), outside: bench.airtime.outside };
  };
  const kept = await run("band");
  assert.ok(kept.refusals > 200);
  assert.equal(kept.outside, 0);
  assert.equal(kept.bands.length, 2);
  // Silence of 99 airtimes after each frame: an hour that begins with a frame may end in one more.
  for (const { worstHourMs, hourLimitMs } of kept.bands) assert.ok(worstHourMs <= hourLimitMs + 2_800);
  const broken = await run("off");
  assert.ok(
    broken.bands.every(({ excesses, worstHourMs, hourLimitMs }) => excesses > 0 && worstHourMs > 5 * hourLimitMs),
  );
});

test("loss of both directions: what arrives arrives once and whole, and the share is the one asked for", async () => {
  const bench = new Bench("lora-e5", { lossUp: 0.3, lossDown: 0.3 }, { dutyCycle: "off" });
  while (!bench.modem.device.isJoined) await bench.ask("AT+JOIN", 15);
  bench.onUp = () => bench.down(20, "20");
  let heard = 0;
  for (let i = 0; i < 400; i++) if (/RX: "20"/.test(await bench.send(100, i.toString(16).padStart(4, "0"), 4))) heard++;
  const counters = bench.ups().map(({ fCnt }) => fCnt as number);
  assert.equal(new Set(counters).size, counters.length);
  assert.ok(counters.length > 230 && counters.length < 330, `${counters.length} of 400 arrived`);
  const share = heard / counters.length;
  assert.ok(share > 0.6 && share < 0.9, `${heard} downlinks after ${counters.length} frames`);
});

test("bursts: losses of the Gilbert-Elliott model stand together", async () => {
  const model = { toBad: 0.05, toGood: 0.3, lossInGood: 0, lossInBad: 1 };
  const bench = new Bench("lora-e5", { lossUp: model }, { dutyCycle: "off" });
  while (!bench.modem.device.isJoined) await bench.ask("AT+JOIN", 15);
  for (let i = 0; i < 600; i++) await bench.send(100, "0102", 2);
  const counters = bench.ups().map(({ fCnt }) => fCnt as number);
  const gaps = counters.slice(1).map((counter, i) => counter - (counters[i] as number) - 1);
  const bursts = gaps.filter((gap) => gap > 0);
  const meanLength = bursts.reduce((sum, gap) => sum + gap, 0) / bursts.length;
  // Independent losses of the same share (1 in 7) would stand alone: a mean of 1.2 instead of 3.3.
  assert.ok(meanLength > 1.8, `mean ${meanLength} of ${bursts.length} bursts`);
});

test("a replayed frame and one of a stranger give no event; a join's nonce is good once; a rejoin starts the counters anew", async () => {
  const bench = new Bench("rui3");
  const heard: Uint8Array[] = [];
  bench.world.radio.addGateway(({ phyPayload }) => heard.push(phyPayload));
  await bench.join();
  await bench.send(100, "01");
  await bench.send(100, "02");
  const again = (phyPayload: Uint8Array): void =>
    bench.world.radio.transmitUp(
      "stranger",
      { frequencyHz: 868_100_000, spreadingFactor: 7, bandwidthKhz: 125 },
      phyPayload,
      () => {},
    );
  const ups = bench.ups().length;
  for (const phyPayload of [...heard]) {
    again(phyPayload);
    await bench.timing.advance(10_000);
  }
  again(random.bytes(30));
  await bench.timing.advance(10_000);
  // The last frame once more is taken for a repetition (NbTrans), which is no event either.
  assert.equal(bench.ups().length, ups);
  assert.equal(bench.world.server.dropped, 3);
  bench.modem.reset();
  await bench.timing.advance(1_000);
  await bench.join();
  await bench.send(100, "03");
  assert.deepEqual(
    bench.ups().map(({ fCnt }) => fCnt),
    [0, 1, 0],
  );
});

test("a gateway without backhaul loses what it hears; events can be told twice; a join can be left unanswered", async () => {
  const bench = new Bench("lora-e5");
  bench.world.server.faults.ignoresJoins = true;
  assert.match(await bench.ask("AT+JOIN", 10), /Join failed/);
  bench.world.server.faults.ignoresJoins = false;
  await bench.join();
  bench.world.gateways[0]!.isOnline = false;
  await bench.send(100, "01");
  assert.equal(bench.ups().length, 0);
  bench.world.gateways[0]!.isOnline = true;
  bench.world.server.faults.publishes = 2;
  await bench.send(100, "02");
  assert.deepEqual(
    bench.ups().map(({ fCnt }) => fCnt),
    [1, 1],
  );
});

test("faults of the serial line: a spoilt first byte, silence, an answer of another, an event between", async () => {
  const bench = new Bench("rui3");
  bench.modem.inject({ kind: "garbage-first-byte" });
  assert.equal(await bench.ask("AT+VER=?"), "AT_COMMAND_NOT_FOUND\r\n");
  bench.modem.inject(
    { kind: "silence", command: /VER/ },
    { kind: "answer", command: /SEND/, lines: ["Restricted_Wait_4711_ms", "AT_BUSY_ERROR"] },
    { kind: "interjection", command: /NJS/, lines: ["+EVT:TIMEREQ_OK"] },
  );
  assert.equal(await bench.ask("AT+VER=?"), "");
  assert.equal(await bench.ask("AT+SEND=100:01"), "Restricted_Wait_4711_ms\r\nAT_BUSY_ERROR\r\n");
  assert.equal(await bench.ask("AT+NJS=?"), "+EVT:TIMEREQ_OK\r\nAT+NJS=0\r\nOK\r\n");
  assert.equal(await bench.ask(`AT+SEND=1:${"00".repeat(3_000)}`, 2), "AT_TEST_PARAM_OVERFLOW\r\n");
});

test("the port in memory: a second opening takes the line over, a closed one refuses", async () => {
  const bench = new Bench("rui3");
  const open = modemTransport(bench.modem);
  const first = await open();
  const said: string[] = [];
  first.onData((bytes) => said.push(`first ${Buffer.from(bytes)}`));
  const second = await open();
  second.onData((bytes) => said.push(`second ${Buffer.from(bytes)}`));
  await second.write(Buffer.from("AT\r\n"));
  await bench.timing.advance(100);
  assert.deepEqual(said, ["second OK\r\n"]);
  let ended = 0;
  second.onClosed(() => ended++);
  await second.close();
  await second.close();
  assert.equal(ended, 1);
  await assert.rejects(second.write(Buffer.from("AT\r\n")), { code: "port-closed" });
});

for (const region of regionNames)
  test(`${region}: each family joins, and gets a downlink in the first window and in the second`, async () => {
    for (const family of families) {
      if (family === "rn2483" && region === "AS923") continue; // it is made for EU868, and as RN2903 for US915 and AU915
      const bench = new Bench(family, { region }, { dutyCycle: "off" });
      bench.onUp = () => bench.down(20, "20");
      await bench.join();
      const answered = /20:20|20; RX: "20"|mac_rx 20 20|20:01:20/;
      assert.match(await bench.send(100, "0102"), answered, `${family}, first window`);
      bench.world.server.faults.downlinkLateMs = 900;
      assert.match(await bench.send(100, "0102"), answered, `${family}, second window`);
      const { frequency } = (bench.ups()[0] as { txInfo: { frequency: number } }).txInfo;
      assert.ok(radioPlan(region).channels.some(({ frequencyHz }) => frequencyHz === frequency));
      // US915 and AU915 have no duty cycle, so there is no sub-band to be outside of.
      assert.equal(bench.airtime.outside, 0);
      assert.equal(bench.airtime.subBands().length > 0, subBands(region).length > 0);
    }
  });

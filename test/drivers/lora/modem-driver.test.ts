/** What the driver does around the dialogues: the port, late answers, resets, turns. The dialects have tests of their own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Conversation } from "../../../drivers/lora/conversation.ts";
import { Rui3 } from "../../../drivers/lora/rui3.ts";
import { keys } from "./dialogue-file.ts";
import { healthyRui3, rigOf, type Script, ScriptedPort } from "./scripted-port.ts";

const frame = Uint8Array.of(0x3e, 0x64);
const isFault = { kind: "fault" };

test("begin tells firmware, address and join state; a frame and its downlink go through", async () => {
  const { port, modem, downlinks } = rigOf((command) =>
    command.startsWith("AT+SEND") ? ["OK", "+EVT:RX_1:-70:8:UNICAST:20:1c40", "+EVT:TX_DONE"] : healthyRui3(command),
  );
  assert.deepEqual(await port.wait(modem.begin()), { joined: true, devEui: "ac1f09fffe000001" });
  assert.equal(modem.firmware, "RUI_4.1.0_RAK3172-E");
  assert.equal(modem.description, "/dev/test at 9600 8N1");
  assert.deepEqual(await port.wait(modem.send(20, frame)), { kind: "sent" });
  assert.deepEqual(downlinks, [{ port: 20, bytes: Uint8Array.of(0x1c, 0x40), rssiDbm: -70, snrDb: 8 }]);
  assert.deepEqual(await port.wait(modem.state()), { joined: true, dataRate: 3 });
});

/** A modem that is busy with something else at the first question of its join state, and answers it when the next one comes. */
function lateScript(): Script {
  let isFirst = true;
  let late: readonly string[] = [];
  return (command) => {
    const answers = [...late, ...healthyRui3(command)];
    late = [];
    if (command !== "AT+NJS=?" || !isFirst) return answers;
    isFirst = false;
    late = ["AT+NJS=0", "OK"];
    return [];
  };
}

test("after a time-out nothing is believed before the modem has said its version: a late answer is not the next one's", async () => {
  const { port, modem } = rigOf(healthyRui3);
  await port.wait(modem.begin());
  port.script = lateScript();
  await assert.rejects(port.wait(modem.state()), { code: "timeout" });
  assert.deepEqual(await port.wait(modem.state()), { joined: true, dataRate: 3 });
  assert.deepEqual(port.commands.slice(-4), ["AT+NJS=?", "AT+VER=?", "AT+NJS=?", "AT+DR=?"]);
});

test("control: without that question the late answer is taken for the next one's", async () => {
  const port = new ScriptedPort(lateScript());
  const conversation = new Conversation({ transport: await port.open(), timing: port.loraTiming });
  const dialect = new Rui3("/dev/test");
  await assert.rejects(port.wait(conversation.run(dialect.state())), { code: "timeout" });
  assert.equal((await port.wait(conversation.run(dialect.state()))).joined, false);
});

test("a modem that answers no more is given up after three questions, said once, and begun anew at a port that is opened again", async () => {
  const { port, modem, lost } = rigOf(healthyRui3);
  await port.wait(modem.begin());
  port.script = () => undefined;
  assert.deepEqual(await port.wait(modem.send(20, frame)), { ...isFault, detail: "no answer to AT+SEND" });
  const given = await port.wait(modem.send(20, frame));
  assert.equal(given.kind, "fault");
  assert.deepEqual(lost, ["it answers no more"]);
  assert.equal((await port.wait(modem.send(20, frame))).kind, "fault");
  await assert.rejects(port.wait(modem.state()), { code: "port-closed" });
  await assert.rejects(port.wait(modem.begin()), { code: "timeout", message: /ecp scan --lora/ });
  port.script = healthyRui3;
  await port.wait(modem.begin());
  assert.equal(port.opened, 3);
  assert.deepEqual(await port.wait(modem.send(20, frame)), { kind: "sent" });
  assert.equal(lost.length, 1);
});

test("a port that is pulled out in the middle of a frame ends it at once", async () => {
  const { port, modem, lost } = rigOf(healthyRui3);
  await port.wait(modem.begin());
  port.script = (command) => (command.startsWith("AT+SEND") ? ["OK"] : healthyRui3(command));
  const sending = modem.send(20, frame);
  await port.timing.advance(100);
  port.pull();
  const before = port.timing.nowMs();
  const outcome = await port.wait(sending);
  assert.ok(port.timing.nowMs() - before <= 50, "without waiting for the guard");
  assert.equal(outcome.kind, "fault");
  assert.deepEqual(lost, ["the device went away"]);
  await port.wait(modem.begin());
});

test("a modem that starts anew in the middle of a frame is lost, and what it knew is asked again", async () => {
  const { port, modem, lost } = rigOf(healthyRui3);
  await port.wait(modem.begin());
  port.script = (command) =>
    command.startsWith("AT+SEND")
      ? ["O", "RAKwireless RAK3172-E", "Current Work Mode: LoRaWAN."]
      : healthyRui3(command);
  assert.equal((await port.wait(modem.send(20, frame))).kind, "fault");
  assert.deepEqual(lost, ["it was reset"]);
  port.script = (command) => (command === "AT+NJS=?" ? ["AT+NJS=0", "OK"] : healthyRui3(command));
  assert.equal((await port.wait(modem.begin())).joined, false);
});

test("a path that leads to another device after a time-out is a lost port", async () => {
  const { port, modem, lost } = rigOf(healthyRui3);
  await port.wait(modem.begin());
  port.script = () => undefined;
  assert.equal((await port.wait(modem.send(20, frame))).kind, "fault");
  port.isCurrent = false;
  assert.equal((await port.wait(modem.send(20, frame))).kind, "fault");
  assert.deepEqual(lost, ["its path leads to another device now, or to none"]);
});

test("what is asked at the same time is asked one after the other", async () => {
  const { port, modem } = rigOf(healthyRui3);
  await port.wait(modem.begin());
  port.commands.length = 0;
  const asked: Promise<unknown>[] = [modem.send(20, frame), modem.state(), modem.send(24, frame)];
  for (const answer of asked) await port.wait(answer);
  assert.deepEqual(port.commands, ["AT+SEND=20:3e64", "AT+NJS=?", "AT+DR=?", "AT+SEND=24:3e64"]);
});

test("what surely does not fit the data rate is not written: an oversized frame would cost an empty one", async () => {
  const { port, modem } = rigOf(healthyRui3);
  await port.wait(modem.begin());
  await port.wait(modem.state());
  port.commands.length = 0;
  const outcome = await port.wait(modem.send(20, new Uint8Array(116)));
  assert.deepEqual(outcome, { kind: "too-long", bytesMax: 115, emptyFrameSent: false });
  assert.deepEqual(port.commands, []);
  assert.deepEqual(await port.wait(modem.send(20, new Uint8Array(115))), { kind: "sent" });
  assert.throws(() => modem.send(0, frame), RangeError);
  assert.throws(() => modem.send(224, frame), RangeError);
});

test("a modem of another family, and keys that are none, are refused in words without the key", async () => {
  const { port, modem } = rigOf(() => ["+AT: ERROR(-10)"]);
  await assert.rejects(port.wait(modem.begin()), {
    code: "timeout",
    message: /expected a modem of the family rui3 to say its version/,
  });
  const secret = "00112233445566778899aabbccddee";
  const refused = modem.provision({ ...keys, appKey: secret }, "EU868");
  await assert.rejects(port.wait(refused), (error: Error) => {
    assert.match(error.message, /expected AppKey: 32 hexadecimal digits, got something else/);
    return !error.message.includes(secret);
  });
});

test("a module that takes its USB port away for its reset has been provisioned all the same", async () => {
  const { port, modem } = rigOf(healthyRui3);
  port.script = (command) => {
    if (command === "ATZ") port.timing.after(10, () => port.pull());
    if (/^AT\+(?:BAND|DEVEUI|APPEUI|APPKEY)=[^?]/.test(command)) return ["OK"];
    if (command === "AT+APPEUI=?") return ["AT+APPEUI=70B3D57ED0000001", "OK"];
    return healthyRui3(command);
  };
  const { joinEui, appKey } = keys;
  assert.deepEqual(await port.wait(modem.provision({ joinEui, appKey }, "EU868")), { devEui: "ac1f09fffe000001" });
});

test("a sub-band is refused where the region has none", async () => {
  const { port, modem } = rigOf(healthyRui3);
  for (const [region, subBand] of [
    ["EU868", 2],
    ["US915", 9],
    ["AU915", 0],
  ] as const)
    await assert.rejects(port.wait(modem.provision({ ...keys, subBand }, region)), { code: "invalid-argument" });
  assert.deepEqual(port.commands, []);
});

test("a port that chatters without end ends a dialogue in its time, in bounded memory", async () => {
  const { port, modem } = rigOf(healthyRui3);
  await port.wait(modem.begin());
  let isChattering = true;
  const chatter = (): void => {
    for (let line = 0; line < 500; line++) port.say("something else");
    if (isChattering) port.timing.after(5, chatter);
  };
  port.script = () => undefined;
  const before = port.timing.nowMs();
  const sending = modem.send(20, frame);
  chatter();
  assert.deepEqual(await port.wait(sending), { ...isFault, detail: "no answer to AT+SEND" });
  assert.ok(port.timing.nowMs() - before < 5_000);
  isChattering = false;
});

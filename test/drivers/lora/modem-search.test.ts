import assert from "node:assert/strict";
import { test } from "node:test";
import type { ByteTransport } from "../../../drivers/byte-transport.ts";
import { DriverError } from "../../../drivers/failure.ts";
import { factoryBauds, modemFamilies } from "../../../drivers/lora/modem.ts";
import { modemBauds, searchModem } from "../../../drivers/lora/modem-search.ts";
import { createRadioWorld, modemTransport } from "../../../simulator/radio-world.ts";
import { ScriptedPort } from "./scripted-port.ts";

test("each family is found at its speed, with firmware and address, and nothing but questions is asked", async () => {
  for (const family of modemFamilies) {
    const port = new ScriptedPort(() => undefined);
    const world = createRadioWorld({ timing: port.timing, random: () => 0.5 });
    const modem = world.modem(family);
    const asked: string[] = [];
    const openAt = async (baud: number): Promise<ByteTransport> => {
      // At another speed it hears noise, and so does who asks.
      if (baud !== factoryBauds[family]) return port.open();
      const transport = await modemTransport(modem)();
      const write = async (bytes: Uint8Array): Promise<void> => {
        asked.push(Buffer.from(bytes).toString("latin1").trim());
        return transport.write(bytes);
      };
      return { ...transport, write };
    };
    const result = await port.wait(searchModem({ openAt, bauds: modemBauds, timing: port.loraTiming }));
    assert.equal(result.error, undefined);
    const { firmware, ...found } = result.modem ?? { firmware: "" };
    assert.deepEqual(found, { family, baud: factoryBauds[family], devEui: world.devices[0]?.devEui }, family);
    assert.match(firmware, /\d/);
    for (const command of asked)
      assert.match(command, /^(?:AT\+(?:VER|DEVEUI|DEUI)=\?|AT\+VER|AT\+ID=DevEui|(?:sys|mac) get \w+)?$/, family);
  }
});

test("an RN2483 that has lost its speed measures it by a break and 0x55", async () => {
  let isAwake = false;
  const port = new ScriptedPort((command) => {
    if (command.includes("\0U")) isAwake = true;
    if (!isAwake) return ["~)#"];
    if (command === "sys get ver") return ["RN2483 1.0.5 Oct 31 2018 15:06:52"];
    return command === "mac get deveui" ? ["0004A30B001A2B3C"] : ["invalid_param"];
  });
  const result = await port.wait(searchModem({ openAt: port.open, bauds: [57_600], timing: port.loraTiming }));
  assert.deepEqual(result.modem, {
    family: "rn2483",
    baud: 57_600,
    firmware: "RN2483 1.0.5 Oct 31 2018 15:06:52",
    devEui: "0004a30b001a2b3c",
  });
});

test("a RAK module with firmware from before RUI3 is named, silence is nothing, a port that cannot be opened is its error", async () => {
  const old = new ScriptedPort((command) => (command === "AT+VER=?" ? ["V1.0.4", "OK"] : ["AT_ERROR"]));
  const named = await old.wait(searchModem({ openAt: old.open, bauds: [9_600], timing: old.loraTiming }));
  assert.equal(named.modem, undefined);
  assert.match(named.remarks[0] ?? "", /before RUI3/);

  const silent = new ScriptedPort(() => undefined);
  const none = await silent.wait(searchModem({ openAt: silent.open, bauds: modemBauds, timing: silent.loraTiming }));
  assert.deepEqual(none, { remarks: [] });
  assert.ok(silent.timing.nowMs() < 5_000, "silence takes seconds");

  const openAt = async (): Promise<ByteTransport> => {
    throw new DriverError("port-busy", "held by ecp");
  };
  const busy = await searchModem({ openAt, bauds: modemBauds, timing: silent.loraTiming });
  assert.equal(busy.error?.code, "port-busy");
});

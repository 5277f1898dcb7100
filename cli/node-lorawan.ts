/** ecp-node lorawan: which LoRaWAN modems bring the records of which devices. */
import type { Store } from "../fullnode/store.ts";
import { openStore } from "../fullnode/store-address.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { findDevice } from "./node-device.ts";
import { formatTable, localTime, terminalColumns } from "./table.ts";

/** So that no slip of the hand binds another device. */
const nameLengthMin = 8;

export const nodeLorawanBind: Command = {
  summary: "take the records of a device from a LoRaWAN modem, by its DevEUI",
  usage: `Usage: ecp-node lorawan bind DEV_EUI DEVICE --data DIR

DEV_EUI is the modem's, 16 hexadecimal digits, as \`ecp lora provision\` and the network server show it; DEVICE an enrolled device's
did:key, or a beginning of it of at least ${nameLengthMin} characters. A device may have several. A running node needs no restart. The binding only says where
frames go: each record is still verified by the device's signature.`,

  async run(args) {
    const { values, positionals } = parseCommand("ecp-node lorawan bind", args, dataOption, ["DEV_EUI", "DEVICE"]);
    const data = requireData("ecp-node lorawan bind", values.data);
    const devEui = parseDevEui("ecp-node lorawan bind", positionals[0] as string);
    const store = await openStore(data);
    try {
      const { name } = findDevice(await store.devices(), positionals[1] as string, data, nameLengthMin);
      await bindDevEui(store, devEui, name, data);
      process.stdout.write(`Bound: frames of ${devEui} bring records of did:key:${name}\n`);
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};

export const nodeLorawanUnbind: Command = {
  summary: "take no more frames from a LoRaWAN modem",
  usage: `Usage: ecp-node lorawan unbind DEV_EUI --data DIR

What it brought stays stored; packets that have come in part are forgotten. For a modem that was exchanged or lost.`,

  async run(args) {
    const { values, positionals } = parseCommand("ecp-node lorawan unbind", args, dataOption, ["DEV_EUI"]);
    const data = requireData("ecp-node lorawan unbind", values.data);
    const devEui = parseDevEui("ecp-node lorawan unbind", positionals[0] as string);
    const store = await openStore(data);
    try {
      if (!(await store.lorawan.unbind(devEui)))
        throw new CommandError(exit.unknown, {
          expected: "a DevEUI that is bound to a device",
          got: `${devEui}, which is not`,
          where: data,
          todo: `ecp-node lorawan list --data ${data} lists them`,
        });
      process.stdout.write(`Unbound: frames of ${devEui} are not taken any more\n`);
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};

export const nodeLorawanList: Command = {
  summary: "list the LoRaWAN modems and whose records they bring",
  usage: `Usage: ecp-node lorawan list --data DIR [--json]

last frame    when the last uplink came that the network server passed on, whatever was in it
frame         its counter; another DevAddr begins at 0 again
last receipt  when a receipt was last queued for it at the network server
--json        one JSON object a line for each`,

  async run(args) {
    const options = { ...dataOption, json: { type: "boolean" } } as const;
    const { values } = parseCommand("ecp-node lorawan list", args, options, []);
    const data = requireData("ecp-node lorawan list", values.data);
    const store = await openStore(data);
    try {
      const bindings = await store.lorawan.bindings();
      const lines = values.json
        ? bindings.map((one) => `${JSON.stringify(asJson(one))}\n`).join("")
        : asTable(bindings);
      process.stdout.write(lines);
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};

/** 16 hexadecimal digits, also in pairs with colons or hyphens between. Throws where it is none. */
export function parseDevEui(command: string, text: string): string {
  const form = /^[0-9a-f]{16}$|^[0-9a-f]{2}(?<between>[:-])[0-9a-f]{2}(?:\k<between>[0-9a-f]{2}){6}$/i;
  const devEui = text.replaceAll(/[:-]/g, "").toLowerCase();
  if (!form.test(text)) throw usageError(command, `the DevEUI ${text}, which is not 16 hexadecimal digits`);
  return devEui;
}

/** Throws where another device has it. */
export async function bindDevEui(store: Store, devEui: string, name: string, data: string): Promise<void> {
  const other = await store.lorawan.bind(devEui, name, Date.now());
  if (other === undefined) return;
  throw new CommandError(exit.failed, {
    expected: "a DevEUI that is bound to no device, or to this one",
    got: `${devEui}, which is bound to did:key:${other}`,
    where: data,
    todo: `if the modem was moved: ecp-node lorawan unbind ${devEui} --data ${data}; then bind it again`,
  });
}

type Binding = Awaited<ReturnType<Store["lorawan"]["bindings"]>>[number];

function asJson({ devEui, name, boundMs, devAddr, fCnt, lastMs, receiptMs }: Binding) {
  return {
    devEui,
    device: `did:key:${name}`,
    bound: new Date(boundMs).toISOString(),
    ...(devAddr !== "" && { devAddr }),
    ...(fCnt >= 0 && { frame: fCnt }),
    ...(lastMs > 0 && { lastFrame: new Date(lastMs).toISOString() }),
    ...(receiptMs > 0 && { lastReceipt: new Date(receiptMs).toISOString() }),
  };
}

function asTable(bindings: readonly Binding[]): string {
  if (bindings.length === 0)
    return "No modem is bound yet. `ecp-node lorawan bind DEV_EUI DEVICE --data DIR` binds one.\n";
  const when = (ms: number) => (ms > 0 ? localTime(ms) : "never");
  return formatTable(
    [
      { title: "DevEUI" },
      { title: "device" },
      { title: "last frame" },
      { title: "frame", align: "right" },
      { title: "last receipt" },
    ],
    bindings.map((one) => [
      one.devEui,
      `did:key:${one.name}`,
      when(one.lastMs),
      one.fCnt < 0 ? "–" : `${one.fCnt}`,
      when(one.receiptMs),
    ]),
    terminalColumns(),
  );
}

/** ecp-node enrol: takes a device by its signed request and writes the node's answer. */
import { resolve } from "node:path";
import { loadNodeKeys } from "../fullnode/node-keys.ts";
import { enrolDevice } from "../fullnode/registry.ts";
import { openStore } from "../fullnode/store-address.ts";
import { contentTypes } from "../protocol/cose-sign1.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { readInput } from "./input-file.ts";
import { dataOption, requireData } from "./node-command.ts";
import { bindDevEui, parseDevEui } from "./node-lorawan.ts";
import { checkOutput, signedMessage, writeOutput } from "./output-file.ts";
import { shellWord } from "./shell-word.ts";

export const nodeEnrol: Command = {
  summary: "take a device by its request file, and write the answer for it",
  usage: `Usage: ecp-node enrol FILE --data DIR [--out FILE.answer] [--dev-eui DEV_EUI] [--json]

FILE is the signed request that \`ecp enrol\` wrote on the device. The answer (FILE.answer unless --out says otherwise; it
overwrites nothing but an answer) goes back to the device: \`ecp pin FILE.answer\`. Compare both names below with what the other side shows: that is what makes
sure that neither file was exchanged on its way. The same request may be enrolled again. A running node needs no restart. --dev-eui binds a LoRaWAN modem to the device, as \`ecp-node lorawan bind\` does.`,

  async run(args) {
    const { values, positionals } = parseCommand(
      "ecp-node enrol",
      args,
      { ...dataOption, out: { type: "string" }, "dev-eui": { type: "string" }, json: { type: "boolean" } },
      ["FILE"],
    );
    const data = requireData("ecp-node enrol", values.data);
    const file = positionals[0] as string;
    const out = values.out ?? `${file}.answer`;
    const request = readInput(file, "the request file of a device", "`ecp enrol` on the device writes it");
    const before = signedMessage(contentTypes.enrolmentAnswer);
    checkOutput(out, before);
    const devEui = values["dev-eui"] === undefined ? undefined : parseDevEui("ecp-node enrol", values["dev-eui"]);
    const keys = loadNodeKeys(data);
    const store = await openStore(data);
    try {
      const result = await enrolDevice(store, keys, request, Date.now());
      writeOutput(out, result.answer, before);
      if (devEui !== undefined) await bindDevEui(store, devEui, result.name, data);
      if (values.json) {
        const { did: device, isNew } = result;
        process.stdout.write(
          `${JSON.stringify({ device, node: keys.did, isNew, answer: resolve(out), ...(devEui && { devEui }) })}\n`,
        );
        return exit.ok;
      }
      const meters = result.meters.map(({ index, name, profile }) => `${index}: ${name} (${profile})`);
      process.stdout.write(
        `${result.isNew ? "Enrolled" : "Enrolled before, and renewed"}: ${file}\n` +
          `  device      ${result.did}\n` +
          `  meters      ${meters.join("\n              ") || "none named"}\n` +
          `  this node   ${keys.did}\n` +
          (devEui === undefined ? "" : `  DevEUI      ${devEui}\n`) +
          `  answer      ${out}\n\n` +
          `Next: compare the device's name with what \`ecp enrol\` printed on the device; carry the answer there;\n` +
          `      ecp pin ${shellWord(out)}   shows this node's name again: compare it too\n`,
      );
      return exit.ok;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      throw new CommandError(exit.failed, {
        expected: "an enrolment request as `ecp enrol` writes it",
        got: `${error.message} [${error.reason}]`,
        where: file,
        todo: "copy the file from the device again, as binary; or make a new one there with `ecp enrol`",
      });
    } finally {
      await store.close();
    }
  },
};

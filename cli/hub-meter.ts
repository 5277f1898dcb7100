/** ecp meter replaced: another meter hangs in a place, so that its registers may begin anywhere. */
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption } from "./hub-options.ts";
import { meterNamed } from "./hub-statement.ts";
import { policyPath, readPolicy, writePolicy } from "./hub-wallet.ts";

const reasonBytesMax = 64;
const name = "ecp meter replaced";

export const hubMeterReplaced: Command = {
  summary: "declare that a meter was exchanged, so that its new stands are not taken for a fall",
  usage: `Usage: ecp meter replaced NAME --reason TEXT [--config hub.yaml]

Raises the installation number of this meter in the wallet's policy. At its next start the wallet seals the change as an
event, with the reason (at most ${reasonBytesMax} bytes), and holds the new meter's registers against nothing that the old one showed.
Without it, what the new meter shows below the old one's stands is sealed with status M and not booked.`,
  async run(args) {
    const options = { ...configOption, reason: { type: "string" } } as const;
    const { values, positionals } = parseCommand(name, args, options, ["NAME"]);
    if (values.reason === undefined) throw usageError(name, "no --reason TEXT");
    const reason = values.reason.trim();
    if (reason === "" || Buffer.byteLength(reason) > reasonBytesMax)
      throw usageError(name, `--reason '${reason}'; a text of 1 to ${reasonBytesMax} bytes was expected`);
    const hub = readHubFile(values.config);
    const { index, name: meterName } = meterNamed(hub, positionals[0] as string);
    const policy = readPolicy(hub);
    const before = policy.meters.find((meter) => meter.index === index);
    if (!before)
      throw new CommandError(exit.failed, {
        expected: `meter ${index} (${meterName}) in the wallet's policy`,
        got: "it is not there",
        where: policyPath(hub),
        todo: "ecp config apply, then try again",
      });
    const after = { ...before, installation: before.installation + 1, installationReason: reason };
    writePolicy(hub, { ...policy, meters: policy.meters.map((meter) => (meter === before ? after : meter)) });
    process.stdout.write(
      `${meterName} is declared to be another meter (installation ${after.installation}). Restart the wallet to make it count.\n`,
    );
    return exit.ok;
  },
};

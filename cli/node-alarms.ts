/** ecp-node alarms: what a running node has found that somebody should look at. */
import { type NodeStatus, nodeSocket } from "../fullnode/observation.ts";
import { runbookOf } from "../platform/alarm-log.ts";
import { askStatus } from "../platform/status-socket.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { formatTable, localTime, terminalColumns } from "./table.ts";

export const nodeAlarms: Command = {
  summary: "what the running node has found that somebody should look at",
  usage: `Usage: ecp-node alarms --data DIR [--json]

Asks the node that runs on this data folder. docs/operating.md says for each kind what it means and what to do.
With --lorawan the node says too whether it takes the frames, and what has come.
--json   one JSON object: problems, alarms, devices, quarantined, counts, lorawan

Exit status 0: no alarm stands; 1: one does; 69: no node runs on this folder.`,

  async run(args) {
    const { values } = parseCommand("ecp-node alarms", args, { ...dataOption, json: { type: "boolean" } }, []);
    const data = requireData("ecp-node alarms", values.data);
    const status = await askStatus<NodeStatus>(nodeSocket(data));
    if (status === undefined)
      throw new CommandError(exit.unavailable, {
        expected: "a full node that runs on this data folder",
        got: "no answer",
        where: nodeSocket(data),
        todo: `start it: ecp-node run --data ${data}, or systemctl start ecp-node`,
      });
    const { alarms } = status;
    if (values.json) process.stdout.write(`${JSON.stringify(status)}\n`);
    else if (alarms.length === 0) process.stdout.write(`No alarm; ${status.devices} devices are watched.\n`);
    else process.stdout.write(asTable(status));
    if (!values.json && status.lorawan) process.stdout.write(`LoRaWAN: ${lorawanWords(status.lorawan)}\n`);
    return alarms.length === 0 ? exit.ok : exit.failed;
  },
};

function lorawanWords({ state, counts }: NonNullable<NodeStatus["lorawan"]>): string {
  if (counts === undefined) return "another node has the lease; this one stands by";
  const { frames, refused, sessions, packets, receipts } = counts;
  const refusals = Object.values(refused).reduce((sum, count) => sum + count, 0);
  const connection = state === "connected" ? "connected" : "NO CONNECTION to the network server's broker";
  const came = `${frames.record} records in one frame, ${frames.fragment} fragments, ${packets} packets of them, ${refusals} frames not taken`;
  return `${connection}; ${came}; ${sessions} sessions; ${receipts} receipts queued`;
}

function asTable({ alarms }: NodeStatus): string {
  const rows = alarms.map(({ kind, subject, sinceMs, detail }) => [kind, localTime(sinceMs), subject, detail]);
  const columns = [{ title: "alarm" }, { title: "since" }, { title: "of" }, { title: "what" }] as const;
  const kinds = [...new Set(alarms.map(({ kind }) => kind))];
  return `${formatTable(columns, rows, terminalColumns())}\nWhat to do: ${kinds.map(runbookOf).join(", ")}\n`;
}

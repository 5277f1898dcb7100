// What the tests of the record path demand of a store, demanded of the one on PostgreSQL: the same files, run over it.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { canonicalDump } from "../../fullnode/canonical-dump.ts";
import { enrolDevice } from "../../fullnode/registry.ts";
import { eventCodes } from "../../protocol/record.ts";
import { usePostgres } from "./contract-store.ts";
import { DeviceFixture } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";
import { PostgresServer, postgresMissing } from "./postgres-fixture.ts";

if (postgresMissing) {
  console.log(`skipped: ${postgresMissing}`);
  test("the contract of a store over PostgreSQL", { skip: postgresMissing }, () => undefined);
} else {
  const server = await PostgresServer.start();
  after(() => server.stop());
  usePostgres(server);
  test("PostgreSQL and SQLite give the same canonical dump of the same records", async (t) => {
    usePostgres(undefined);
    const embedded = new NodeFixture(t);
    usePostgres(server);
    const served = new NodeFixture(t);
    const devices = [new DeviceFixture(), new DeviceFixture(77)];
    const dumps: string[][] = [[], []];
    const requests = devices.map((device) => device.request());
    const records = devices.map((device) => {
      const begun = [...device.readings(30), device.void(2), device.events([eventCodes.meterReplaced, 0, "x", 1])];
      const fork = device.reading();
      device.rewind(begun.at(-1));
      return [...begun, device.reading({ meter: 3 }), fork, device.rotate(), ...device.readings(20)];
    });
    for (const [i, node] of [embedded, served].entries()) {
      for (const request of i === 0 ? requests : requests.toReversed())
        await enrolDevice(node.store, node.keys, request, i);
      for (const [at, device] of devices.entries()) await node.deliver(device, ...(records[at] ?? []));
      for await (const line of canonicalDump(node.store)) dumps[i]?.push(line);
    }
    assert.ok((dumps[0]?.length ?? 0) > 150);
    assert.equal(dumps[1]?.join("\n"), dumps[0]?.join("\n"));
  });
  const names = ["record-path", "kept", "dropped", "rotation", "registry", "two-writers", "lorawan-store"];
  for (const name of names) await import(`./${name}.test.ts`);
}

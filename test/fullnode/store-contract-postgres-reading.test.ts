// What the tests of quarter hours, energy and devices' states demand of a store, demanded of the one on PostgreSQL.
import { after, test } from "node:test";
import { usePostgres } from "./contract-store.ts";
import { PostgresServer, postgresMissing } from "./postgres-fixture.ts";

if (postgresMissing) {
  console.log(`skipped: ${postgresMissing}`);
  test("the contract of a store over PostgreSQL, for readers", { skip: postgresMissing }, () => undefined);
} else {
  const server = await PostgresServer.start();
  after(() => server.stop());
  usePostgres(server);
  for (const name of ["aggregate", "energy", "device-states", "sealed-envelope", "lora-receipt-building"])
    await import(`./${name}.test.ts`);
}

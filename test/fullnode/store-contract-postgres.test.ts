// What the tests of the record path demand of a store, demanded of the one on PostgreSQL: the same files, run over it.
import { after, test } from "node:test";
import { usePostgres } from "./contract-store.ts";
import { PostgresServer, postgresMissing } from "./postgres-fixture.ts";

if (postgresMissing) {
  console.log(`skipped: ${postgresMissing}`);
  test("the contract of a store over PostgreSQL", { skip: postgresMissing }, () => undefined);
} else {
  const server = await PostgresServer.start();
  after(() => server.stop());
  usePostgres(server);
  for (const name of ["record-path", "kept", "dropped", "rotation", "registry", "two-writers", "device-states"])
    await import(`./${name}.test.ts`);
}

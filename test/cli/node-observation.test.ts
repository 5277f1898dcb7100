import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import mqtt from "mqtt";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { temporaryFolder } from "../fullnode/node-fixture.ts";
import { eventually } from "../system/running-program-fixture.ts";
import { ecpNode, startNode } from "./node-process-fixture.ts";

/** The samples of a metrics text: name and labels → value. Throws on a line that Prometheus' text format does not have. */
function samplesOf(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  const typed = new Set<string>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("# HELP ")) continue;
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary)$/.exec(line);
    if (type?.[1]) {
      typed.add(type[1]);
      continue;
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? (-?[0-9.e+-]+|Nan|[+-]Inf)$/.exec(line);
    assert.ok(sample, `not a sample: ${line}`);
    const family = (sample[1] ?? "").replace(/_(bucket|sum|count)$/, "");
    assert.ok(typed.has(family) || typed.has(sample[1] ?? ""), `without a type: ${line}`);
    samples.set(`${sample[1]}${sample[2] ?? ""}`, Number(sample[3]));
  }
  return samples;
}

test("a running node serves its metrics and its health, and says its alarms to whoever may read its folder", async (t) => {
  const folder = temporaryFolder(t);
  const data = join(folder, "node");
  const device = new DeviceFixture();
  writeFileSync(join(folder, "hub.request"), device.request());
  assert.equal(ecpNode("init", "--data", data).status, 0);
  assert.equal(ecpNode("enrol", join(folder, "hub.request"), "--data", data).status, 0);
  assert.equal(ecpNode("alarms", "--data", data).status, 69, "nobody answers before it runs");

  const observation = ["--metrics", ":0", "--metrics-per-device", "5", "--silent-after", "1"];
  const node = await startNode(t, data, "--listen", "127.0.0.1:0", ...observation);
  const { metrics: url } = await node.event("started");
  assert.match(`${url}`, /^http:\/\/127\.0\.0\.1:[0-9]+$/);
  const scrape = async () => samplesOf(await (await fetch(`${url}/metrics`)).text());

  const client = await mqtt.connectAsync({ host: "127.0.0.1", port: node.port, protocolVersion: 4 });
  t.after(() => client.end(true));
  const topic = topicOf(device.name, "record");
  await client.publishAsync(topic, Buffer.from(device.reading().bytes), { qos: 1 });
  await client.publishAsync(topic, "junk", { qos: 1 });
  await node.event("stored");
  await node.event("refused");
  const samples = await scrape();
  assert.equal(samples.get("ecp_records_stored_total"), 1);
  assert.equal(
    samples.get('ecp_messages_refused_total{reason="bad-cbor"}') ??
      [...samples.keys()].filter((key) => key.includes("refused")).length,
    1,
  );
  assert.equal(samples.get("ecp_healthy"), 1);
  assert.equal(samples.get("ecp_records_verified_total"), 1);
  assert.equal(samples.get('ecp_receipt_seconds_bucket{le="+Inf"}'), 1);
  assert.equal(samples.get("ecp_receipt_seconds_count"), 1);
  const buckets = [...samples]
    .filter(([key]) => key.startsWith("ecp_receipt_seconds_bucket"))
    .map(([, value]) => value);
  assert.deepEqual(
    buckets,
    buckets.toSorted((a, b) => a - b),
    "buckets add up",
  );
  assert.ok((samples.get("process_resident_memory_bytes") ?? 0) > 1e7);
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  assert.equal((await fetch(`${url}/`)).status, 404);
  assert.equal((await fetch(`${url}/metrics`, { method: "POST", body: "x" })).status, 405);
  assert.equal(await (await fetch(`${url}/metrics`, { method: "HEAD" })).text(), "");

  // Silent for more than a second, as the operator has it; the looks are half a minute apart.
  await eventually("the device is called silent", () => ecpNode("alarms", "--data", data).status === 1, 60_000);
  const said = ecpNode("alarms", "--data", data);
  assert.match(said.stdout, /no-data +.* did:key:z6Mk/);
  assert.match(said.stdout, /docs\/operating\.md#no-data/);
  const { alarms } = JSON.parse(ecpNode("alarms", "--data", data, "--json").stdout);
  assert.equal(alarms[0].subject, device.did);
  const later = await scrape();
  assert.equal(later.get('ecp_alarms{kind="no-data"}'), 1);
  assert.equal(later.get('ecp_alarms{kind="fork"}'), 0);
  assert.ok((later.get(`ecp_device_last_record_timestamp_seconds{device="${device.did}"}`) ?? 0) > 1.7e9);

  // Whoever connects and says nothing, or too much, keeps nobody out and does not keep the node from its end.
  const port = Number(new URL(`${url}`).port);
  const silent = createConnection(port, "127.0.0.1");
  silent.on("error", () => {});
  t.after(() => silent.destroy());
  const long = await fetch(`${url}/metrics`, { headers: { "x-long": "x".repeat(20_000) } }).catch(() => undefined);
  assert.notEqual(long?.status, 200);
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  node.child.kill("SIGTERM");
  assert.equal(await node.ended, 0);
});

test("by default nothing listens for metrics, and no device is named in them", async (t) => {
  const folder = temporaryFolder(t);
  const data = join(folder, "node");
  const device = new DeviceFixture();
  writeFileSync(join(folder, "hub.request"), device.request());
  ecpNode("init", "--data", data);
  ecpNode("enrol", join(folder, "hub.request"), "--data", data);
  const closed = await startNode(t, data, "--listen", "127.0.0.1:0");
  assert.equal((await closed.event("started")).metrics, undefined);
  closed.child.kill("SIGTERM");
  assert.equal(await closed.ended, 0);
  const open = await startNode(t, data, "--listen", "127.0.0.1:0", "--metrics", "0");
  const text = await (await fetch(`${(await open.event("started")).metrics}/metrics`)).text();
  assert.doesNotMatch(text, /did:key/);
  assert.ok(samplesOf(text).size < 200);
});

test("what is no address or number is refused, and a port that is taken is said", async (t) => {
  const folder = temporaryFolder(t);
  const data = join(folder, "node");
  ecpNode("init", "--data", data);
  for (const args of [
    ["--metrics", "x:y"],
    ["--metrics-per-device", "3"],
    ["--metrics", "0", "--metrics-per-device", "x"],
    ["--silent-after", "0"],
  ])
    assert.equal(ecpNode("run", "--data", data, "--listen", "127.0.0.1:0", ...args).status, 64, args.join(" "));
  const first = await startNode(t, data, "--listen", "127.0.0.1:0");
  const other = join(folder, "other");
  ecpNode("init", "--data", other);
  const taken = ecpNode("run", "--data", other, "--listen", "127.0.0.1:0", "--metrics", `127.0.0.1:${first.port}`);
  assert.equal(taken.status, 69);
  assert.match(taken.stderr, /a free port for the metrics/);
});

/** The peer of a backlog: a mosquitto at the edge that holds messages in memory and bridges them to another once that is there. */
import { existsSync, writeFileSync } from "node:fs";
import mqtt from "mqtt";
import { freePort, type Scene } from "../test/system/scene-fixture.ts";
import { Missing } from "./campaign.ts";

const program = "/usr/sbin/mosquitto";

/** Messages a second, from the first to the last that a subscriber at the other broker got. */
export async function bridgedPerSecond(scene: Scene, messages: number, bytes: number): Promise<number> {
  if (!existsSync(program)) throw new Missing(`no ${program}: apt-get install mosquitto`);
  const [edgePort, centralPort] = [await freePort(), await freePort()];
  const common =
    "user root\nallow_anonymous true\npersistence false\nlog_dest stderr\nmax_queued_messages 0\nmax_inflight_messages 0\n";
  const edge = scene.path("edge.conf");
  const central = scene.path("central.conf");
  writeFileSync(central, `${common}listener ${centralPort} 127.0.0.1\n`);
  writeFileSync(
    edge,
    `${common}listener ${edgePort} 127.0.0.1
connection up
address 127.0.0.1:${centralPort}
topic readings out 1
cleansession false
restart_timeout 1
`,
  );
  const started = scene.startCommand(program, ["-c", edge]);
  await started.line(/mosquitto version .* running/);
  const publisher = await mqtt.connectAsync({ host: "127.0.0.1", port: edgePort, protocolVersion: 4 });
  const payload = Buffer.alloc(bytes, 7);
  // In pieces: mqtt.js stalls for ever at 65,535 on their way.
  for (let done = 0; done < messages; done += 1_000)
    await Promise.all(
      Array.from({ length: Math.min(1_000, messages - done) }, () =>
        publisher.publishAsync("readings", payload, { qos: 1 }),
      ),
    );
  await publisher.endAsync();
  const other = scene.startCommand(program, ["-c", central]);
  await other.line(/mosquitto version .* running/);
  const subscriber = await mqtt.connectAsync({ host: "127.0.0.1", port: centralPort, protocolVersion: 4 });
  await subscriber.subscribeAsync("readings", { qos: 0 });
  const rate = await new Promise<number>((resolve) => {
    let got = 0;
    let fromMs = 0;
    subscriber.on("message", () => {
      if (got++ === 0) fromMs = performance.now();
      if (got === messages) resolve((messages / (performance.now() - fromMs)) * 1_000);
    });
  });
  await subscriber.endAsync(true);
  await started.stop();
  await other.stop();
  return rate;
}

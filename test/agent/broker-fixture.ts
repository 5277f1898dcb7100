import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { Aedes } from "aedes";

/** aedes on a port: a broker of MQTT 3.1.1 that can be killed and started again at the same port. */
export class BrokerFixture {
  port = 0;
  aedes = new Aedes();
  connects = 0;
  readonly published: { topic: string; text: string; retain: boolean }[] = [];
  #server: Server | undefined;
  readonly #sockets = new Set<Socket>();
  #news: () => void = () => undefined;
  #onRecord: (text: string) => void = () => undefined;

  /** Called with each record that a client publishes; outlives a restart. */
  onRecord(listener: (text: string) => void): void {
    this.#onRecord = listener;
  }

  static async start(t: TestContext, adjust: (aedes: Aedes) => void = () => undefined): Promise<BrokerFixture> {
    const broker = new BrokerFixture();
    t.after(() => broker.kill());
    await broker.start(adjust);
    return broker;
  }

  async start(adjust: (aedes: Aedes) => void = () => undefined): Promise<void> {
    this.aedes = await Aedes.createBroker();
    adjust(this.aedes);
    this.aedes.on("publish", ({ topic, payload, retain }, client) => {
      const text = payload.toString("latin1");
      if (client) this.published.push({ topic, text, retain });
      if (client && topic.endsWith("/record")) this.#onRecord(text);
      this.#news();
    });
    const server = createServer((socket) => {
      this.connects++;
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket)).on("error", () => undefined);
      this.aedes.handle(socket);
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.port, "127.0.0.1", resolve));
    this.port = (server.address() as AddressInfo).port;
  }

  async kill(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
    await new Promise<void>((resolve) => this.aedes.close(() => resolve()));
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition())
      await new Promise<void>((resolve) => {
        this.#news = resolve;
      });
  }

  send(topic: string, payload: Buffer): void {
    this.aedes.publish({ cmd: "publish", topic, payload, qos: 1, retain: false, dup: false }, () => undefined);
  }
}

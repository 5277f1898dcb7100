/**
 * The control of the campaigns `broker` and `network`: a publisher that forgets a message once the broker has acknowledged it, as most
 * do, or once it was sent (QoS 0), and a subscriber that writes down what comes. What the broker held when it died, or the line, is lost.
 */
import { setTimeout as pause } from "node:timers/promises";
import { connect, type IClientOptions, type MqttClient } from "mqtt";

const topic = "control/record";
const everyMs = 2;
/** The subscriber is back later than the publisher, as it may be: nobody keeps what comes meanwhile. */
const publisherBackMs = 50;
const subscriberBackMs = 200;

export class TrimmingPublisher {
  readonly #options: IClientOptions;
  readonly #received = new Set<number>();
  readonly #acknowledged = new Set<number>();
  readonly #clients: MqttClient[] = [];
  #stopped = false;
  #done: Promise<void> = Promise.resolve();

  readonly #ports: { readonly publisher: number; readonly subscriber: number };
  readonly #qos: 0 | 1;

  constructor(
    ports: { readonly publisher: number; readonly subscriber: number },
    qos: 0 | 1,
    username: string,
    password: string,
  ) {
    this.#ports = ports;
    this.#qos = qos;
    this.#options = { host: "127.0.0.1", username, password, protocolVersion: 5 };
  }

  start(): void {
    // Sessions that outlive a connection: the broker would keep what came meanwhile, had it not died.
    const subscriber = this.#client("control-subscriber", this.#ports.subscriber, subscriberBackMs);
    subscriber.on("connect", () => subscriber.subscribe(topic, { qos: 1 }, () => undefined));
    subscriber.on("message", (_topic, payload) => this.#received.add(Number(payload.toString())));
    this.#done = this.#publish(this.#client("control-publisher", this.#ports.publisher, publisherBackMs));
  }

  #client(clientId: string, port: number, reconnectPeriod: number): MqttClient {
    const session = { clean: false, properties: { sessionExpiryInterval: 3_600 } };
    const client = connect({ ...this.#options, ...session, port, clientId, reconnectPeriod });
    client.on("error", () => undefined);
    this.#clients.push(client);
    return client;
  }

  async #publish(publisher: MqttClient): Promise<void> {
    let number = 0;
    while (!this.#stopped) {
      await pause(everyMs);
      if (!publisher.connected) continue;
      const sent = ++number;
      publisher.publish(topic, `${sent}`, { qos: this.#qos }, (error) => {
        if (!error) this.#acknowledged.add(sent);
      });
    }
  }

  /** Ends, once what is on its way had time to come. Says what was acknowledged, and what of that never came. */
  async stop(): Promise<{ acknowledged: number; lost: number }> {
    this.#stopped = true;
    await this.#done;
    await pause(2_000);
    await Promise.all(this.#clients.map((client) => client.endAsync(true)));
    const lost = [...this.#acknowledged].filter((number) => !this.#received.has(number)).length;
    return { acknowledged: this.#acknowledged.size, lost };
  }
}

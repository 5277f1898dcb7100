import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { WalletClient, WalletUnavailable } from "../../agent/wallet-client.ts";
import { frameOf } from "../../platform/framed-channel.ts";
import { encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { helloFields } from "../../protocol/wallet-hello.ts";
import { encodeAnswer, sealFields, WalletRefusal } from "../../protocol/wallet-message.ts";
import { type Reply, ScriptedWallet, sampleHello } from "./scripted-wallet.ts";
import { socketPath } from "./socket-folder.ts";

const answerTimeoutMs = 100;
const row = { timeS: 1_800_000_000, status: 0, values: [1] };
const sealRequest = { meter: 0, plan: 0, slotS: 1, codes: [1], rows: [row] };

async function meet(t: TestContext, first?: Reply) {
  const wallet = new ScriptedWallet(socketPath(t));
  const states: string[] = [];
  const client = new WalletClient(
    wallet.path,
    (connected, detail = "") => states.push(connected ? "connected" : `disconnected: ${detail}`),
    answerTimeoutMs,
  );
  t.after(async () => {
    client.close();
    await wallet.stop();
  });
  await wallet.start();
  let fresh = true;
  if (first !== undefined)
    wallet.script(() => {
      const reply = fresh ? first : helloFields(sampleHello);
      fresh = false;
      return reply;
    });
  return { wallet, client, states };
}

/** The first request fails as unavailable with this message; the next one, on a new connection, is answered. */
async function failsOnce(t: TestContext, first: Reply, message: RegExp): Promise<void> {
  const { wallet, client, states } = await meet(t, first);
  await assert.rejects(client.hello(), (error) => error instanceof WalletUnavailable && message.test(error.message));
  assert.equal((await client.hello()).epoch, sampleHello.epoch);
  assert.equal(wallet.connections, 2);
  assert.deepEqual(
    states.map((state) => state.split(":")[0]),
    ["connected", "disconnected", "connected"],
  );
}

test("asks and understands the answers", async (t) => {
  const { wallet, client } = await meet(t);
  assert.deepEqual(await client.hello(), sampleHello);
  wallet.script(() => sealFields({ sequences: [5] }));
  assert.deepEqual(await client.seal(sealRequest), { sequences: [5] });
  assert.deepEqual(wallet.requests[1], { type: "seal", ...sealRequest });
  assert.equal(wallet.connections, 1);
});

test("many requests at once go one after the other, each with its own answer", async (t) => {
  const { wallet, client } = await meet(t);
  let open = 0;
  wallet.script((request) => (socket, id) => {
    assert.equal(++open, 1);
    setImmediate(() => {
      open--;
      const sequence = request.type === "seal" ? request.meter : 0;
      socket.write(frameOf(encodeAnswer(id, sealFields({ sequences: [sequence] }))));
    });
  });
  const answers = await Promise.all(Array.from({ length: 20 }, (_, meter) => client.seal({ ...sealRequest, meter })));
  assert.deepEqual(
    answers.map(({ sequences }) => sequences[0]),
    Array.from({ length: 20 }, (_, meter) => meter),
  );
});

test("a refusal is a refusal, with its reason and detail, and the connection stays", async (t) => {
  const { wallet, client } = await meet(t);
  wallet.script(() => new WalletRefusal("ring-full", "3 of 3"));
  await assert.rejects(
    client.seal(sealRequest),
    (error) => error instanceof WalletRefusal && error.reason === "ring-full" && /3 of 3/.test(error.message),
  );
  wallet.script(() => helloFields(sampleHello));
  await client.hello();
  assert.equal(wallet.connections, 1);
});

test("no answer in time: unavailable; the late answer reaches nobody", async (t) => {
  let late: () => boolean = () => false;
  await failsOnce(
    t,
    (socket, id) => {
      late = () => socket.write(frameOf(encodeAnswer(id, helloFields({ ...sampleHello, epoch: 666 }))));
      socket.once("close", () => late());
    },
    /no answer within 100 ms/,
  );
});

test("an answer with another request's id is not taken", (t) =>
  failsOnce(
    t,
    (socket, id) => socket.write(frameOf(encodeAnswer(id + 1, helloFields(sampleHello)))),
    /an answer to \d+, which was not asked/,
  ));

test("an answer that nobody asked for ends the connection, and the next request gets its own", async (t) => {
  const { wallet, client } = await meet(t);
  wallet.script(() => (socket, id) => {
    const answer = frameOf(encodeAnswer(id, helloFields(sampleHello)));
    socket.write(Buffer.concat([answer, answer]));
  });
  assert.equal((await client.hello()).epoch, sampleHello.epoch);
  wallet.script(() => helloFields({ ...sampleHello, epoch: 8 }));
  assert.equal((await client.hello()).epoch, 8);
  assert.equal(wallet.connections, 2);
});

test("a frame that is cut by the wallet's death is no answer", (t) =>
  failsOnce(
    t,
    (socket, id) => socket.end(frameOf(encodeAnswer(id, helloFields(sampleHello))).subarray(0, 20)),
    /the wallet closed the connection/,
  ));

test("garbage is no answer", (t) =>
  failsOnce(t, (socket) => socket.write(frameOf(Buffer.from("no CBOR at all"))), /wallet at .* is not reachable/));

test("a length beyond any message is not waited for", (t) =>
  failsOnce(t, (socket) => socket.write(Buffer.alloc(8, 0xff)), /4294967295 bytes, at most/));

test("well-formed fields that make no sense are no answer either", (t) =>
  failsOnce(
    t,
    (socket, id) => socket.write(frameOf(encodeCbor([id, new Map([[1, 99]])]))),
    /makes no sense: .*wallet protocol 99/,
  ));

test("waits for a wallet that comes later, and for one that comes back", async (t) => {
  const wallet = new ScriptedWallet(socketPath(t));
  const client = new WalletClient(wallet.path);
  t.after(async () => {
    client.close();
    await wallet.stop();
  });
  await assert.rejects(client.hello(), { name: "WalletUnavailable", message: /ENOENT/ });
  const met = client.connected(new AbortController().signal);
  await wallet.start();
  assert.equal((await met).epoch, sampleHello.epoch);
  await wallet.stop();
  await assert.rejects(client.hello(), { name: "WalletUnavailable" });
  await wallet.start();
  assert.equal((await client.hello()).epoch, sampleHello.epoch);
});

test("waiting for a wallet ends when told to", async (t) => {
  const client = new WalletClient(socketPath(t));
  const ending = new AbortController();
  const met = client.connected(ending.signal);
  ending.abort();
  await assert.rejects(met, { name: "AbortError" });
});

test("a request in flight ends with close(), and none opens the connection again", async (t) => {
  const { wallet, client } = await meet(t, () => client.close());
  await assert.rejects(client.hello(), { name: "WalletUnavailable" });
  await assert.rejects(client.hello(), { name: "WalletUnavailable", message: /closed on this side/ });
  assert.equal(wallet.connections, 1);
});

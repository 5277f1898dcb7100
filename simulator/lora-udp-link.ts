/** Gateways and network server over real UDP on this machine: each gateway has a socket of its own, as a packet forwarder has. */
import { createSocket, type Socket } from "node:dgram";
import type { GatewayLink } from "./radio-world.ts";
import { datagramBytesMax } from "./semtech-udp.ts";

export interface UdpLink extends GatewayLink {
  /** Where the server listens: other packet forwarders may send there too. */
  readonly address: string;
  close(): Promise<void>;
}

/** @throws Error where the port is taken. Port 0: any free one; 1700 is what packet forwarders use. */
export async function openUdpLink(host: string, port: number): Promise<UdpLink> {
  const listening = createSocket("udp4");
  await new Promise<void>((resolve, reject) => {
    listening.once("error", reject);
    listening.bind(port, host, () => {
      listening.off("error", reject);
      resolve();
    });
  });
  // A gateway that has gone gives ECONNREFUSED, which is its own matter.
  listening.on("error", () => {});
  const sockets: Socket[] = [listening];
  const { port: boundPort } = listening.address();
  let isOpen = true;
  return {
    address: `${host}:${boundPort}`,
    server: (receive) => {
      listening.on("message", (datagram, from) => {
        if (datagram.length > datagramBytesMax) return;
        receive(Uint8Array.from(datagram), (reply) => {
          if (isOpen) listening.send(reply, from.port, from.address);
        });
      });
    },
    gateway: (receive) => {
      const socket = createSocket("udp4");
      socket.on("error", () => {});
      socket.on("message", (datagram) => receive(Uint8Array.from(datagram)));
      sockets.push(socket);
      return (datagram) => {
        if (isOpen) socket.send(datagram, boundPort, host);
      };
    },
    close: async () => {
      isOpen = false;
      await Promise.all(sockets.map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))));
    },
  };
}

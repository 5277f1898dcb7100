/** The one LoRaWAN device of the simulator, and the applications of its network server: known to all, secret to nobody. */
export const simulatedDevice = {
  devEui: "70b3d57ed0061234",
  joinEui: "70b3d57ed0000001",
  appKey: "00112233445566778899aabbccddeeff",
  name: "hub",
} as const;

/** ChirpStack's are UUIDs, The Things Stack's an application and its tenant. */
export const simulatedApplications = { chirpstack: "7f0c2f3e-7a0b-4d58-9d4c-0c8a3f5a1b2d", tts: "meters@ttn" } as const;

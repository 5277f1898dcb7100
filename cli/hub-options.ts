/** Options that several commands of `ecp` share. */
export const configOption = { config: { type: "string", default: "hub.yaml" } } as const;
export const jsonOption = { json: { type: "boolean", default: false } } as const;

/** What the states of the LoRaWAN uplink mean, for people. */

export const joinSentences = {
  refused: "the network refused to let this device join",
  "no-answer":
    "nothing answered the join request: out of reach, or the AppKey is not the one that the network server has",
  busy: "the modem was busy",
  "duty-cycle": "the modem's own duty cycle kept the join request back",
  "no-keys": "the modem has no keys: run 'ecp lora provision'",
  fault: "the modem failed",
} as const;

export const refusalSentences = {
  busy: "the modem is busy",
  "duty-cycle": "the modem's own count of the duty cycle keeps the frame back",
} as const;

export const budgetSentences = {
  "duty-cycle": "the airtime that the law allows in an hour is used up",
  "fair-use": "the airtime of fair_use_s_per_day is used up",
} as const;

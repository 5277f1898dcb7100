#!/usr/bin/env node
/** ecp: the hub's program. Each command is a file of its own, loaded when used. */
import { WalletUnavailable } from "../agent/wallet-client.ts";
import { version } from "../platform/version.ts";
import { Refusal } from "../protocol/refusal.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { CommandError, exit, type Program, runProgram } from "./command.ts";

const exitHelp = `Exit status
   0  done, or all is well
   1  refused or failed; a meter did not answer; a signature does not hold
   2  the key is not known
  64  wrong usage
  65  damaged data
  66  an input file is missing
  69  a service, socket or port is not available
  73  an output file cannot be made, or is there already
  74  a write failed
  77  permission denied, or a wrong passphrase
  78  the configuration is wrong`;

const program: Program = {
  name: "ecp",
  version,
  intro: "reads meters, has each reading sealed by the wallet, and forwards it to a full node",
  exitHelp,
  commands: {
    init: async () => (await import("./hub-init.ts")).hubInit,
    "config check": async () => (await import("./hub-config.ts")).hubConfigCheck,
    "config apply": async () => (await import("./hub-config.ts")).hubConfigApply,
    scan: async () => (await import("./hub-scan.ts")).hubScan,
    doctor: async () => (await import("./hub-doctor.ts")).hubDoctor,
    read: async () => (await import("./hub-read.ts")).hubRead,
    plan: async () => (await import("./hub-plan.ts")).hubPlan,
    "lora plan": async () => (await import("./hub-lora-plan.ts")).hubLoraPlan,
    "lora provision": async () => (await import("./hub-lora-provision.ts")).hubLoraProvision,
    sunspec: async () => (await import("./hub-sunspec.ts")).hubSunspec,
    "profile list": async () => (await import("./hub-profile.ts")).hubProfileList,
    "profile show": async () => (await import("./hub-profile.ts")).hubProfileShow,
    "profile check": async () => (await import("./hub-profile.ts")).hubProfileCheck,
    enrol: async () => (await import("./hub-enrol.ts")).hubEnrol,
    pin: async () => (await import("./hub-enrol.ts")).hubPin,
    run: async () => (await import("./hub-run.ts")).hubRun,
    agent: async () => (await import("./hub-agent.ts")).hubAgent,
    release: async () => (await import("./hub-release.ts")).hubRelease,
    status: async () => (await import("./hub-status.ts")).hubStatus,
    statement: async () => (await import("./hub-statement.ts")).hubStatement,
    "meter replaced": async () => (await import("./hub-meter.ts")).hubMeterReplaced,
    export: async () => (await import("./hub-export.ts")).hubExport,
    verify: async () => (await import("./hub-verify.ts")).hubVerify,
  },
  explain: (error) => {
    const text = (expected: string, where: string, todo: string) => ({
      expected,
      got: (error as Error).message,
      where,
      todo,
    });
    if (error instanceof WalletUnavailable)
      return new CommandError(exit.unavailable, text("a wallet that answers", "the wallet's socket", "ecp status"));
    if (error instanceof WalletRefusal) {
      const todo =
        error.reason === "period-not-held"
          ? "choose a period that is sealed at both ends: 'ecp-wallet journal list' shows what is; the last minute may not be yet"
          : "ecp status";
      return new CommandError(exit.failed, text("the wallet to agree", "the wallet", todo));
    }
    if (error instanceof Refusal)
      return new CommandError(
        exit.badData,
        text("data of this protocol", "a file or message", "check where it comes from"),
      );
    return undefined;
  },
};

void runProgram(program, process.argv.slice(2));

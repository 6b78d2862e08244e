// Prints what the compiled `protocol/roomkeeper.ts` says of the tables, as one JSON value.
//
//   node protocol/tables.mjs --module /some/where/roomkeeper.js

import { pathToFileURL } from "node:url";
import { options, print } from "../client.mjs";

const { module } = options({ module: "" });
const protocol = await import(pathToFileURL(module));
const numbers = Array.from({ length: 5000 }, (_, number) => number);

print({
  version: protocol.PROTOCOL_VERSION,
  errors: protocol.ErrorCode,
  closes: protocol.CloseCode,
  limits: protocol.Limits,
  temporary: protocol.TEMPORARY_ERRORS,
  reconnect: numbers.filter(protocol.shouldReconnect),
});

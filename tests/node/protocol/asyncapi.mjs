// Reads an AsyncAPI document with the parser of those who made AsyncAPI.
//
//   node protocol/asyncapi.mjs --file ../../protocol/asyncapi.json
//
// Prints how many messages and operations it has as a JSON line; ends with 1 when it is not valid.

import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import { fail, options, print } from "../client.mjs";

const { file } = options({ file: "" });
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));

// 0 is an error, 1 a warning; below that it is advice, like to use a later version of AsyncAPI.
const faults = diagnostics.filter((diagnostic) => diagnostic.severity <= 1);
if (document === undefined || faults.length > 0) {
  fail(faults.map(({ code, path, message }) => `${code} at ${path.join(".")}: ${message}`).join("\n"));
}

print({
  version: document.version(),
  addresses: document.channels().all().map((channel) => channel.address()),
  messages: document.messages().all().map((message) => message.id()),
  operations: document.operations().all().map((operation) => operation.id()),
});

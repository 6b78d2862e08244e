// An identity provider for tests: publishes RSA keys as a JSON Web Key Set and signs tokens with
// them, by Node's own cryptography. Prints its address as one line and serves until it is killed.
//
//   node issuer.mjs [CERTIFICATE KEY]
//
// With the files of a certificate and its key it serves the same over TLS, too, and prints that address as a
// second line.
//
//   GET /keys                 the key set, in the current mode; counted
//   GET /token?user=ann       a token signed with the newest key (&kid=… names another key instead)
//   GET /rotate               a new key; &keep=1 publishes the old ones too
//   GET /mode?is=ok|down|html|huge|redirect
//   GET /next                 answers when /keys has been asked for once more
//   GET /fetches              how often /keys was asked for

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createSign, generateKeyPairSync } from "node:crypto";

const keys = [];
let mode = "ok";
let fetches = 0;
let waiting = [];

function addKey(keep) {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const kid = `key-${keys.length + 1}`;
  if (!keep) for (const key of keys) key.published = false;
  keys.push({ kid, publicKey, privateKey, published: true });
  return kid;
}

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function token(user, kid) {
  const key = keys.at(-1);
  const now = Math.floor(Date.now() / 1000);
  const header = { alg: "RS256", typ: "JWT", kid: kid ?? key.kid };
  const claims = {
    sub: user,
    iss: "issuer",
    aud: "roomkeeper",
    iat: now,
    exp: now + 3600,
    rooms: [{ pattern: "chat:*", allow: ["subscribe", "publish"] }],
  };
  const content = `${part(header)}.${part(claims)}`;
  const signature = createSign("RSA-SHA256").update(content).sign(key.privateKey, "base64url");
  return `${content}.${signature}`;
}

function keySet() {
  return keys
    .filter((key) => key.published)
    .map((key) => ({ ...key.publicKey.export({ format: "jwk" }), kid: key.kid, use: "sig" }));
}

function publish(answer) {
  fetches += 1;
  answer.on("close", () => {
    for (const say of waiting) say();
    waiting = [];
  });
  if (mode === "down") return answer.writeHead(503).end();
  if (mode === "redirect") return answer.writeHead(302, { location: "file:///etc/passwd" }).end();
  if (mode === "html") return answer.writeHead(200, { "content-type": "text/html" }).end("<html>");
  if (mode === "huge") return answer.writeHead(200).end(Buffer.alloc(4 << 20, 0x20));
  answer.writeHead(200, { "content-type": "application/json" });
  answer.end(JSON.stringify({ keys: keySet() }));
}

addKey(false);
function serve(request, answer) {
  const url = new URL(request.url, "http://issuer");
  const say = (text) => {
    const body = Buffer.from(String(text));
    answer.writeHead(200, { "content-length": body.length }).end(body);
  };
  switch (url.pathname) {
    case "/keys":
      return publish(answer);
    case "/token":
      return say(token(url.searchParams.get("user"), url.searchParams.get("kid") ?? undefined));
    case "/rotate":
      return say(addKey(url.searchParams.get("keep") === "1"));
    case "/mode":
      mode = url.searchParams.get("is");
      return say(mode);
    case "/next":
      return waiting.push(() => say("asked"));
    case "/fetches":
      return say(fetches);
    default:
      return answer.writeHead(404).end();
  }
}

const [cert, key] = process.argv.slice(2).map((file) => readFileSync(file));
const server = createServer(serve).listen(0, "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
  if (cert === undefined) return;
  const sealed = createTlsServer({ cert, key }, serve).listen(0, "127.0.0.1", () => {
    console.log(`https://localhost:${sealed.address().port}`);
  });
});

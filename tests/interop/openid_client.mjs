// An OAuth client that refreshes, asks and revokes with openid-client. See tests/auth_server/standards.rs.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

// Modules are looked for beside this file, and openid-client is installed elsewhere.
const found = createRequire(`${process.env.INTEROP_DIR}/`).resolve('openid-client');
const client = await import(pathToFileURL(found));

const request = JSON.parse(readFileSync(0, 'utf8'));
const methods = {
  client_secret_basic: client.ClientSecretBasic,
  client_secret_post: client.ClientSecretPost,
};
const configuration = await client.discovery(
  new URL(request.url),
  request.client_id,
  undefined,
  methods[request.method](request.client_secret),
  // The server under test has no certificate.
  { algorithm: 'oauth2', execute: [client.allowInsecureRequests] },
);
const tokens = await client.refreshTokenGrant(configuration, request.refresh_token);
const isActive = async (token) => (await client.tokenIntrospection(configuration, token)).active;
const both = async () => [await isActive(tokens.access_token), await isActive(tokens.refresh_token)];
const before = await both();
await client.tokenRevocation(configuration, tokens.refresh_token);
const after = await both();
console.log(JSON.stringify({ access_token: tokens.access_token, token_type: tokens.token_type, before, after }));

// An OAuth client that refreshes and revokes with AppAuth. See tests/auth_server/standards.rs.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

// Modules are looked for beside this file, and AppAuth is installed elsewhere.
const require = createRequire(`${process.env.INTEROP_DIR}/`);
const appauth = require('@openid/appauth');
const { NodeRequestor } = require('@openid/appauth/built/node_support/node_requestor.js');

const { url, client_id, client_secret, refresh_token } = JSON.parse(readFileSync(0, 'utf8'));
const requestor = new NodeRequestor();
const configuration = await appauth.AuthorizationServiceConfiguration.fetchFromIssuer(url, requestor);
const handler = new appauth.BaseTokenRequestHandler(requestor);
const tokens = await handler.performTokenRequest(
  configuration,
  new appauth.TokenRequest({
    client_id,
    redirect_uri: '',
    grant_type: appauth.GRANT_TYPE_REFRESH_TOKEN,
    refresh_token,
    extras: { client_secret },
  }),
);
const revoked = await handler.performRevokeTokenRequest(
  configuration,
  new appauth.RevokeTokenRequest({
    client_id,
    client_secret,
    token: tokens.refreshToken,
    token_type_hint: 'refresh_token',
  }),
);
console.log(JSON.stringify({ access_token: tokens.accessToken, token_type: tokens.tokenType, revoked }));

// Mints and verifies tokens with jose. See tests/interop.rs.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

// Modules are looked for beside this file, and jose is installed elsewhere.
const found = createRequire(`${process.env.INTEROP_DIR}/`).resolve('jose');
const jose = await import(pathToFileURL(found));

async function mint(alg, claims, typ = 'JWT') {
  const kid = `jose-${alg}`;
  let privateKey, publicKey;
  if (alg.startsWith('HS')) {
    privateKey = publicKey = await jose.generateSecret(alg, { extractable: true });
  } else {
    ({ privateKey, publicKey } = await jose.generateKeyPair(alg, { extractable: true }));
  }
  const token = await new jose.SignJWT(claims).setProtectedHeader({ alg, kid, typ }).sign(privateKey);
  const jwk = async (key) => ({ ...(await jose.exportJWK(key)), kid, alg });
  return { alg, token, private: await jwk(privateKey), public: await jwk(publicKey) };
}

async function verify({ alg, token, public: jwk, iss, aud }) {
  const key = await jose.importJWK(jwk, alg);
  const options = { algorithms: [alg], issuer: iss, audience: aud, typ: 'at+jwt', requiredClaims: ['exp', 'jti'] };
  return (await jose.jwtVerify(token, key, options)).payload.sub;
}

const request = JSON.parse(readFileSync(0, 'utf8'));
const answer = [];
if (request.do === 'mint') {
  for (const alg of request.algs) answer.push(await mint(alg, request.claims, request.typ));
} else {
  for (const each of request.cases) answer.push(await verify(each));
}
console.log(JSON.stringify(answer));

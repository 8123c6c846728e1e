// A service with a blocklist of its own, written with node-redis. See tests/foreign.rs.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

// Modules are looked for beside this file, and redis is installed elsewhere.
const redis = createRequire(`${process.env.INTEROP_DIR}/`)('redis');

async function connect(to) {
  const nodes = (addresses) => addresses.map(([host, port]) => ({ host, port }));
  if (to.cluster) {
    const rootNodes = nodes(to.cluster).map(({ host, port }) => ({ url: `redis://${host}:${port}` }));
    return redis.createCluster({ rootNodes }).connect();
  }
  if (to.sentinels) {
    return redis.createSentinel({ name: to.service, sentinelRootNodes: nodes(to.sentinels) }).connect();
  }
  return redis.createClient({ url: to.url }).connect();
}

const hashOf = (token) => createHash('sha256').update(token).digest('hex');

// What the logout of this service does.
async function revoke(client, layout, { text, jti, fid }, PX) {
  switch (layout) {
    case 'plain_jti':
      return client.set(jti, '', { PX });
    case 'blacklisted_token':
      return client.set(`blacklist:${text}`, '1', { PX });
    case 'revoked_token_sha256':
      await client.set(`access_token:${hashOf(text)}`, jti, { PX });
      return client.set(`revoked:${hashOf(text)}`, '1', { PX });
    case 'blacklisted_jti_json':
      return client.set(`token:blacklist:${jti}`, JSON.stringify({ reason: 'stolen', user_id: 42 }), { PX });
    case 'token_family_json':
      return client.set(`token:family:${fid}`, JSON.stringify({ revoked_at: Date.now(), reason: null }), { PX });
    case 'revoked_families':
      return client.sAdd('token:revoked_families', fid);
    default:
      throw new Error(layout);
  }
}

// What the check of this service does.
async function isRevoked(client, layout, { text, jti, fid }) {
  switch (layout) {
    case 'plain_jti':
      return (await client.get(jti)) !== null;
    case 'blacklisted_token':
      return Boolean(await client.get(`blacklist:${text}`));
    case 'revoked_token_sha256':
      return (await client.get(`revoked:${hashOf(text)}`)) === '1';
    case 'blacklisted_jti_json':
      return Boolean(JSON.parse(await client.get(`token:blacklist:${jti}`))?.reason);
    case 'token_family_json':
      return Boolean(JSON.parse(await client.get(`token:family:${fid}`))?.revoked_at);
    case 'revoked_families':
      return Boolean(await client.sIsMember('token:revoked_families', fid));
    default:
      throw new Error(layout);
  }
}

const { to, layout, token, ttl_ms: ttl, do: what } = JSON.parse(readFileSync(0, 'utf8'));
const client = await connect(to);
const answer = what === 'revoke' ? await revoke(client, layout, token, ttl) : await isRevoked(client, layout, token);
process.stdout.write(JSON.stringify(answer ?? null));
await client.destroy();

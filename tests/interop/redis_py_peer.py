"""A service with a blocklist of its own, written with redis-py. See tests/foreign.rs."""
import hashlib
import json
import sys

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel


def connect(to):
    if "cluster" in to:
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in to["cluster"]])
    if "sentinels" in to:
        return Sentinel([tuple(address) for address in to["sentinels"]]).master_for(to["service"])
    return redis.Redis.from_url(to["url"])


def hash_of(token):
    return hashlib.sha256(token.encode()).hexdigest()


def revoke(r, layout, token, ttl_ms):
    """What the logout of this service does."""
    text, jti, fid = token["text"], token["jti"], token["fid"]
    if layout == "plain_jti":
        r.set(name=jti, value="", px=ttl_ms)
    elif layout == "blacklisted_token":
        r.psetex(f"blacklist:{text}", ttl_ms, "blacklisted")
    elif layout == "revoked_token_sha256":
        r.set(f"access_token:{hash_of(text)}", jti, px=ttl_ms)
        r.set(f"revoked:{hash_of(text)}", "1", px=ttl_ms)
    elif layout == "blacklisted_jti_json":
        entry = {"blacklisted_at": "2026-01-01T00:00:00", "reason": "stolen", "user_id": "42"}
        r.set(f"token:blacklist:{jti}", json.dumps(entry), px=ttl_ms)
    elif layout == "token_family_json":
        r.set(f"token:family:{fid}", json.dumps({"revoked_at": "2026-01-01T00:00:00", "family_id": fid}), px=ttl_ms)
    elif layout == "revoked_families":
        r.sadd("token:revoked_families", fid)
    else:
        raise ValueError(layout)


def is_revoked(r, layout, token):
    """What the check of this service does."""
    text, jti, fid = token["text"], token["jti"], token["fid"]
    if layout == "plain_jti":
        return r.get(jti) is not None
    if layout == "blacklisted_token":
        return r.get(f"blacklist:{text}") is not None
    if layout == "revoked_token_sha256":
        return r.get(f"revoked:{hash_of(text)}") == b"1"
    if layout == "blacklisted_jti_json":
        entry = r.get(f"token:blacklist:{jti}")
        return entry is not None and bool(json.loads(entry)["reason"])
    if layout == "token_family_json":
        entry = r.get(f"token:family:{fid}")
        return entry is not None and "revoked_at" in json.loads(entry)
    if layout == "revoked_families":
        return bool(r.sismember("token:revoked_families", fid))
    raise ValueError(layout)


request = json.load(sys.stdin)
client = connect(request["to"])
if request["do"] == "revoke":
    answer = revoke(client, request["layout"], request["token"], request["ttl_ms"])
else:
    answer = is_revoked(client, request["layout"], request["token"])
json.dump(answer, sys.stdout)

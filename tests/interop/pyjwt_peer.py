"""Mints and verifies tokens with PyJWT. See tests/interop.rs."""
import json
import sys

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm


def pair(alg):
    """A new key: what signs, and the private and the public JWK."""
    if alg.startswith("HS"):
        secret = bytes(range(int(alg[2:]) // 8))
        jwk = HMACAlgorithm.to_jwk(secret, as_dict=True)
        return secret, jwk, dict(jwk)
    if alg.startswith(("RS", "PS")):
        key, kind = rsa.generate_private_key(65537, 2048), RSAAlgorithm
    elif alg.startswith("ES"):
        key, kind = ec.generate_private_key(ec.SECP256R1() if alg == "ES256" else ec.SECP384R1()), ECAlgorithm
    else:
        key, kind = ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm
    return key, kind.to_jwk(key, as_dict=True), kind.to_jwk(key.public_key(), as_dict=True)


def mint(alg, claims, typ=None):
    key, private, public = pair(alg)
    for jwk in (private, public):
        jwk.pop("key_ops", None)
        jwk.update(kid=f"pyjwt-{alg}", alg=alg)
    headers = {"kid": f"pyjwt-{alg}", **({"typ": typ} if typ else {})}
    token = jwt.encode(claims, key, algorithm=alg, headers=headers)
    return {"alg": alg, "private": private, "public": public, "token": token}


def verify(case):
    key = jwt.PyJWK(case["public"], algorithm=case["alg"])
    options = {"require": ["exp", "iat", "iss", "aud", "sub", "jti"]}
    claims = jwt.decode(
        case["token"], key, algorithms=[case["alg"]], audience=case["aud"], issuer=case["iss"], options=options
    )
    return claims["sub"]


request = json.load(sys.stdin)
if request["do"] == "mint":
    answer = [mint(alg, request["claims"], request.get("typ")) for alg in request["algs"]]
else:
    answer = [verify(case) for case in request["cases"]]
json.dump(answer, sys.stdout)

"""Mints and verifies tokens with joserfc. See tests/interop.rs."""
import json
import sys

from joserfc import jwk, jwt


def pair(alg):
    if alg.startswith("HS"):
        return jwk.OctKey.generate_key(int(alg[2:]))
    if alg.startswith(("RS", "PS")):
        return jwk.RSAKey.generate_key(2048)
    if alg.startswith("ES"):
        return jwk.ECKey.generate_key("P-256" if alg == "ES256" else "P-384")
    return jwk.OKPKey.generate_key("Ed25519")


def mint(alg, claims):
    key = pair(alg)
    private, public = key.as_dict(private=True), key.as_dict(private=alg.startswith("HS"))
    for one in (private, public):
        one.update(kid=f"joserfc-{alg}", alg=alg, use="sig")
    header = {"alg": alg, "kid": f"joserfc-{alg}", "typ": "at+jwt"}
    return {
        "alg": alg,
        "private": private,
        "public": public,
        "token": jwt.encode(header, claims, key, algorithms=[alg]),
    }


def verify(case):
    key = jwk.import_key(case["public"])
    token = jwt.decode(case["token"], key, algorithms=[case["alg"]])
    assert token.header["typ"] == "at+jwt"
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": case["iss"]},
        aud={"essential": True, "value": case["aud"]},
        exp={"essential": True},
        jti={"essential": True},
    ).validate(token.claims)
    return token.claims["sub"]


request = json.load(sys.stdin)
if request["do"] == "mint":
    answer = [mint(alg, request["claims"]) for alg in request["algs"]]
else:
    answer = [verify(case) for case in request["cases"]]
json.dump(answer, sys.stdout)

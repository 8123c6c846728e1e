"""An OAuth client that refreshes, asks and revokes with authlib. See tests/auth_server/standards.rs."""
import json
import os
import sys

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # the server under test has no certificate

import requests
from authlib.integrations.requests_client import OAuth2Session

request = json.load(sys.stdin)
metadata = requests.get(request["url"] + "/.well-known/oauth-authorization-server", timeout=30).json()
assert metadata["issuer"] == request["url"], metadata
session = OAuth2Session(
    request["client_id"],
    request["client_secret"],
    token_endpoint_auth_method=request["method"],
    revocation_endpoint_auth_method=request["method"],
)
tokens = session.refresh_token(metadata["token_endpoint"], refresh_token=request["refresh_token"])


def is_active(token):
    answer = session.introspect_token(metadata["introspection_endpoint"], token=token)
    answer.raise_for_status()
    return answer.json()["active"]


before = [is_active(tokens["access_token"]), is_active(tokens["refresh_token"])]
session.revoke_token(metadata["revocation_endpoint"], token=tokens["refresh_token"]).raise_for_status()
after = [is_active(tokens["access_token"]), is_active(tokens["refresh_token"])]
answer = {"access_token": tokens["access_token"], "token_type": tokens["token_type"], "before": before, "after": after}
json.dump(answer, sys.stdout)

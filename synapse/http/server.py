"""The door to the HTTP layer for endpoints and for the app: what they use, by one name."""

from synapse.http.answers import Answer, FileAnswer, Json, RawJson, encode_json, redirect
from synapse.http.drain import Drain
from synapse.http.request import BodyStream, Handler, RawRequest, Request, Requester
from synapse.http.router import Authenticator, RateLimiter, Router, access_token, serves

__all__ = [
    "Answer",
    "Authenticator",
    "BodyStream",
    "Drain",
    "FileAnswer",
    "Handler",
    "Json",
    "RateLimiter",
    "RawJson",
    "RawRequest",
    "Request",
    "Requester",
    "Router",
    "access_token",
    "encode_json",
    "redirect",
    "serves",
]

"""A SAML 2 identity provider: pysaml2's own, with signatures by xmlsec. Whoever comes to `/sso` is logged in at once.

The answer is a page with the form that a browser would post. Behaviour: `sp_metadata` (what it knows of the service
provider), `attributes`, `signs` (of "response" and "assertion"), `key` ("other": one that the metadata does not have),
`method` (of the signature), `before` and `after` (regular expressions and what to put in their place, before and after
signing), `encrypts` (whether the assertion is encrypted for the service provider). `/unsolicited` answers
nothing, or what another provider was asked.
"""

from __future__ import annotations

import base64
import datetime
import html
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from lxml import etree
from saml2 import BINDING_HTTP_REDIRECT
from saml2.config import IdPConfig
from saml2.metadata import create_metadata_string
from saml2.saml import NAME_FORMAT_URI
from saml2.server import Server

sys.path.insert(0, str(Path(__file__).parent))

from base import Handler, serve

ASSERTION = "{urn:oasis:names:tc:SAML:2.0:assertion}"
PROTOCOL = "{urn:oasis:names:tc:SAML:2.0:protocol}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
FILES = Path(tempfile.mkdtemp())
URL = ""


def make_key(name: str) -> None:
    """`name.key` and `name.crt`, PEM."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    (FILES / f"{name}.key").write_bytes(key.private_bytes(pem, *private))
    (FILES / f"{name}.crt").write_bytes(certificate.public_bytes(pem))


def config(sp_metadata: str | None = None) -> Any:
    settings: dict[str, Any] = {
        "entityid": f"{URL}/metadata",
        "crypto_backend": "XMLSecurity",  # only to keep it from looking for a program: nothing is signed by it
        "key_file": str(FILES / "good.key"),
        "cert_file": str(FILES / "good.crt"),
        "service": {
            "idp": {
                "endpoints": {"single_sign_on_service": [(f"{URL}/sso", BINDING_HTTP_REDIRECT)]},
                "policy": {"default": {"lifetime": {"minutes": 15}, "name_form": NAME_FORMAT_URI}},
            }
        },
    }
    if sp_metadata is not None:
        settings["metadata"] = {"inline": [sp_metadata]}
    return IdPConfig().load(settings)


def sign(element: Any, key: str, method: str) -> None:
    """Puts a signature into an element, behind its issuer."""
    transform = getattr(xmlsec.constants, f"Transform{method}")
    signature = xmlsec.template.create(element, xmlsec.constants.TransformExclC14N, transform)
    element.insert(1, signature)
    digest = xmlsec.constants.TransformSha1 if method.endswith("1") else xmlsec.constants.TransformSha256
    reference = xmlsec.template.add_reference(signature, digest, uri="#" + element.get("ID"))
    xmlsec.template.add_transform(reference, xmlsec.constants.TransformEnveloped)
    xmlsec.template.add_transform(reference, xmlsec.constants.TransformExclC14N)
    info = xmlsec.template.ensure_key_info(signature)
    xmlsec.template.add_x509_data(info)
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(FILES / f"{key}.key"), xmlsec.constants.KeyDataFormatPem)
    context.key.load_cert_from_file(str(FILES / f"{key}.crt"), xmlsec.constants.KeyDataFormatPem)
    context.register_id(element, "ID")
    context.sign(signature)


def encrypt(response: Any, certificate: str) -> None:
    """Puts the assertion, encrypted for the holder of a certificate (PEM), in place of itself."""
    assertion = response.find(f"{ASSERTION}Assertion")
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(certificate, xmlsec.constants.KeyDataFormatCertPem))
    response.remove(assertion)
    alone = etree.Element("alone")  # so that the assertion has all its namespaces with it
    alone.append(etree.fromstring(etree.tostring(assertion)))
    template = xmlsec.template.encrypted_data_create(
        alone, xmlsec.constants.TransformAes128Cbc, type=xmlsec.constants.TypeEncElement, ns="xenc"
    )
    xmlsec.template.encrypted_data_ensure_cipher_value(template)
    info = xmlsec.template.encrypted_data_ensure_key_info(template, ns="ds")
    encrypted_key = xmlsec.template.add_encrypted_key(info, xmlsec.constants.TransformRsaOaep)
    xmlsec.template.encrypted_data_ensure_cipher_value(encrypted_key)
    context = xmlsec.EncryptionContext(manager)
    context.key = xmlsec.Key.generate(xmlsec.constants.KeyDataAes, 128, xmlsec.constants.KeyDataTypeSession)
    context.encrypt_xml(template, alone[0])
    etree.SubElement(response, f"{ASSERTION}EncryptedAssertion").append(alone[0])


class SamlIdp(Handler):
    """The provider."""

    def answer(self, path: str, query: dict[str, str], form: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if path == "/metadata":
            return 200, {"Content-Type": "application/xml"}, create_metadata_string(None, config=config())
        idp = Server(config=config(self.behaviour["sp_metadata"]))
        if path == "/sso":
            request = idp.parse_authn_request(query["SAMLRequest"], BINDING_HTTP_REDIRECT)
            asked = idp.response_args(request.message)
        else:
            (sp,) = idp.metadata.with_descriptor("spsso")
            asked = {
                "in_response_to": query.get("in_response_to"),
                "sp_entity_id": sp,
                "destination": query["destination"],
            }
        xml = self._response(idp, asked)
        fields = {"SAMLResponse": base64.b64encode(xml.encode()).decode(), "RelayState": query["RelayState"]}
        inputs = "".join(f'<input name="{name}" value="{html.escape(value)}">' for name, value in fields.items())
        page = f'<form method="post" action="{html.escape(asked["destination"])}">{inputs}</form>'
        return 200, {"Content-Type": "text/html"}, page.encode()

    def _response(self, idp: Any, asked: dict[str, Any]) -> str:
        wanted = {name: asked[name] for name in ("in_response_to", "sp_entity_id", "destination")}
        made = idp.create_authn_response(
            self.behaviour.get("attributes", {"uid": "alice"}),
            userid="somebody",
            authn={"class_ref": "urn:oasis:names:tc:SAML:2.0:ac:classes:Password", "authn_auth": URL},
            sign_response=False,
            sign_assertion=False,
            **wanted,
        )
        text = self._changed(str(made), "before")
        root = etree.fromstring(text.encode())
        key, method = self.behaviour.get("key", "good"), self.behaviour.get("method", "RsaSha256")
        signs = self.behaviour.get("signs", ["response"])
        if "assertion" in signs:
            sign(root.find(f"{ASSERTION}Assertion"), key, method)
        if self.behaviour.get("encrypts"):
            metadata = etree.fromstring(self.behaviour["sp_metadata"].encode())
            (certificate, *_) = [one.text for one in metadata.iter(f"{DS}X509Certificate")]
            pem = f"-----BEGIN CERTIFICATE-----\n{certificate.strip()}\n-----END CERTIFICATE-----\n"
            encrypt(root, pem)
        if "response" in signs:
            sign(root, key, method)
        return self._changed(etree.tostring(root, encoding="unicode"), "after")

    def _changed(self, text: str, when: str) -> str:
        for pattern, replacement in self.behaviour.get(when, []):
            text, count = re.subn(pattern, replacement, text, flags=re.DOTALL)
            assert count, f"nothing to change: {pattern}"
        return text


def begin(url: str) -> None:
    global URL
    URL = url
    for name in ("good", "other"):
        make_key(name)


if __name__ == "__main__":
    serve(SamlIdp, begin)

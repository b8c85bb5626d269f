"""Signatures and encryption of SAML messages, for pysaml2: by libxmlsec in this process.

pysaml2 would start the program `xmlsec1` for each message, which most machines do not have. It looks at what is signed
(one reference, to the element that holds the signature); whether the signature is that of a certificate is said here.

XML Signature Syntax and Processing; SAML core, "5 SAML and XML Signature Syntax and Processing".
"""

from __future__ import annotations

from typing import Any, Final

import xmlsec
from lxml import etree
from saml2.sigver import CryptoBackend, DecryptError, SignatureError

_DS: Final = "http://www.w3.org/2000/09/xmldsig#"
_MORE: Final = "http://www.w3.org/2001/04/xmldsig-more#"
_ENC: Final = "http://www.w3.org/2001/04/xmlenc#"
_XML_ID: Final = "{http://www.w3.org/XML/1998/namespace}id"
# Nothing by SHA-1, of which others can make two documents with one signature, and nothing by a shared secret.
METHODS: Final = frozenset(f"{_MORE}{kind}-sha{bits}" for kind in ("rsa", "ecdsa") for bits in (256, 384, 512))
DIGESTS: Final = frozenset((f"{_ENC}sha256", f"{_MORE}sha384", f"{_ENC}sha512"))


class NotSigned(SignatureError):  # type: ignore[misc]  # pysaml2 has no types
    """A document of which nobody has signed anything; the message says nothing about people."""


class InProcess(CryptoBackend):  # type: ignore[misc]  # pysaml2 has no types
    """What pysaml2 asks of a crypto backend, as far as a service provider needs it. Raises pysaml2's errors."""

    def validate_signature(
        self, signedtext: str | bytes, cert_file: str, cert_type: str, node_name: str, node_id: str
    ) -> bool:
        """Whether the element `node_name` (`namespace:name`) with that ID holds a signature of it by the certificate.

        Raises `NotSigned` for a document of which it cannot be told what is signed.
        """
        if cert_type != "pem":
            raise NotSigned(f"it would need a certificate of the type {cert_type}")
        node = _only([one for one in parsed(signedtext).iter(etree.Element) if one.get("ID") == node_id])
        namespace, _, name = node_name.rpartition(":")
        if node.tag != f"{{{namespace}}}{name}":
            raise NotSigned("the signature is of another element")
        signature = _only(node.findall(f"{{{_DS}}}Signature"))
        _check_methods(signature)
        context = xmlsec.SignatureContext()
        try:
            context.key = xmlsec.Key.from_file(cert_file, xmlsec.constants.KeyDataFormatCertPem)
            context.register_id(node, "ID")
            context.verify(signature)
        except xmlsec.Error:
            return False
        return True

    def decrypt(self, enctext: str | bytes, key_file: str) -> str:
        """The document with what is encrypted in it for the key, once, decrypted. Raises `DecryptError`."""
        root = parsed(enctext)
        encrypted = next(root.iter(f"{{{_ENC}}}EncryptedData"), None)
        if encrypted is None:
            raise DecryptError("nothing is encrypted")
        manager = xmlsec.KeysManager()
        try:
            manager.add_key(xmlsec.Key.from_file(key_file, xmlsec.constants.KeyDataFormatPem))
            xmlsec.tree.add_ids(root, ["Id"])
            xmlsec.EncryptionContext(manager).decrypt(encrypted)
        except xmlsec.Error as error:
            raise DecryptError("it is encrypted for another key") from error
        return str(etree.tostring(root, encoding="unicode"))


def parsed(text: str | bytes) -> Any:
    """The document's root. Raises `NotSigned` for what is no XML, or has a document type or IDs of its own."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(text.encode() if isinstance(text, str) else text, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise NotSigned("it is no XML") from error
    about = root.getroottree().docinfo
    if about.internalDTD is not None or any(_XML_ID in one.attrib for one in root.iter("*")):
        raise NotSigned("it is no SAML message, as it says itself what its IDs or entities are")
    if (about.encoding or "utf-8").lower() not in ("utf-8", "ascii"):
        raise NotSigned("it is in an encoding that may be read in two ways")
    return root


def _only(found: list[Any]) -> Any:
    if len(found) != 1:
        raise NotSigned("there is not one element that is signed")
    return found[0]


def _check_methods(signature: Any) -> None:
    methods = {one.get("Algorithm") for one in signature.iter(f"{{{_DS}}}SignatureMethod")}
    digests = {one.get("Algorithm") for one in signature.iter(f"{{{_DS}}}DigestMethod")}
    if not methods or not digests or not methods <= METHODS or not digests <= DIGESTS:
        raise NotSigned("it is signed in a way that proves nothing")

"""The TLS context of the interface, from certificate files.

Reads files when it is asked to, and does nothing else: what a connection does with the context is the event loop's.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from procman.errors import ConfigurationError
from procman.settings import InterfaceSettings


def build_context(settings: InterfaceSettings) -> ssl.SSLContext | None:
    """What connections are encrypted with, None if no certificate is named. TLS 1.2 at least, HTTP/1.1.

    Raises:
        ConfigurationError: a file is missing or is not what it should be, or one is named without the certificate.
    """
    others = [settings.ssl_keyfile, settings.ssl_ca_certs, settings.ssl_password_file]
    if not settings.ssl_certfile:
        if any(others):
            raise ConfigurationError("--ssl-certfile is missing: TLS needs the certificate, too")
        return None
    for path in (settings.ssl_certfile, *others):
        if path and not Path(path).is_file():
            raise ConfigurationError(f"TLS: there is no file {path}")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Always given: without it OpenSSL would ask on the terminal.
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile or None, _password(settings))
    except (ssl.SSLError, OSError) as error:
        where = settings.ssl_certfile + (f" with {settings.ssl_keyfile}" if settings.ssl_keyfile else "")
        raise ConfigurationError(
            f"TLS: {where} cannot be used: {_reason(error)}; both must be PEM, belong together, and an encrypted key "
            "needs --ssl-password-file"
        ) from None
    if settings.ssl_ca_certs:
        try:
            context.load_verify_locations(settings.ssl_ca_certs)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(f"TLS: {settings.ssl_ca_certs} cannot be used: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _password(settings: InterfaceSettings) -> str:
    if not settings.ssl_password_file:
        return ""
    try:
        return Path(settings.ssl_password_file).read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"TLS: {settings.ssl_password_file} cannot be read: {error}") from None


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)

"""https and wss, with certificates made for the test."""

import datetime
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from procman.errors import ConfigurationError
from procman.interface.tls import build_context
from procman.settings import InterfaceSettings
from tests.support.interface import read_response, running_interface


def make(directory: Path, name: str = "site", password: bytes = b"") -> tuple[str, str]:
    """Paths of a self-signed certificate for localhost and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    paths = directory / f"{name}.crt", directory / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return str(paths[0]), str(paths[1])


def settings(certificate: str, key: str, **values: object) -> InterfaceSettings:
    return InterfaceSettings.load({}, drain_timeout=1.0, ssl_certfile=certificate, ssl_keyfile=key, **values)


def test_requests_and_sockets_are_encrypted_and_say_so(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    context = ssl.create_default_context(cafile=certificate)
    with running_interface(settings(certificate, key)) as site:
        with context.wrap_socket(site.raw(), server_hostname="localhost") as client:
            assert client.version() in ("TLSv1.2", "TLSv1.3")
            client.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            offer, message = site.layer.take("http.request")
            assert message["scheme"] == "https"
            site.layer.finish(offer, {"status": 200, "content": b"x" * 1_000_000})
            assert read_response(client)[2] == b"x" * 1_000_000
        site.scheme = "wss"
        client, _ = site.accepted(ssl=context, server_hostname="localhost")
        with client:
            client.send("hello")
            offer, message = site.layer.take("websocket.receive")
            site.layer.finish(offer, {"text": message["text"]})
            assert client.recv(5) == "hello"
        assert site.layer.take("websocket.disconnect")[1]["code"] == 1000


def test_a_client_that_speaks_plain_http_or_breaks_off_disturbs_nobody(tmp_path: Path, caplog) -> None:
    certificate, key = make(tmp_path)
    with running_interface(settings(certificate, key)) as site:
        with site.raw(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n") as plain:
            plain.settimeout(5)
            while plain.recv(1000):
                pass
        site.raw(b"\x16\x03\x01").close()
        with ssl.create_default_context(cafile=certificate).wrap_socket(
            site.raw(), server_hostname="localhost"
        ) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            site.layer.finish(site.layer.take()[0], {"status": 200})
            assert read_response(client)[0] == 200
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, password=b"secret")
    (tmp_path / "password").write_text("secret\n")
    assert build_context(settings(certificate, key, ssl_password_file=str(tmp_path / "password"))) is not None
    with pytest.raises(ConfigurationError, match="--ssl-password-file"):
        build_context(settings(certificate, key))
    (tmp_path / "password").write_text("wrong")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        build_context(settings(certificate, key, ssl_password_file=str(tmp_path / "password")))


def test_clients_without_a_certificate_are_refused_where_one_is_asked_for(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    client_certificate, client_key = make(tmp_path, "client")
    with running_interface(settings(certificate, key, ssl_ca_certs=client_certificate)) as site:
        context = ssl.create_default_context(cafile=certificate)
        with pytest.raises(OSError), context.wrap_socket(site.raw(), server_hostname="localhost") as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            if not client.recv(1):
                raise OSError
        context.load_cert_chain(client_certificate, client_key)
        with context.wrap_socket(site.raw(), server_hostname="localhost") as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            site.layer.finish(site.layer.take()[0], {"status": 200})
            assert read_response(client)[0] == 200


def test_files_that_are_missing_or_of_another_kind_are_named_in_one_line(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    other_certificate, _ = make(tmp_path, "other")
    for values, text in (
        (settings("/no/such.crt", key), "/no/such.crt"),
        (settings(certificate, "/no/such.key"), "/no/such.key"),
        (settings(other_certificate, key), "belong together"),
        (settings(key, ""), "cannot be used"),
        (settings(certificate, key, ssl_ca_certs=key), "cannot be used"),
        (settings("", key), "--ssl-certfile is missing"),
    ):
        with pytest.raises(ConfigurationError, match=text) as caught:
            build_context(values)
        assert "\n" not in str(caught.value)
    assert build_context(InterfaceSettings()) is None


def test_old_versions_of_tls_are_not_spoken(tmp_path: Path) -> None:
    context = build_context(settings(*make(tmp_path)))
    assert context is not None and context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_command_refuses_a_wrong_certificate_before_it_starts_anything(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "procman", "start", "--ssl-certfile", "/no/such.crt"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "there is no file /no/such.crt" in done.stderr and done.stderr.count("\n") == 1

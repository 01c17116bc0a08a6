"""The way out: no way of writing an address, no name server and no redirect leads inside."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.service_process import SOURCE, environment
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scripted_endpoint import Endpoint, Reply, said
from service.attacks import PUBLIC, AddressAttack, Canary, Names, address_attacks, gets_through
from stillroom.service.door.faults import ApiError
from stillroom.service.settings import Settings
from stillroom.service.teachers.outward import Outward, is_public, pinned
from stillroom.teachers.api_transport import Transport

HERE = Path("nowhere")
ATTACKS = address_attacks()
TESTS = Path(__file__).resolve().parents[1]
ALL_OF_THEM = """
from service.attacks import address_attacks, gets_through
if __debug__:
    raise SystemExit("assert is on")
attacks = address_attacks()
for one in attacks:
    if gets_through(one):
        print("led inside:", one.name)
print("tried", len(attacks))
"""


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 100
    assert {one.kind.split()[0] for one in ATTACKS} == {"address", "rebinding", "redirect"}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.name)
def test_nothing_leads_inside(attack: AddressAttack) -> None:
    assert not gets_through(attack)


def test_nothing_leads_inside_where_assert_is_off() -> None:
    """All of them again, in a process under `python -O`."""
    paths = os.pathsep.join(str(TESTS / more) for more in (".", ".."))
    done = subprocess.run(
        [sys.executable, "-O", "-c", ALL_OF_THEM], env=environment({"PYTHONPATH": paths + os.pathsep + str(SOURCE)}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"tried {len(ATTACKS)}"], done.stdout


@pytest.mark.parametrize(
    ("url", "answers", "ip"),
    [
        (f"https://{PUBLIC}/v1", (), PUBLIC),
        ("https://[2606:4700::1111]/v1", (), "2606:4700::1111"),
        ("https://teacher.example/v1", (PUBLIC,), PUBLIC),
        ("https://TEACHER.example:443/v1/", (PUBLIC,), PUBLIC),
        ("https://teacher.example/v1", ("2606:4700::1111", PUBLIC), PUBLIC),
        ("https://my_teacher.a-b.example/v1", (PUBLIC,), PUBLIC),
    ],
)
def test_public_addresses_are_let_in(url: str, answers: tuple[str, ...], ip: str) -> None:
    found = pinned(url, Settings(HERE), Names(answers))
    assert (found.ip, found.port, found.scheme) == (ip, 443, "https")


@pytest.mark.parametrize(
    "words", ["203.0.112.255", "172.15.0.1", "172.32.0.1", "11.0.0.1", "100.63.0.1", "100.128.0.1"]
)
def test_neighbours_of_private_networks_are_public(words: str) -> None:
    assert is_public(ipaddress.ip_address(words))


def test_an_operator_allows_one_host_and_port_alone() -> None:
    settings = Settings(HERE, local_teachers=("Box.lan:8000", "127.0.0.1:8000", "[::1]:8000"))
    inside = Names(("192.168.1.7",))
    assert pinned("http://box.lan:8000/v1", settings, inside).ip == "192.168.1.7"
    assert pinned("http://127.0.0.1:8000/v1", settings).ip == "127.0.0.1"
    assert pinned("http://[::1]:8000/v1", settings).ip == "::1"
    for url in (
        "http://box.lan:8001/v1",
        "https://box.lan/v1",
        "http://127.0.0.1:80/",
        "http://127.0.0.2:8000/",
        "http://2130706433:8000/",
    ):
        with pytest.raises(ApiError, match=r"--allow-teacher|in full"):
            pinned(url, settings, inside)


@pytest.mark.parametrize("inside", ["169.254.169.254", "224.0.0.1", "0.0.0.0", "fe80::1", "::ffff:10.0.0.1"])
def test_an_allowed_name_does_not_lead_to_where_machines_keep_secrets(inside: str) -> None:
    with pytest.raises(ApiError, match="public"):
        pinned("http://box.lan:8000/v1", Settings(HERE, local_teachers=("box.lan:8000",)), Names((inside,)))


def test_a_name_that_cannot_be_looked_up_now_is_no_forbidden_one() -> None:
    def says(error: OSError) -> ApiError:
        def resolve(host: str, port: int) -> list[str]:
            raise error

        with pytest.raises(ApiError) as raised:
            pinned("https://teacher.example/v1", Settings(HERE), resolve)
        return raised.value

    for now in (socket.gaierror(socket.EAI_AGAIN, "try again"), socket.gaierror(socket.EAI_FAIL, "x"), TimeoutError()):
        found = says(now)
        assert (found.status, found.code) == (503, "name_not_resolved")
        assert int(found.headers["retry-after"]) > 0
    never = says(socket.gaierror(socket.EAI_NONAME, "unknown"))
    assert (never.status, never.code) == (400, "address_not_allowed")


def test_an_address_is_resolved_once_a_call_and_that_very_one_is_connected_to() -> None:
    with Endpoint(lambda body, number: said("yes")) as teacher:
        port = int(teacher.url.split(":")[2].split("/")[0])
        names = Names(("127.0.0.1",), ("127.0.0.9",))
        outward = Outward(Settings(HERE, local_teachers=(f"box.lan:{port}",)), names)
        answer = outward.post(f"http://box.lan:{port}/v1", "chat/completions", b"{}", {})
        assert (answer.status, names.asked) == (200, 1)
        assert b"yes" in answer.read()
        # Once it means another address, the connection to the old one is not used again.
        with pytest.raises(OSError, match="refused"):
            outward.post(f"http://box.lan:{port}/v1", "chat/completions", b"{}", {})
        assert len(teacher.asked) == 1
        outward.close()


def test_connections_are_kept_for_the_same_teacher_alone() -> None:
    with Endpoint(lambda body, number: said("yes")) as first, Endpoint(lambda body, number: said("no")) as second:
        ports = [one.url.split(":")[2].split("/")[0] for one in (first, second)]
        outward = Outward(Settings(HERE, local_teachers=tuple(f"127.0.0.1:{port}" for port in ports)))
        for one, word in ((first, b"yes"), (second, b"no")) * 3:
            assert word in outward.post(one.url, "chat/completions", b"{}", {}).read()
        assert len(outward._idle) == 2
        outward.close()
        assert not outward._idle


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Canary() as proxy, Endpoint(lambda body, number: said("yes")) as teacher:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        origin = teacher.url.removeprefix("http://").removesuffix("/v1")
        outward = Outward(Settings(HERE, local_teachers=(origin,)))
        assert b"yes" in outward.post(teacher.url, "chat/completions", b"{}", {}).read()
        outward.close()
        assert proxy.hits == 0


@pytest.mark.parametrize(
    "reply",
    [Reply(b"x" * 100, cut=True), Reply(b"", headers={"transfer-encoding": "chunked"})],
    ids=["cut", "no end of chunks"],
)
def test_an_answer_that_is_cut_is_no_answer(reply: Reply) -> None:
    with Endpoint(lambda body, number: reply) as teacher:
        origin = teacher.url.removeprefix("http://").removesuffix("/v1")
        outward = Outward(Settings(HERE, local_teachers=(origin,)))
        with pytest.raises((http.client.HTTPException, OSError)):
            outward.post(teacher.url, "chat/completions", b"{}", {}, 1.0).read()
        outward.close()


@pytest.fixture
def certified(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of teacher.example, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "teacher.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("teacher.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.fixture
def secured(certified: tuple[Path, Path]) -> Iterator[tuple[int, list[Any]]]:
    """A server with TLS; its port, and what it saw: server names and Host headers."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(("host", self.headers["host"]))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certified)
    tls.sni_callback = lambda sock, name, context: seen.append(("name", name))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_port, seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_certificate_and_the_host_are_those_of_the_name(
    certified: tuple[Path, Path], secured: tuple[int, list[Any]]
) -> None:
    port, seen = secured
    trusting = ssl.create_default_context(cafile=str(certified[0]))
    allowed = (f"teacher.example:{port}", f"other.example:{port}")
    outward = Outward(Settings(HERE, local_teachers=allowed), Names(("127.0.0.1",)), trusting)
    assert outward.post(f"https://teacher.example:{port}/v1", "chat/completions", b"{}", {}).read() == b"{}"
    assert seen == [("name", "teacher.example"), ("host", f"teacher.example:{port}")]
    with pytest.raises(ssl.SSLCertVerificationError):
        outward.post(f"https://other.example:{port}/v1", "chat/completions", b"{}", {})
    outward.close()


def test_connections_are_kept_where_many_files_are_open() -> None:
    """Descriptors from 1,024 on, which `select.select` cannot look at."""
    with Endpoint(lambda body, number: said("yes")) as teacher, many_files(1100), Transport() as transport:
        origin = teacher.url.removeprefix("http://").removesuffix("/v1")
        outward = Outward(Settings(HERE, local_teachers=(origin,)))
        for _ in range(2):
            answer = outward.post(teacher.url, "chat/completions", b"{}", {}, 5.0)
            assert b"yes" in answer.read()
            request = httpx2.Request("POST", f"{teacher.url}/chat/completions", json={})
            assert b"yes" in transport.handle_request(request).read()
        outward.close()


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """So many descriptors are taken meanwhile."""
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(few, min(most, 2 * count)), most))
    try:
        with ExitStack() as files:
            for _ in range(count):
                files.enter_context(open(os.devnull, "rb"))
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))

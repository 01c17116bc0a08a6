"""Addresses that should never be a teacher's: ways of writing, names that lead inside, name servers that change their mind.

`address_attacks()` lists them, and `gets_through(attack)` tries one. The benchmark and the tests use both.
"""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stillroom.service.door.faults import ApiError
from stillroom.service.settings import Settings
from stillroom.service.teachers.outward import BROKEN, Outward, pinned

PUBLIC = "93.184.215.14"
INSIDE = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1")
MORE_INSIDE = ("0.0.0.0", "100.64.0.1", "127.255.255.254", "192.0.0.8", "198.18.0.1", "192.0.2.1", "198.51.100.1",
               "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255")  # fmt: skip
INSIDE_V6 = ("::1", "::", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "ff05::1", "2001:db8::1", "100::1",
             "2001::1", "2001:10::1", "3fff::1", "5f00::1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:7f00:1")  # fmt: skip


@dataclass(frozen=True)
class AddressAttack:
    """A URL, and what the name server says of its host: one answer for each time it is asked, the last one for ever."""

    name: str
    url: str
    answers: tuple[tuple[str, ...], ...] = ()
    kind: str = "address"
    """`address`: refused when it is set; `rebinding`: later; `redirect`: followed nowhere."""


class Names:
    """A name server that says what it was told to, in turn."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers, self.asked = answers, 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        if not self.answers:
            raise OSError(f"nobody knows {host}")
        return list(self.answers[min(self.asked, len(self.answers)) - 1])


class Canary:
    """A server inside that nobody should reach; it counts who does. With `leads_to` it sends everybody elsewhere."""

    def __init__(self, leads_to: str = "", status: int = 307) -> None:
        self.hits = 0
        canary = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                canary.hits += 1
                self.rfile.read(int(self.headers.get("content-length", 0)))
                body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "inside"}}]}).encode()
                self.send_response(status if leads_to else 200)
                if leads_to:
                    self.send_header("location", leads_to)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_CONNECT = do_POST

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.port = self._server.server_port

    def __enter__(self) -> Canary:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def ways_to_write(dotted: str) -> Iterator[tuple[str, str]]:
    """Ways to write an IPv4 address."""
    parts, number = [int(part) for part in dotted.split(".")], int(ipaddress.IPv4Address(dotted))
    yield "plain", dotted
    yield "decimal", str(number)
    yield "hexadecimal", hex(number)
    yield "octal", f"0{number:o}"
    yield "octal parts", ".".join(f"0{part:o}" for part in parts)
    yield "hexadecimal parts", ".".join(hex(part) for part in parts)
    yield "mixed parts", f"{hex(parts[0])}.{parts[1]}.0{parts[2]:o}.{parts[3]}"
    yield "zeros before", ".".join(f"{part:03d}" for part in parts)
    yield "two parts", f"{parts[0]}.{number & 0xFFFFFF}"
    yield "three parts", f"{parts[0]}.{parts[1]}.{number & 0xFFFF}"
    yield "a point after", f"{dotted}."
    yield "mapped", f"[::ffff:{dotted}]"
    yield "mapped, in hexadecimal", f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]"
    yield "compatible", f"[::{dotted}]"
    yield "translated", f"[::ffff:0:{dotted}]"
    yield "6to4", f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]"
    yield "NAT64", f"[64:ff9b::{dotted}]"
    yield "NAT64 of one's own", f"[64:ff9b:1::{dotted}]"
    yield "percent", "".join(f"%{ord(letter):02x}" for letter in dotted)
    yield "full width", dotted.translate({ord(str(n)): 0xFF10 + n for n in range(10)})


ODD = (
    "https://user@{h}/v1", "https://user:word@{h}/v1", "https://@{h}/v1", "https://{p}@127.0.0.1/v1",
    "https://127.0.0.1\\@{h}/v1", "https://{h}\\@127.0.0.1/v1", "https://{h}#@127.0.0.1/", "https://{h}?@127.0.0.1/",
    "https://{h}:443@127.0.0.1/", "https://{h}:0/v1", "https://{h}:65536/v1", "https://{h}:-1/v1", "https://{h}:22/v1",
    "https://{h}:6379/v1", "https://{h}:8443/v1", "http://{h}/v1", "http://{h}:443/v1", "ftp://{h}/v1",
    "file:///etc/passwd", "gopher://{h}:70/_", "unix:///run/docker.sock", "data:text/plain,x", "javascript:alert(1)",
    "//{h}/v1", "{h}/v1", "https:{h}/v1", "https:///v1", "https://", "https://[::1/v1", "https://::1]/v1",
    "https://[fe80::1%25eth0]/v1", "https://[fe80::1%eth0]/v1", "https://[v1.x]/v1", "https://[{h}]/v1",
    "https://{h}\t/v1", "https://{h}\n/v1", "https://{h}\r\nHost: x/v1", "https://{h} /v1", " https://{h}/v1",
    "https://{h}\x00.inside/v1", "https://127.0.0.1%2f@{h}/v1", "https://exa\u200bmple.org/v1", "https://ex\u00e4mple.org/",
    "https://\u2488.0.0.1/v1", "https://-a.example/v1", "https://a..example/v1", "https://.example/v1",
    "https://1.2.3.4.5/v1", "https://256.1.1.1/v1", "https://0x/v1", "https://example.0x7f/v1", "https://example.1/v1",
)  # fmt: skip
"""{h}: a public name; {p}: a public address."""
LEADS_INSIDE = ("localhost", "localhost.localdomain", "ip6-localhost", "127.0.0.1.nip.example", "metadata.google.internal",
                "inside.example", "a.b.inside.example", "_service.inside.example")  # fmt: skip


def address_attacks() -> list[AddressAttack]:
    """All of them."""
    found = [
        AddressAttack(f"{way}: {address}", f"https://{host}/v1", ((PUBLIC,),))
        for address in INSIDE
        for way, host in ways_to_write(address)
    ]
    found += [AddressAttack(f"plain: {one}", f"https://{one}/v1", ((PUBLIC,),)) for one in MORE_INSIDE]
    found += [AddressAttack(f"IPv6: {one}", f"https://[{one}]/v1", ((PUBLIC,),)) for one in INSIDE_V6]
    found += [AddressAttack(f"odd: {url!r}", url.format(h="teacher.example", p=PUBLIC), ((PUBLIC,),)) for url in ODD]
    found += [AddressAttack(f"name: {name}", f"https://{name}/v1", (("127.0.0.1",),)) for name in LEADS_INSIDE]
    for inside in (
        *INSIDE,
        *MORE_INSIDE,
        *INSIDE_V6,
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "fe80::1%2",
    ):
        found.append(AddressAttack(f"a name of {inside}", "https://teacher.example/v1", ((inside,),)))
        found.append(AddressAttack(f"a name of {inside} too", "https://teacher.example/v1", ((PUBLIC, inside),)))
    found += [
        AddressAttack(f"rebinding to {inside}", "https://teacher.example/v1", ((PUBLIC,), (inside,)), "rebinding")
        for inside in (*INSIDE, "::1", "::ffff:127.0.0.1")
    ]
    found += [
        AddressAttack(f"redirect {status} to {target}", target, (), f"redirect {status}")
        for status in (301, 302, 303, 307, 308)
        for target in ("http://127.0.0.1:{port}/inside", "//127.0.0.1:{port}/inside", "http://2130706433:{port}/")
    ]
    return found


def gets_through(attack: AddressAttack) -> bool:
    """True where the address was let in, or something inside was reached."""
    if attack.kind.startswith("redirect"):
        return _follows(attack)
    names, settings = Names(*attack.answers), Settings(Path("nowhere"))
    try:
        pinned(attack.url, settings, names)
    except ApiError:
        return attack.kind == "rebinding"  # what was to be let in at first was not tried
    if attack.kind == "address":
        return True
    outward = Outward(settings, names)
    try:
        outward.post(attack.url, "chat/completions", b"{}", {}, 1.0).close()
    except ApiError:
        return False
    except BROKEN:
        return True  # it did try to connect
    finally:
        outward.close()
    return True


def _follows(attack: AddressAttack) -> bool:
    """A teacher that the operator allows sends everybody to a server inside."""
    with Canary() as inside, Canary(attack.url.format(port=inside.port), int(attack.kind.split()[1])) as teacher:
        origin = f"127.0.0.1:{teacher.port}"
        outward = Outward(Settings(Path("nowhere"), local_teachers=(origin,)))
        answer = outward.post(f"http://{origin}/v1", "chat/completions", b"{}", {}, 5.0)
        answer.read()
        outward.close()
        return inside.hits > 0 or teacher.hits != 1

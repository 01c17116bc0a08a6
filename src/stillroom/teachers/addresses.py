"""Addresses of endpoints: what is one, whose it is, and whether it is on this machine. Sends nothing."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from stillroom.errors import RecipeError


def checked_url(base_url: str) -> str:
    """The address without a slash at its end. Raises RecipeError for what is no plain http or https address."""
    try:
        parts = urlsplit(base_url)
        plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        plain = plain and (parts.port is None or parts.port > 0) and base_url.isprintable() and " " not in base_url
    except ValueError:
        plain = False
    if not plain:
        raise RecipeError(
            f"{base_url!r} is no address of an endpoint",
            where="teacher.base_url",
            cure="Write it like https://api.openai.com/v1 or http://localhost:8000/v1",
        )
    if parts.username or parts.password:
        raise RecipeError(
            "an address with a name or password in it would be written into files",
            where="teacher.base_url",
            cure="Give the key in an environment variable, and its name as teacher.api_key_env",
        )
    return base_url.rstrip("/")


def host_of(address: str) -> str:
    """The host of an address, in small letters."""
    return (urlsplit(address).hostname or "").lower()


def within(host: str, domain: str) -> bool:
    """True where a host is a domain, or in it."""
    return host == domain or host.endswith(f".{domain}")


def is_openai(address: str) -> bool:
    """OpenAI's own endpoint."""
    return within(host_of(address), "openai.com")


def is_local(address: str) -> bool:
    """On this machine."""
    host = host_of(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return within(host, "localhost")


def has_proxy(address: str) -> bool:
    """The environment names a proxy for it."""
    proxies = getproxies()
    named = urlsplit(address).scheme in proxies or "all" in proxies
    return named and not proxy_bypass(host_of(address))

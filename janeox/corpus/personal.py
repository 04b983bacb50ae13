"""Addresses of persons in a text, masked: e-mail, telephone, public IP. What stands for them are reserved examples."""

import ipaddress
import re

MAIL = "user@example.com"
"""RFC 2606 keeps example.com free."""
IP = "192.0.2.1"
"""RFC 5737 keeps 192.0.2.0/24 free."""

_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
# A Japanese number: 0 and nine or ten digits in three groups, or +81 without the 0. Masked as HojiChar does, the last
# four digits only, so that the shape stays.
_PHONE = re.compile(
    r"(?<![0-9-])(0[0-9]{1,4}-[0-9]{1,4}-|0[0-9]{1,4}[(（][0-9]{1,4}[)）]|[(（]0[0-9]{1,4}[)）] ?[0-9]{1,4}-"
    r"|\+81[ -]?[0-9]{1,4}[ -][0-9]{1,4}[ -])[0-9]{4}(?![0-9-])"
)
_IP = re.compile(r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.])")


def masked(text: str) -> str:
    """The text with e-mail addresses, the end of telephone numbers, and public IPv4 addresses replaced."""
    if "@" in text:
        text = _MAIL.sub(MAIL, text)
    return _IP.sub(_public_masked, _PHONE.sub(_phone_masked, text))


def _phone_masked(match: re.Match[str]) -> str:
    digits = sum(char.isdigit() for char in match[0])
    return match[1] + "XXXX" if digits in (10, 11) or match[1].startswith("+") else match[0]


def _public_masked(match: re.Match[str]) -> str:
    try:
        return IP if ipaddress.IPv4Address(match[0]).is_global else match[0]
    except ValueError:  # 1.2.3.999 is none, and 01.2.3.4 is a version
        return match[0]

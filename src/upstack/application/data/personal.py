"""Personal data in texts: where it is, and the texts without it. By rules of our own, each with a check. Pure.

What can be proved wrong is: checksums, dates, lengths, issuers and countries are looked at, so that a long number alone
is nothing. Telephone numbers have no checksum: those with a country's code count, those written as a country writes
them, and those that are called one. Kinds are looked for in the order of `_RULES`, and what one has taken is gone for
the next. Names and addresses of people are not found: that takes a model. Every pattern takes linear time.
"""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Callable, Iterable, Iterator
from datetime import date

import msgspec

_Span = tuple[int, int]


class Found(msgspec.Struct, frozen=True):
    """Personal data of a kind, from one character of the text up to another."""

    kind: str
    start: int
    end: int


def find(text: str) -> list[Found]:
    """Say what personal data is where, in the order of the text; nothing overlaps."""
    rest = _folded(text)
    found: list[Found] = []
    for kind, spans_in in _RULES:
        spans = _apart(spans_in(rest))
        found += [Found(kind, start, end) for start, end in spans]
        rest = _without(rest, spans)
    return sorted(found, key=lambda each: each.start)


def mask(text: str) -> str:
    """Put the name of its kind in the place of all that is found: "[email]", "[phone]"."""
    pieces: list[str] = []
    at = 0
    for each in find(text):
        pieces += (text[at : each.start], f"[{each.kind}]")
        at = each.end
    return "".join(pieces) + text[at:]


# A character stays one character, so that places in the folded text are places in the text. Wide commas and colons
# stay wide: they part sentences, and never stand within a number.
_FOLDED = {0xFF00 + code - 0x20: code for code in range(0x21, 0x7F) if chr(code).isalnum() or chr(code) in "@.-+()/_="}
_FOLDED |= {zero + digit: 0x30 + digit for zero in (0x0660, 0x06F0, 0x0966) for digit in range(10)}
_FOLDED |= dict.fromkeys((0xA0, 0x2002, 0x2003, 0x2007, 0x2009, 0x202F, 0x3000), 0x20)
_FOLDED |= dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212), 0x2D)
_ESCAPED = re.compile(r"\\[nrt]")  # as in JSON within a text, where "\n" would be a letter before what follows


def _folded(text: str) -> str:
    return _ESCAPED.sub("\n\n", text if text.isascii() else text.translate(_FOLDED))


def _apart(spans: Iterable[_Span]) -> list[_Span]:
    """Of those that overlap, the one that begins first, and then the longest."""
    kept: list[_Span] = []
    end = 0
    for span in sorted(spans, key=lambda each: (each[0], -each[1])):
        if span[0] >= end:
            kept.append(span)
            end = span[1]
    return kept


def _without(text: str, spans: Iterable[_Span]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        pieces += (text[at:start], "\0" * (end - start))
        at = end
    return "".join(pieces) + text[at:]


_BETWEEN = " \n\t.:=#\"'-\uff1a"
_LETTERS = string.ascii_letters + "/éúó"
_MOST_FILLERS = 3


class _Words:
    """Words that say what the number behind them is. Those without a beginning of their own are Chinese, and signs."""

    def __init__(self, words: str) -> None:
        self.whole = frozenset(each for each in words.split() if each[0] in _LETTERS)
        self.ends = tuple(each for each in words.split() if each not in self.whole)


_FILLERS = _Words("no nr num number numbers nummer numero número is 号码 號碼 号 號 码 是 为")


def _is_said(text: str, start: int, words: _Words) -> bool:
    """Whether one of the words stands before a number: "phone number is", "订单号"."""
    before = text[max(0, start - 24) : start].rstrip(_BETWEEN)
    for _ in range(_MOST_FILLERS):
        at = len(before.rstrip(_LETTERS))
        word = before[at:].lower()
        if word in words.whole or word.rpartition("/")[2] in words.whole or before.endswith(words.ends):
            return True
        if word not in _FILLERS.whole:
            at = next((len(before) - len(each) for each in _FILLERS.ends if before.endswith(each)), len(before))
        if at == len(before):
            return False
        before = before[:at].rstrip(_BETWEEN)
    return False


# ---------------------------------------------------------------------------------------------------------------- keys

_KEY = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:
      sk-(?=[A-Za-z_-]*+[0-9])[A-Za-z0-9_-]{16,}+               # OpenAI, Anthropic, and those that do as they do
    | gh[opsur]_[A-Za-z0-9]{20,}+ | github_pat_\w{22,}+ | glpat-[\w-]{20,}+
    | (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])                  # AWS
    | LTAI[A-Za-z0-9]{12,26}(?![A-Za-z0-9]) | AKID[A-Za-z0-9]{32}(?![A-Za-z0-9])  # Alibaba, Tencent
    | xox[abceoprs]-[A-Za-z0-9-]{10,}+ | xapp-[A-Za-z0-9-]{10,}+
    | AIza[\w-]{35} | hf_[A-Za-z0-9]{30,}+ | gsk_[A-Za-z0-9]{30,}+ | xai-[A-Za-z0-9]{40,}+
    | [prs]k_(?:live|test)_[A-Za-z0-9]{16,}+ | npm_[A-Za-z0-9]{36} | pypi-[\w-]{50,}+ | SG\.[\w-]{20,}+\.[\w-]{20,}+
    | eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]*+                     # JWT: two JSON objects and a signature
    )""",
    re.VERBOSE | re.ASCII,
)
# A long word without a digit is prose: "bearer authentication-required".
_BEARER = re.compile(
    r"(?<![a-z])bearer\s++((?=[a-z._~+/=-]*+[0-9]|[a-z]{20})[a-z0-9._~+/=-]{16,}+)", re.IGNORECASE | re.ASCII
)
# Up to its end, or where it is cut off, what looks like Base64. A header that is only spoken of is none.
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:[^-]++|-(?!----))*+-----END [A-Z0-9 ]{1,60}-----|(?:\s*+[A-Za-z0-9+/=]{16,}+)++)"
)


def _keys(text: str) -> Iterator[_Span]:
    for match in _PEM.finditer(text):
        yield match.span()
    for match in _BEARER.finditer(text):
        yield match.span(1)
    for match in _KEY.finditer(text):
        yield match.span()


# --------------------------------------------------------------------------------------------------------------- emails

# Where a run of such characters begins, and nowhere within it, so that a long one is read once. No e-mails are
# "package@1.2.3", "image@2x.png" and "git@github.com".
_EMAIL = re.compile(
    r"""(?<![\w.%+'-])['.%+-]*+
    (?!git@)([\w.%+'-]++@(?!\d++(?:x\.|\.\d))(?:[A-Za-z0-9-]{1,63}+\.)+(?:xn--[A-Za-z0-9]{2,59}|[A-Za-z]{2,24}))
    (?![A-Za-z0-9])""",
    re.VERBOSE | re.ASCII,
)


def _emails(text: str) -> Iterator[_Span]:
    for match in _EMAIL.finditer(text):
        yield match.span(1)


# ----------------------------------------------------------------------------------------------------- numbers of banks

# How long an IBAN is in which country: the IBAN Registry of SWIFT.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
# Within a lookahead: what begins within another candidate is looked at too.
_IBAN = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}))")
_TO_NUMBER = {ord(each): str(int(each, 36)) for each in string.ascii_letters}
_GOES_ON = re.compile(r"[A-Za-z0-9]")


def _ibans(text: str) -> Iterator[_Span]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[1][:2].upper(), 99)
        number = match[1].replace(" ", "").replace("-", "")[:length]
        if len(number) == length and int((number[4:] + number[:4]).translate(_TO_NUMBER)) % 97 == 1:
            end = match.start() + [at for at, each in enumerate(match[1], 1) if each not in " -"][length - 1]
            if not _GOES_ON.match(text, end):
                yield match.start(), end


# Not within a decimal fraction, nor in what is joined by dashes such as a UUID.
_CARD = re.compile(r"(?<![0-9A-Za-z+])(?<![0-9]\.)(?<![0-9A-Za-z]-)(?=([2-9][0-9]{3}(?:[ -]?[0-9]){9,15}))")
_GROUP_END = re.compile(r"[0-9](?![0-9A-Za-z]|\.[0-9])")
_ISSUED = re.compile(
    r"""4(?:\d{12}|\d{15}|\d{18})                                                # Visa
    | 5[1-5]\d{14} | 2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}           # Mastercard
    | 3[47]\d{13} | 3(?:0[0-5]|[689]\d)\d{11}(?:\d\d)?                           # American Express, Diners Club
    | (?:6011|64[4-9]\d|65\d\d)\d{12,15} | 35(?:2[89]|[3-8]\d)\d{12,15}          # Discover, JCB
    | (?:62|81)\d{14,17} | 220[0-4]\d{12,15} | 60\d{14} | 9792\d{12}             # UnionPay, Mir, RuPay, Troy
    | (?:50(?:18|20|38)|5[6-8]\d\d|6304|67(?:59|6[1-3]))\d{9,15}                 # Maestro
    """,
    re.VERBOSE | re.ASCII,
)
_ONCE = bytes.maketrans(b"0123456789", bytes(range(10)))
_TWICE = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))  # a digit's double, its digits added


def _cards(text: str) -> Iterator[_Span]:
    for match in _CARD.finditer(text):
        start, most = match.span(1)
        ends = [each.end() for each in _GROUP_END.finditer(text, start + 12, min(len(text), most + 2))]
        # The longest first: a number for the back of the card may follow, or be part of it.
        for end in reversed(ends):
            digits = text[start:end].replace(" ", "").replace("-", "")
            if end <= most and _ISSUED.fullmatch(digits) and _luhn(digits):
                yield start, end
                break


def _luhn(digits: str) -> bool:
    encoded = digits.encode()
    return (sum(encoded[-1::-2].translate(_ONCE)) + sum(encoded[-2::-2].translate(_TWICE))) % 10 == 0


# ---------------------------------------------------------------------------------------- numbers of Chinese residents

_PROVINCES = "1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91"
_CN_ID = re.compile(
    rf"(?<![0-9A-Za-z])((?:{_PROVINCES})[0-9]{{4}})[ -]?((?:19|20)[0-9]{{6}})[ -]?([0-9]{{3}}[0-9Xx])(?![0-9A-Za-z])"
)


def _cn_ids(text: str) -> Iterator[_Span]:
    for match in _CN_ID.finditer(text):
        number = "".join(match.groups())
        # GB 11643: the weights are powers of two, the last one 2**0, and an X is ten.
        total = sum((10 if each in "Xx" else int(each)) << 17 - at for at, each in enumerate(number))
        if total % 11 == 1 and _is_date(match[2][:4], match[2][4:6], match[2][6:]):
            yield match.span()


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------ addresses

_IP4 = re.compile(r"(?<![0-9A-Za-z.])(?<![A-Za-z]/)[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.[0-9])")
_IP6 = re.compile(
    r"(?:(?<![0-9A-Za-z:._-])[0-9A-Fa-f]{1,4}+|(?<![0-9:])):[0-9A-Fa-f:.]{1,41}+(?![0-9A-Za-z:])"
)  # fmt: skip
_VERSION = _Words("version ver release section chapter clause § 版本 第")


def _ips(text: str) -> Iterator[_Span]:
    for match in _IP4.finditer(text):
        if not _is_said(text, match.start(), _VERSION) and _is_ip(ipaddress.IPv4Address, match[0]):
            yield match.span()
    for match in _IP6.finditer(text):
        start, found = match.start(), match[0].rstrip(".")
        if found.startswith(":") and (found[1:2] != ":" or found.startswith(":::")):
            start, found = start + 1, found[1:]  # the colon of "IP:"
        if found.endswith(":") and not found.endswith("::"):
            found = found[:-1]
        if _says_something(found) and _is_ip(ipaddress.IPv6Address, found):
            yield start, start + len(found)


def _is_ip(kind: Callable[[str], object], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _says_something(address: str) -> bool:
    """Not a slice or a scope: "x[::2]" and "std::add" are IPv6 as well."""
    groups = [each for each in address.split(":") if each]
    if ("::" not in address and len(groups) < 7) or not any(each.isdigit() for each in address):
        return False
    return address == "::1" or len(groups) >= 3 or (len(groups) == 2 and max(map(len, groups)) >= 3)


# ----------------------------------------------------------------------------------------------------------- telephones

_COUNTRY = (
    r"(?:7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2[1-69]\d|3[578]\d|42\d|5[09]\d|6[789]\d|8[0578]\d|9[679]\d)"
)
_EXTENSION = r"(?P<more>[ ]?(?:ext\.?|x|转)[ ]?[0-9]{1,5})?"
_FAR = re.compile(
    rf"""(?:(?<![0-9+])\+[ ]?|(?<![0-9A-Za-z.-])00(?=861\d{{10}}(?!\d)|{_COUNTRY}[ ./(-]))(?:
      1[-. ]?\(?[2-9]\d\d\)?[-. ]{{0,2}}\d{{3}}[-. ]?\d{{4}}                       # North America
    | 86[ -]?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}                                     # a mobile in China
    # What follows the country does not begin with 0, save in brackets and in a few countries.
    | (?:{_COUNTRY}[-./ ]?(?=[ ]?\(|[1-9])|(?:39|22[5-9]|24[12])[ ]?)[ ]?\(?\d(?:(?:[-./ ()]{{0,2}}|[ ]/[ ])\d){{5,12}}
    ){_EXTENSION}(?!\d)""",
    re.VERBOSE | re.ASCII,
)
_CN_MOBILE = r"(?:13\d|14[014-9]|15[0-35-9]|16[2567]|17[0-8]|18\d|19[0-35-9])"
_NEAR = re.compile(
    rf"""(?<![0-9A-Za-z_+])(?<![0-9A-Za-z][-./_])(?:
      (?:1[-. ])?\([2-9]\d\d\)[ ]?\d{{3}}[-. ]\d{{4}}                             # North America: (415) 555-2671
    | (?:1[-.])?[2-9]\d\d([-.])\d{{3}}\1\d{{4}}                                   # 415-555-2671
    | (?:1[ ])?[2-9]\d\d[ ][2-9]\d\d[ ]\d{{4}}                                     # 415 555 2671
    | (?:86[ -]?)?{_CN_MOBILE}(?:\d{{8}}|([ -])\d{{4}}\2\d{{4}})                    # 13800138000
    | [48]00-(?:\d{{7}}|\d{{4}}-\d{{3}})                                           # 400-8100-888
    | 8[ -]?\(?[3489]\d\d\)?[ -]?\d{{3}}[ -]\d\d[ -]\d\d                           # Russia: 8 (495) 123-45-67
    | \((?:0\d{{1,4}}|[1-9]\d{{1,2}})\)[ ]?\d{{3,5}}[ -]\d{{3,4}}                  # Brazil: (11) 98765-4321
    | (?:\(0[1-9]\d{{0,4}}\)|0[1-9]\d{{0,4}}(?=[-./ ]))(?:(?:[ ]?[-./][ ]?|[ ]|(?<=\)))\d{{2,8}}){{1,5}}  # 030 1234567
    ){_EXTENSION}(?![0-9A-Za-z_]|[-./:][0-9]|-[A-Za-z])""",
    re.VERBOSE | re.ASCII,
)
_CALLED = _Words(
    "tel telephone phone phonenumber cellphone mobile fax whatsapp telefon telefono telefone teléfono téléphone mobil"
    " handynummer móvil celular cellulare rufnummer telefonnummer 电话 電話 手机 手機 传真 座机 热线 联系方式 携帯 전화"
)
_CALLABLE = re.compile(rf"(?<![0-9])\(?[0-9](?:[-./ ()]{{0,2}}[0-9]){{6,14}}{_EXTENSION}(?![0-9A-Za-z])")
_DATE = re.compile(
    r"""(?<![0-9])(?<![0-9][-./])(?:
      [12][0-9]{3}([-./])[01]?[0-9]\1[0-3]?[0-9] | [0-3]?[0-9]([-./])[0-3]?[0-9]\2(?:[12][0-9])?[0-9]{2}
    )(?![0-9]|[-./][0-9])
    | (?<![0-9:])[0-2]?[0-9]:[0-5][0-9](?![0-9])""",
    re.VERBOSE,
)
_NAMED = _Words(
    "po p/n pn sn s/n part parts order sku invoice item article art serial model ref reference ticket case batch lot"
    " tracking isbn ean gtin id $ € £ ¥ 订单 单 编 型 料 序列 零件 工单 批次 流水"
)
_UNIT = re.compile(r"[ ]{0,2}([A-Za-z]+|[%€$£¥元个件万亿条吨円원])")
_UNITS = _Words(
    "unit units pcs pieces parts items byte bytes b kb mb gb tb kib mib gib tib token tokens row rows records users"
    " people times s ms ns us seconds days years g kg m mm cm km eur usd rmb cny gbp jpy dollar dollars euro euros"
    " % € $ £ ¥ 元 个 件 万 亿 条 吨 円 원"
)
_FRACTION = re.compile(r"\+?[1-9][0-9]*\.[0-9]+|[0-9 ]+\.[0-9]{1,2}")
_WHOLE = re.compile(r"[0-9]+|\+?[0-9]{1,3}(?: [0-9]{3})+")
_BLANKS, _INSIDE = re.compile(r"[0-9]+ "), re.compile(r"[0-9] ")
_DIGITS = re.compile(r"[0-9]")
_GROUP = re.compile(r"[0-9]+")
_MOST_TRUNK = 12  # digits of a number that begins with 0


def _phones(text: str) -> Iterator[_Span]:
    # Days and times look like numbers of groups, and stand before and after numbers.
    timeless = _without(text, [match.span() for match in _DATE.finditer(text)])
    for match in _FAR.finditer(timeless):
        if _may_be_called(timeless, match.start(), match.end(), 9):
            yield match.span()
    for match in _CALLABLE.finditer(timeless):
        if _is_said(timeless, match.start(), _CALLED) and _may_be_called(timeless, match.start(), match.end(), 7):
            yield match.span()
    yield from _near(timeless)


def _near(text: str) -> Iterator[_Span]:
    last = at = 0
    while match := _NEAR.search(text, at):
        start, at = match.start(), _end_of(match)
        # "044 0532 0130" within a longer number of such groups is none, and after another telephone it is one.
        inside = _BLANKS.match(match[0]) and start - 1 != last and _INSIDE.match(text[max(0, start - 2) : start])
        if not inside and not _is_said(text, start, _NAMED) and _may_be_called(text, start, at, 9):
            yield start, at
            last = at


def _may_be_called(text: str, start: int, end: int, least: int) -> bool:
    """Whether it is long enough for a number that is called, and no amount."""
    found = text[start:end]
    if len(_DIGITS.findall(found)) < least or found.replace(" ", "").endswith("000000") or _FRACTION.fullmatch(found):
        return False
    unit = _UNIT.match(text, end) if _WHOLE.fullmatch(found) else None
    return unit is None or not (unit[1].lower() in _UNITS.whole or unit[1] in _UNITS.ends)


def _end_of(match: re.Match[str]) -> int:
    """Where a telephone number ends; other numbers may follow one that begins with 0."""
    if not match[0].startswith(("0", "(0")):
        return match.end()
    digits = last = 0
    end = match.start("more") if match["more"] else match.end()
    for group in _GROUP.finditer(match.string, match.start(), end):
        digits += len(group[0])
        if digits > _MOST_TRUNK:
            return last
        last = group.end()
    return match.end()


_RULES: tuple[tuple[str, Callable[[str], Iterator[_Span]]], ...] = (
    ("key", _keys),
    ("email", _emails),
    ("iban", _ibans),
    ("cn_id", _cn_ids),
    ("card", _cards),
    ("ip", _ips),
    ("phone", _phones),
)

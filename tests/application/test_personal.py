"""Personal data in texts: found whole, not seen in numbers that are none, and fast whatever comes."""

# ruff: noqa: RUF001 - signs of full width are what is tested

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstack.application.data.personal import Found, find, mask

# Put together here, so that nobody who looks for keys in a repository finds one.
SK = "sk-" + "proj-" + "a1B2c3D4" * 5
GH = "ghp_" + "a1B2c3D4" * 4 + "wxyz"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
SLACK = "xoxb-" + "123456789012-abcdefABCDEF"
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
PEM = "-----BEGIN RSA PRIVATE " + "KEY-----\n" + ("MIIEowIBAAKCAQEA" * 4 + "\n") * 3 + "-----END RSA PRIVATE KEY-----"
CUT = "-----BEGIN PRIVATE " + "KEY-----\n" + "MIIEowIBAAKCAQEA" * 4

FOUND = [
    ("email", "jane.doe+news@mail.example.co.uk"),
    ("email", "o'brien_7@example.com"),
    ("email", "12345678@qq.com"),
    ("email", "a@xn--fsqu00a.xn--p1ai"),
    ("phone", "+1 415 555 2671"),
    ("phone", "+1 (555) 123-4567"),
    ("phone", "+14155552671"),
    ("phone", "+49 (0)30 1234567"),
    ("phone", "+49 171/1234567"),
    ("phone", "+44 20 7946 0958"),
    ("phone", "+33 6 12 34 56 78"),
    ("phone", "+34 612 345 678"),
    ("phone", "+39 06 1234 5678"),
    ("phone", "+86 138 0013 8000"),
    ("phone", "+852 2345 6789"),
    ("phone", "+358 40 1234567"),
    ("phone", "0049 30 1234567"),
    ("phone", "008613800138000"),
    ("phone", "(415) 555-2671"),
    ("phone", "415.555.2671"),
    ("phone", "1-800-555-0199"),
    ("phone", "415-555-2671 ext. 12"),
    ("phone", "030 1234567"),
    ("phone", "0171/1234567"),
    ("phone", "089 / 123 456 78"),
    ("phone", "01 23 45 67 89"),
    ("phone", "06.12.34.56.78"),
    ("phone", "020 7946 0958"),
    ("phone", "090-1234-5678"),
    ("phone", "(11) 98765-4321"),
    ("phone", "8 (495) 123-45-67"),
    ("phone", "13800138000"),
    ("phone", "138-0013-8000"),
    ("phone", "8613800138000"),
    ("phone", "010-12345678"),
    ("phone", "400-8100-888"),
    ("card", "4111 1111 1111 1111"),
    ("card", "5555-5555-5555-4444"),
    ("card", "378282246310005"),
    ("card", "3782 822463 10005"),
    ("card", "6222021234567890128"),
    ("card", "4222222222222"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB29NWBK60161331926819"),
    ("iban", "nl91abna0417164300"),
    ("iban", "NO93 8601 1117 947"),
    ("cn_id", "11010519491231002X"),
    ("cn_id", "11010519491231002x"),
    ("cn_id", "110105 19491231 002X"),
    ("ip", "10.0.0.1"),
    ("ip", "255.255.255.255"),
    ("ip", "2001:db8::ff00:42:8329"),
    ("ip", "fe80::1"),
    ("ip", "::ffff:192.0.2.128"),
    ("key", SK),
    ("key", GH),
    ("key", AWS),
    ("key", SLACK),
    ("key", JWT),
    ("key", PEM),
]

NONE = [
    "12 345 678 units",
    "phone 912 345 678 units, +34 612 345 678 units, 0.123456789, 3.14159265358979",
    '{"order_id": 13800138000, "score": 0.41111111111111111, "n": 10.25}',
    "revenue of +12 345 678 and 1 234 567 890",
    "+30 500 000 000 in all, +33.3333333333 %, +1.4142135623",
    "2026-01-31",
    "2026-01-31 12:30:45, 01-02-2026 10:30, 31.01.2026 23:59",
    "2026年01月31日",
    "PO 45678901",
    "Part no. 415-555-2671",
    "order 13800138000",
    "订单号：13800138000",
    "13800138000 bytes, 13800138000元",
    "EUR 12.345.678,90 and $1,234,567.89",
    "0012345678 and 008612345678 are padded",
    "550e8400-e29b-41d4-a716-446655440000",
    "ISBN 978-3-16-148410-0",
    "timestamp 1767225600000, id 1234567890123456789",
    "version 1.2.3, v10.0.0.1, version 10.0.0.1, Chrome/120.0.0.0, 1.3.6.1.4.1, 10.0.0.256",
    "4111 1111 1111 1112",  # its checksum
    "9111111111111111",  # no issuer
    "0.4111111111111111",
    "DE89 3704 0044 0532 0130 01",  # its checksum
    "DE89 3704 0044 0532 0130 0",  # its length
    "ZZ89 3704 0044 0532 0130 00",  # no country
    "110105194912310021",  # its checksum
    "11010519491331002X",  # no date
    "std::add, x[::2], x[1::2], [10::20], Foo::Bar, 12:30:45, 00:1a:2b:3c:4d:5e",
    "git@github.com:acme/pumps.git, react@18.2.0, icon@2x.png, pkg@1.0.0-alpha.beta, @app.route, a@b",
    "sk-learn, sk-text-representation-fallback, task-1234567890abcdefgh, eyJ, AKIA",
    "bearer of bad news, Bearer authentication-required",
    "What is -----BEGIN PRIVATE KEY----- for?",
    "phone - 1299.00, phone 12, iPhone 15 128",
]


@pytest.mark.parametrize(("kind", "text"), FOUND)
def test_what_is_personal_is_found_whole(kind: str, text: str) -> None:
    """Alone, in a sentence, in Chinese without blanks, in brackets and in lines; nothing beside it is taken."""
    for before, after in (
        ("", ""),
        ("Use ", "."),
        ("请用", "，谢谢"),
        ("(", ")"),
        ('"', '",'),
        ("a\n", "\nb"),
        ("\\n", "\\n"),
    ):
        start = len(before)
        assert find(before + text + after) == [Found(kind, start, start + len(text))], before
        assert mask(before + text + after) == f"{before}[{kind}]{after}"


@pytest.mark.parametrize("text", NONE)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    """Amounts, days, versions, numbers of orders and parts, code, and whatever its own check refutes."""
    assert find(text) == []
    assert find(f"见{text}。") == []
    assert mask(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f'-H "Authorization: Bearer {JWT}"', '-H "Authorization: Bearer [key]"'),
        ("Bearer abcdefghijklmnop123", "Bearer [key]"),
        (f"{CUT}\nand so on", "[key]\nand so on"),
        (f"{PEM}{PEM}", "[key][key]"),
        ("Card 4111 1111 1111 1111 123, 12/27", "Card [card] 123, 12/27"),
        ("7,4111111111111111,13800138000,a@b.org", "7,[card],[phone],[email]"),
        ("IBAN:DE89370400440532013000 BIC COBADEFF", "IBAN:[iban] BIC COBADEFF"),
        ("http://10.0.0.1:8080/ from 10.0.0.0/8, IP:2001:db8::1.", "http://[ip]:8080/ from [ip]/8, IP:[ip]."),
        ("mailto:a@b.org?cc=c@d.org", "mailto:[email]?cc=[email]"),
        ('Tel./Fax: 5551234, "phoneNumber": "5551234"', 'Tel./Fax: [phone], "phoneNumber": "[phone]"'),
        ("Phone number is 912 345 678", "Phone number is [phone]"),
        ("2026-01-31 12:30 030 1234567 2026-02-01", "2026-01-31 12:30 [phone] 2026-02-01"),
        ("030 1234567 123456, 030 1234567 040 1234567", "[phone] 123456, [phone] [phone]"),
    ],
)
def test_what_stands_around_stays(text: str, masked: str) -> None:
    """Words, punctuation, and other numbers beside what is masked."""
    assert mask(text) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("身份证11010519491231002X电话13800138000邮箱zhang@qq.com", "身份证[cn_id]电话[phone]邮箱[email]"),
        ("手机号１３８００１３８０００，谢谢", "手机号[phone]，谢谢"),
        ("电话：（０１０）１２３４５６７８转８０１", "电话：[phone]"),
        ("身份证１１０１０５１９４９１２３１００２Ｘ。", "身份证[cn_id]。"),
        ("卡号６２２２０２１２３４５６７８９０１２８", "卡号[card]"),
        ("zhang＠qq．com", "[email]"),
        ("服务器１０．０．０．１上", "服务器[ip]上"),
        ("+49\u00a030\u20111234567", "[phone]"),
        ("\u0660\u0661\u0660-\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668", "[phone]"),
    ],
)  # fmt: skip
def test_digits_of_every_width_count(text: str, masked: str) -> None:
    """Full-width and Arabic digits, signs and blanks of other kinds, and Chinese on both sides."""
    assert mask(text) == masked


PIECES = [
    "1", "0", "4111", "+49", "@", ".", "-", " ", ":", "a", "号", "\\n", "eyJ", "13800138000", "a@b.org", "10.0.0.1",
]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)))
def test_places_are_in_order_and_apart(text: str) -> None:
    """Whatever the text is, and what is not found is in the masked text as it was."""
    found = find(text)
    at, kept = 0, ""
    for each in found:
        assert at <= each.start < each.end <= len(text)
        kept += text[at : each.start] + f"[{each.kind}]"
        at = each.end
    assert mask(text) == kept + text[at:]


@pytest.mark.parametrize(
    "piece",
    [
        "1", "0", "4", "@", ".", ":", "-", "+", "(", "a", "a.", "a@", "1@", "a@a.", "@1.", "1.1@", "4444 ", "4 ",
        "0 1 ", "+1 ", "+49", "0049 ", "138", "13800138000 ", "010-12345678 ", "1.1.1.1", "1.1.1.1 ", "f:", "111:1 ",
        "a::1 ", "DE12", "DE12 ", "11010519491231", "sk-", "sk-1", "eyJ", "eyJaaaaaaaa.", "Bearer ", "bearer", "tel ",
        "tel:1", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n", "1-", "01-02-",
        "10:30 ", "a'", "%", "(02) ", "\\n", "１", "号", "号13800138000", "4111111111111111 ", "a@a.aa ",
        "tel 1234567 ",
    ],
)  # fmt: skip
def test_hostile_texts_take_linear_time(piece: str) -> None:
    """100 kB of what patterns could stumble over takes no longer than other texts."""
    text = piece * (100_000 // len(piece))
    began = time.perf_counter()
    find(text)
    assert time.perf_counter() - began < 2

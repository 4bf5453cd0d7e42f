"""TLS: whose certificates are taken, and which one is shown."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.foundation.upstream_kit import Peer, Run, always, answer, asking, chunked, run, serve, until
from upstack.core.errors import Failure
from upstack.core.types import Timeouts, Tls

__all__ = ["run"]

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificates")

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
REPLY = answer(b"{}")


class Authority:
    """A certificate authority and what it signed: NAME.pem and NAME.key in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._openssl("req", "-x509", *_KEY, "-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem")
        self.bundle = str(folder / "ca.pem")

    def issue(self, name: str, *names: str) -> tuple[str, str]:
        """Make a certificate for these subject alternative names; give the paths of certificate and key."""
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "")
        self._openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", str(extensions))
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "other")


@pytest.fixture(scope="module")
def local(authority: Authority) -> tuple[str, str]:
    return authority.issue("local", "DNS:localhost", "IP:127.0.0.1")


def server_side(pair: tuple[str, str], clients: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_certificate_of_the_given_authority_is_taken_and_the_connection_kept(
    run: Run, authority: Authority, local: tuple[str, str]
) -> None:
    protocols: set[str | None] = set()

    async def script(peer: Peer) -> None:
        protocols.add(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await always(REPLY, chunked(b"a" * 100_000, b"b"), REPLY)(peer)

    async def main() -> None:
        async with serve(script, server_side(local)) as server, asking() as asker:
            tls = Tls(ca_bundle=authority.bundle)
            sizes = [len((await asker.ask(server.url, tls=tls)).body) for _ in range(4)]
            assert sizes == [2, 100_001, 2, 2]
            assert (await asker.ask(server.url.replace("127.0.0.1", "localhost"), tls=tls)).failure is None
            assert len(server.peers) == 2
            assert protocols == {"http/1.1"}

    run(main())


@pytest.mark.parametrize("whose", ["the system's", "a stranger's"])
def test_a_certificate_of_another_authority_is_refused(
    run: Run, stranger: Authority, local: tuple[str, str], whose: str
) -> None:
    async def main() -> None:
        async with serve(always(REPLY), server_side(local)) as server, asking() as asker:
            tls = Tls() if whose == "the system's" else Tls(ca_bundle=stranger.bundle)
            got = await asker.ask(server.url, tls=tls)
            assert got.failure is Failure.REFUSED
            assert got.error
            assert f"127.0.0.1:{server.port}: its certificate is not accepted" in got.error.message
            assert not server.peers

    run(main())


def test_a_certificate_for_another_name_is_refused(run: Run, authority: Authority) -> None:
    async def main() -> None:
        pair = authority.issue("elsewhere", "DNS:elsewhere.example", "IP:127.0.0.9")
        async with serve(always(REPLY), server_side(pair)) as server, asking() as asker:
            for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
                got = await asker.ask(url, tls=Tls(ca_bundle=authority.bundle))
                assert got.failure is Failure.REFUSED
                assert got.error
                assert "mismatch" in got.error.message

    run(main())


def test_the_authorities_of_the_environment_are_taken(
    run: Run, authority: Authority, local: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setenv("SSL_CERT_FILE", authority.bundle)
        async with serve(always(REPLY), server_side(local)) as server, asking() as asker:
            assert (await asker.ask(server.url)).failure is None

    run(main())


def test_a_client_certificate_is_shown_and_its_absence_is_told(
    run: Run, authority: Authority, local: tuple[str, str]
) -> None:
    async def main() -> None:
        pair = authority.issue("client")
        async with serve(always(REPLY), server_side(local, authority.bundle)) as server, asking() as asker:
            shown = Tls(ca_bundle=authority.bundle, client_cert=pair[0], client_key=pair[1])
            assert (await asker.ask(server.url, tls=shown)).failure is None
            got = await asker.ask(server.url, tls=Tls(ca_bundle=authority.bundle))
            assert got.failure in {Failure.REFUSED, Failure.RESET}
            assert got.error
            assert f"127.0.0.1:{server.port}" in got.error.message

    run(main())


def test_a_renewed_client_certificate_needs_no_restart(
    run: Run, authority: Authority, local: tuple[str, str], tmp_path: Path
) -> None:
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        subject = peer.writer.get_extra_info("peercert")["subject"]
        seen.append(dict(part[0] for part in subject)["commonName"])
        await always(answer(b"{}", b"Connection: close"))(peer)

    async def main() -> None:
        shown = Tls(authority.bundle, str(tmp_path / "cert.pem"), str(tmp_path / "cert.key"))
        async with serve(script, server_side(local, authority.bundle)) as server, asking() as asker:
            for name in ("monday", "tuesday"):
                cert, key = authority.issue(name)
                shutil.copy(cert, tmp_path / "cert.pem")
                shutil.copy(key, tmp_path / "cert.key")
                assert (await asker.ask(server.url, tls=shown)).failure is None
            assert seen == ["monday", "tuesday"]

    run(main())


@pytest.mark.parametrize("broken", ["missing", "nonsense", "encrypted key"])
def test_files_that_cannot_be_used_are_named(
    run: Run, authority: Authority, local: tuple[str, str], tmp_path: Path, broken: str
) -> None:
    path = tmp_path / "bad.pem"
    tls = Tls(ca_bundle=str(path))
    if broken == "nonsense":
        path.write_text("nonsense")
    if broken == "encrypted key":
        command = ["openssl", "ec", "-in", local[1], "-aes256", "-passout", "pass:secret", "-out", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        tls = Tls(authority.bundle, local[0], str(path))

    async def main() -> None:
        async with serve(always(REPLY), server_side(local)) as server, asking() as asker:
            got = await asker.ask(server.url, tls=tls)
            assert got.failure is Failure.REFUSED
            assert got.error
            assert str(path) in got.error.message

    run(main())


@pytest.mark.parametrize("other", ["plain HTTP", "silence", "a closed door"])
def test_a_port_that_does_not_speak_tls_is_refused_in_time(run: Run, other: str) -> None:
    async def script(peer: Peer) -> None:
        if other == "plain HTTP":
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if other != "a closed door":
            await asyncio.sleep(10)

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            got = await asker.ask(f"https://127.0.0.1:{server.port}", timeouts=Timeouts(connect=0.3))
            assert got.failure is (Failure.CONNECT_TIMEOUT if other == "silence" else Failure.REFUSED)

    run(main())


def test_over_tls_too_a_slow_reader_stops_the_provider_and_a_cancel_is_seen_at_once(
    run: Run, authority: Authority, local: tuple[str, str]
) -> None:
    pushed = 0
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal pushed
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        try:
            for _ in range(800):
                await peer.send(b"x" * 250_000)
                pushed += 250_000
        finally:
            left.set()

    async def main() -> None:
        async with serve(script, server_side(local)) as server, asking() as asker:
            got = asker.send(server.url, tls=Tls(ca_bundle=authority.bundle))
            got.pause_at = 1
            await until(lambda: bool(got.pieces))
            await asyncio.sleep(0.3)
            assert pushed < 32_000_000
            assert len(got.body) < 2_000_000
            assert got.call
            got.call.cancel()
            async with asyncio.timeout(1):
                await left.wait()

    run(main())


def test_over_tls_too_a_closed_kept_connection_is_stale_and_half_an_answer_truncated(
    run: Run, authority: Authority, local: tuple[str, str]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(REPLY)
        await peer.request()
        if peer.number:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    async def main() -> None:
        async with serve(script, server_side(local)) as server, asking() as asker:
            tls = Tls(ca_bundle=authority.bundle)
            failures = [(await asker.ask(server.url, tls=tls)).failure for _ in range(4)]
            assert failures == [None, Failure.STALE, None, Failure.TRUNCATED]

    run(main())

"""`upstack ledger key` and `checkpoint`: the key that signs for a ledger, and where its chains stand."""

from __future__ import annotations

from pathlib import Path

import msgspec

from upstack.cli.options import keystore_of, ledger_of
from upstack.cli.output import print_json, say
from upstack.core.store.custody import custody, make_checkpoints


def show_key(ledger: str | None, config: Path | None, *, new: bool, as_json: bool) -> None:
    """Print the public key as PEM on standard output, and its fingerprint beside it."""
    with custody(ledger_of(ledger, config), keystore_of(ledger, config), new=new) as (keystore, signer):
        if as_json:
            print_json({"fingerprint": signer.fingerprint, "public_key": signer.pem, "keystore": keystore.path})
            return
        print(signer.pem, end="")
        say(f"{signer.fingerprint}, in {keystore.path}", stderr=True)


def sign(ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Sign and print; what is printed can be told from what was signed by nobody."""
    place = ledger_of(ledger, config)
    with custody(place, keystore_of(ledger, config)) as (_, signer):
        points = make_checkpoints(place, signer)
    if as_json:
        print_json(msgspec.to_builtins(points))
        return
    for point in points:
        print(msgspec.json.encode(point).decode())

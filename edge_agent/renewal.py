"""``python -m edge_agent.renewal --config agent.toml [--if-due]``: a new key and certificate beside the old ones.

A short-lived child of the agent, so that the agent itself needs no library for certificates. It also asks for what
has changed of whom the device obeys and of the keys of its receipts: the agent looks at those files after each child.
Exit codes: 0 there is a new pair, 1 there is none, or what else has changed is not known, 3 the configuration is
wrong, 10 none is due.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker_config.enrolment import RenewRequest, renewal_proof
from edge_agent import config, trusting
from edge_agent.adapters import files, x509
from edge_agent.adapters.enrolment import EnrolmentError, Listener
from edge_agent.config import ConfigError, Settings
from edge_agent.identity import Pair, due_s, put_next

RENEWED: Final = 0
FAILED: Final = 1
BAD_CONFIG: Final = 3
NOT_DUE: Final = 10


def renew(settings: Settings, *, if_due: bool, now_s: float) -> int:
    """RENEWED or NOT_DUE.

    Raises:
        EnrolmentError: says what to do next; what was there is there.
        OSError, BadIdentityError, BadKeysError: a file cannot be read or written.
    """
    table = settings.file.enrolment
    if table is None:
        raise EnrolmentError("this device was not enrolled: agent.toml has no [enrolment]; see edge-agent enroll")
    own = Pair(settings.cert_file, settings.key_file)
    with files.changing(own):
        listener = Listener(table.url, settings.ca_file)
        done = _renew(listener, own, if_due=if_due, now_s=now_s)
        try:
            if trusting.refresh(settings, listener, own):
                print("there are newer signers or keys; the agent that runs takes them up when it next looks")
        except (EnrolmentError, OSError, files.BadKeysError, x509.BadIdentityError) as error:
            if done == NOT_DUE:
                raise
            print(f"edge-agent: {error}", file=sys.stderr)  # the new pair is there all the same
    return done


def _renew(listener: Listener, own: Pair, *, if_due: bool, now_s: float) -> int:
    waiting = len(files.pairs(own)) > 1
    if waiting and not x509.is_pair(own.cert_file.read_bytes(), own.key_file.read_bytes()):
        files.follow_through(own)  # the power went while the next pair took this one's place
        waiting = False
    if if_due and now_s < _due_s(x509.life(own.cert_file.read_bytes()), waiting=waiting):
        return NOT_DUE
    made = x509.new_key()
    nonce = listener.nonce()
    given = listener.renew(
        RenewRequest(
            own.cert_file.read_text(encoding="ascii"),
            made.csr_pem,
            nonce,
            x509.prove(own.key_file.read_bytes(), renewal_proof(nonce, made.csr_pem)),
        )
    )
    for step in put_next(own, cert=x509.presented(given.certificate, given.chain), key=made.key_pem):
        files.carry_out(step)
    return RENEWED


def _due_s(life: x509.Life, *, waiting: bool) -> float:
    """A new pair that has not connected is replaced too, but not before it had half of the time that is left."""
    due = due_s(**life._asdict())
    return (due + life.not_after_s) / 2 if waiting else due


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring for the exit codes."""
    parser = argparse.ArgumentParser(prog="edge-agent renew", description="Get this device a new certificate.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="agent.toml")
    parser.add_argument("--if-due", action="store_true", help="only if two thirds of the old one's life are over")
    arguments = parser.parse_args(argv)
    try:
        done = renew(config.load(arguments.config), if_due=arguments.if_due, now_s=time.time())
    except ConfigError as error:
        for fault in error.faults:
            print(f"edge-agent: {fault}", file=sys.stderr)
        return BAD_CONFIG
    except (EnrolmentError, OSError, files.BadKeysError, x509.BadIdentityError) as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return FAILED
    if done == RENEWED:
        print("there is a new certificate; the agent tries it when it next connects")
    return done


if __name__ == "__main__":
    sys.exit(main())

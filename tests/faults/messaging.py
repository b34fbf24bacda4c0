"""Scenes of `hl7v2`: groups with a receiver each, which stores every acknowledged message."""

import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from uuid import uuid4

from consumers.hl7v2.mapping import EVENT_PART, event_part, news, note_hl7
from consumers.hl7v2.options import Hl7Options
from consumers.lifecycle.facts import Document, stamp_of
from tests.faults.away import HOST, AwayServer
from tests.faults.scene import Ground, Scene, Subject, scene_of
from tests.topic_filler import Lives

NAME = "hl7v2"


class Receiver(AwayServer):
    """An MLLP server that acknowledges every message."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []  # every acknowledged message in order, repeats included

    def bound(self) -> socketserver.ThreadingTCPServer:
        return _Server((HOST, self.port), type("Handler", (_Handler,), {"receiver": self}))

    def ids(self) -> list[str]:
        return list(dict.fromkeys(_control_id(each)[:EVENT_PART] for each in self.taken))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


class _Handler(socketserver.StreamRequestHandler):
    receiver: Receiver

    def handle(self) -> None:
        frame = b""
        try:
            while more := self.connection.recv(65_536):
                frame += more
                while b"\x1c\x0d" in frame:
                    message, _, frame = frame.removeprefix(b"\x0b").partition(b"\x1c\x0d")
                    self.receiver.taken.append(message)
                    answer = b"MSH|^~\\&|EHR||DRX||20260101||ACK|1|P|2.5.1\rMSA|AA|" + _control_id(message).encode()
                    self.connection.sendall(b"\x0b" + answer + b"\r\x1c\x0d")
        except OSError:
            return


@contextmanager
def sending(ground: Ground, lives: Lives) -> Iterator[Scene]:
    receiver, instance = Receiver(), f"i{uuid4().hex[:12]}"
    options = {
        "HOST": HOST,
        "PORT": str(receiver.port),
        "ALLOW_PLAINTEXT": "true",
        "INSTANCE": instance,
        "TOPICS": f"faults.hl7v2.{instance}",
        "ACK_TIMEOUT_S": "5",
    }
    subject = Subject(NAME, f"{NAME}.{instance}", options["TOPICS"], options, partial(check, receiver))
    with receiver, scene_of(ground, subject, lives) as scene:
        yield scene


def check(receiver: Receiver, scene: Scene) -> None:
    assert scene.parked() == 0
    schema = scene.group.replace(".", "_")
    assert scene.ask(f'select count(*) from "{schema}".held') == [(0,)]  # noqa: S608 - ours
    ids = receiver.ids()
    assert len(set(receiver.taken)) == len(ids)
    due = [_messages(scene.lives, number) for number in range(scene.lives.prescriptions)]
    assert set(ids) == set(chain.from_iterable(due))
    places = {each: place for place, each in enumerate(ids)}
    assert [of_one for of_one in due if of_one != sorted(of_one, key=places.__getitem__)] == []


def _messages(lives: Lives, number: int) -> list[str]:
    """Return the control ids of a prescription's events whose messages are due: all once its patient is known."""
    document: Document = {}
    told = Hl7Options(host=HOST, port=1)
    due = []
    for event in lives.events(number):
        note_hl7(document, event, stamp_of(event))
        if news(event, document, told, ordered=False) is not None:
            due.append(event_part(event))
    return due


def _control_id(message: bytes) -> str:
    return message.split(b"|", 10)[9].decode()

"""A receiver of HL7 v2 to try the consumer `hl7v2` with: it prints each message and acknowledges it."""

import socketserver
import sys

START, END = b"\x0b", b"\x1c\r"


class Connection(socketserver.StreamRequestHandler):
    """Handles the messages of one connection, one after the other."""

    def handle(self) -> None:
        """Read MLLP frames until the sender closes the connection."""
        frames = b""
        while more := self.connection.recv(65_536):
            frames += more
            while END in frames:
                frame, _, frames = frames.partition(END)
                message = frame.removeprefix(START).decode()
                sys.stdout.write(message.replace("\r", "\n") + "\n")
                sys.stdout.flush()
                self.acknowledge(message.split("|", 10)[9])

    def acknowledge(self, control_id: str) -> None:
        """Return the acknowledgement of the message with this MSH-10."""
        answer = f"MSH|^~\\&|EHR||DRX||20260101||ACK|1|P|2.5.1\rMSA|AA|{control_id}\r"
        self.connection.sendall(START + answer.encode() + END)


class Server(socketserver.ThreadingTCPServer):
    """Listens on this machine only."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Connection).serve_forever()

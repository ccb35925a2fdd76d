"""Does a server answer, in its own protocol and with our password?

A port that merely accepts a connection may be a server that is still starting, or a stranger's.
"""

import socket
import struct

TIMEOUT_SECONDS = 2.0


def postgres_answers(port: int, *, user: str, database: str) -> bool:
    """Say whether a Postgres that is ready for clients asks `user` for a password."""
    words = f"user\0{user}\0database\0{database}\0\0".encode()
    startup = struct.pack("!ii", 8 + len(words), 3 << 16) + words
    # 'R' asks for authentication; 'E' is "the database system is starting up".
    return _first_byte(port, startup) == b"R"


def valkey_answers(port: int, *, password: str) -> bool:
    """Say whether a Valkey that has loaded its data accepts `password`."""
    try:
        with _connect(port) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return _receive(connection, 12) == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


def rabbitmq_answers(port: int, *, user: str, password: str) -> bool:
    """Say whether a RabbitMQ lets `user` open the default virtual host (AMQP 0-9-1 §4.2)."""
    login = (
        _long(b"") + _short(b"PLAIN") + _long(f"\0{user}\0{password}".encode()) + _short(b"en_US")
    )
    try:
        with _connect(port) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            if _method(connection) != (10, 10):  # start
                return False
            connection.sendall(_frame(10, 11, login))
            if _method(connection) != (10, 30):  # tune
                return False
            connection.sendall(_frame(10, 31, struct.pack("!HIH", 1, 131072, 0)))
            connection.sendall(_frame(10, 40, _short(b"/") + _short(b"") + b"\0"))
            if _method(connection) != (10, 41):  # open-ok
                return False
            connection.sendall(_frame(10, 50, struct.pack("!H", 200) + _short(b"") + b"\0\0\0\0"))
            return _method(connection) == (10, 51)  # close-ok
    except OSError:
        return False


def accepts(port: int) -> bool:
    """Say whether anybody listens at this port."""
    try:
        _connect(port).close()
    except OSError:
        return False
    return True


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)


def _first_byte(port: int, question: bytes) -> bytes:
    try:
        with _connect(port) as connection:
            connection.sendall(question)
            return connection.recv(1)
    except OSError:
        return b""


def _receive(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        chunk = connection.recv(count - len(received))
        if not chunk:
            raise ConnectionError
        received += chunk
    return received


def _method(connection: socket.socket) -> tuple[int, int]:
    """Read one frame and return the class and the method that it carries."""
    kind, _channel, size = struct.unpack("!BHI", _receive(connection, 7))
    payload = _receive(connection, size + 1)
    if kind != 1 or size < 4:
        return (0, 0)
    return struct.unpack("!HH", payload[:4])


def _frame(class_id: int, method_id: int, arguments: bytes) -> bytes:
    payload = struct.pack("!HH", class_id, method_id) + arguments
    return struct.pack("!BHI", 1, 0, len(payload)) + payload + b"\xce"


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data

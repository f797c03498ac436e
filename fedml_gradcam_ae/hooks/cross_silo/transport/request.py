"""Parser of FedML's CommRequest, since protobuf in pure Python takes seconds for a few MB of empty fields."""

from __future__ import annotations

CLIENT_ID = 1 << 3  # Tag of field 1, a varint.
MESSAGE = 2 << 3 | 2  # Tag of field 2, bytes that follow their length.
LARGEST = 2**31 - 1  # Largest number that is accepted.
VARINT_BYTES = 5  # Maximum length of a varint in bytes, enough for LARGEST.


def read_request(content: bytes) -> tuple[int, bytes]:
    """Read a CommRequest in which each field occurs at most once.

    Args:
        content: the serialized CommRequest.

    Returns:
        The fields `client_id` (0 if it is missing) and `message` (empty if it is missing).

    Raises:
        ValueError: if the bytes are not a CommRequest, if a field is unknown or occurs twice, or if `client_id` is
            negative.

    Example:
        >>> read_request(bytes([8, 3, 18, 2]) + b"hi")
        (3, b'hi')
    """
    client_id: int | None = None
    message: bytes | None = None
    position = 0
    while position < len(content):
        tag = content[position]
        if tag not in (CLIENT_ID, MESSAGE):
            raise ValueError(f"expected the field client_id or message, found a field that begins with byte {tag}")
        value, position = _varint(content, position + 1)
        if tag == CLIENT_ID and client_id is None:
            client_id = value
        elif tag == MESSAGE and message is None:
            if value > len(content) - position:
                raise ValueError(f"expected {value} bytes of message, found {len(content) - position}")
            message = content[position : position + value]
            position += value
        else:
            raise ValueError("expected each field once, found one twice")
    return client_id or 0, message or b""


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Return the varint at a position, and the position after it."""
    value = 0
    for index, byte in enumerate(content[position : position + VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value > LARGEST:
                break
            return value, position + index + 1
    raise ValueError(f"expected a number from 0 to {LARGEST}, found another or none")

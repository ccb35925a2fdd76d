"""Decoding of valid, damaged and foreign cache values."""

from hypothesis import given
from hypothesis import strategies as st

from daybook_platform.cache.codec import decode, encode

EPOCH, SHAPE, KEY = b"e1", b"5a5a5a5a", "daybook:product:1"


@given(st.binary())
def test_an_encoded_body_decodes_unchanged(body: bytes) -> None:
    value = encode(body, key=KEY, epoch=EPOCH, shape=SHAPE)
    assert decode(value, key=KEY, epoch=EPOCH, shape=SHAPE) == body


@given(st.binary() | st.none())
def test_garbage_is_not_an_entry(value: bytes | None) -> None:
    assert decode(value, key=KEY, epoch=EPOCH, shape=SHAPE) is None


@given(st.binary(min_size=1), st.data())
def test_a_damaged_entry_is_invalid(body: bytes, data: st.DataObject) -> None:
    value = encode(body, key=KEY, epoch=EPOCH, shape=SHAPE)
    position = data.draw(st.integers(0, len(value) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != value[position]))
    damaged = value[:position] + bytes([byte]) + value[position + 1 :]
    assert decode(damaged, key=KEY, epoch=EPOCH, shape=SHAPE) is None
    assert decode(value[:-1], key=KEY, epoch=EPOCH, shape=SHAPE) is None


def test_an_entry_is_valid_only_under_its_key_epoch_and_shape() -> None:
    value = encode(b"{}", key=KEY, epoch=EPOCH, shape=SHAPE)
    assert decode(value, key="daybook:product:2", epoch=EPOCH, shape=SHAPE) is None
    assert decode(value, key=KEY, epoch=b"e2", shape=SHAPE) is None
    assert decode(value, key=KEY, epoch=None, shape=SHAPE) is None
    assert decode(value, key=KEY, epoch=EPOCH, shape=b"00000000") is None

"""TensorBoard event files, written without TensorBoard, TensorFlow or torch.

tensorboardX and torch.utils.tensorboard import torch, which costs the driver of a run seconds and hundreds of megabytes; three
kinds of records suffice here. A file is a sequence of TFRecords, each a protobuf `Event`; field numbers are those
of TensorFlow's event.proto, summary.proto and tensor.proto.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

from raylr.reporting.rows import leaves

CRC32C = 0x82F63B78  # Castagnoli's polynomial, reflected
MASK_DELTA = 0xA282EAD8
DT_STRING, SESSION_START = 7, 1


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (CRC32C if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


CRC_TABLE = _crc_table()


class EventFile:
    """An event file in a folder; every record is on the disk when a method returns."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.raylr"
        self._file = FileIO(folder / name, "x")
        self._write(_text(3, "brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write a value for each tag."""
        found = (_text(1, tag) + _field(2, 5, struct.pack("<f", _float32(value))) for tag, value in values.items())
        self._write(_number(2, step) + _message(5, b"".join(_message(1, value) for value in found)))

    def text(self, step: int, tag: str, text: str) -> None:
        """Write Markdown that TensorBoard shows under Text."""
        tensor = _number(1, DT_STRING) + _message(2, _message(2, _number(1, 1))) + _text(8, text)
        value = _text(1, tag) + _message(8, tensor) + _message(9, _message(1, _text(1, "text")))
        self._write(_number(2, step) + _message(5, _message(1, value)))

    def restart(self, step: int) -> None:
        """Make readers drop earlier records of `step` and later."""
        self._write(_number(2, step) + _message(7, _number(1, SESSION_START)))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: bytes) -> None:
        data = _field(1, 1, struct.pack("<d", time.time())) + event
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked_crc(length) + data + _masked_crc(data))


class TensorBoard:
    """Event files in `tensorboard/` of the run folder."""

    takes_files: ClassVar[bool] = False

    def __init__(self) -> None:
        self._last_step: int | None = None

    def open(self, run_dir: Path, name: str, settings: Mapping[str, Any], family: object = None) -> None:
        self._events = EventFile(run_dir / "tensorboard")
        rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self._events.text(0, "plan", f"| setting | value |\n|---|---|\n{rows}")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._last_step is None or step < self._last_step:  # the run goes on from a checkpoint
            self._events.restart(step)
        self._last_step = step
        self._events.scalars(step, values)

    def note(self, step: int, text: str) -> None:
        self._events.text(step, "events", text)

    def keep(self, kind: str, paths: Sequence[Path]) -> None: ...

    def close(self, result: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {key} | {value} |" for key, value in leaves(result).items())
        self._events.text(self._last_step or 0, "result", f"| result | value |\n|---|---|\n{rows}")
        self._events.close()


def _float32(value: float) -> float:
    """The value, or infinity where a float32 cannot hold it."""
    return value if abs(value) < 3.4e38 or value != value else float("inf") * (1 if value > 0 else -1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, wire_type: int, data: bytes) -> bytes:
    return _varint(number << 3 | wire_type) + data


def _number(number: int, value: int) -> bytes:
    return _field(number, 0, _varint(value))


def _message(number: int, data: bytes) -> bytes:
    return _field(number, 2, _varint(len(data)) + data)


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode(errors="replace"))


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF)

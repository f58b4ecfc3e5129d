"""A TensorBoard events file by TensorBoard's own record writer, read back by its own reader.

Writes `events/events.bin`.
"""

import pathlib

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

OUT = pathlib.Path(__file__).parent / "events" / "events.bin"


def scalars(wall_time, step, values):
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
    return Event(wall_time=wall_time, step=step, summary=summary)


def main():
    events = [
        Event(wall_time=1_700_000_000.25, file_version="brain.Event:2"),
        Event(wall_time=1_700_000_000.25, step=300, session_log=SessionLog(status=SessionLog.START)),
        scalars(1_700_000_001.5, 300, [("reward/mean", -2.125), ("policy/approx_kl", 1e-9)]),
        scalars(1_700_000_002.5, 301, [("reward/mean", float("nan")), ("größe", 3e10)]),
    ]
    OUT.parent.mkdir(exist_ok=True)
    with open(OUT, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
        writer.flush()
    read = [Event.FromString(raw) for raw in RawEventFileLoader(str(OUT)).Load()]
    assert [e.step for e in read] == [0, 300, 300, 301], read
    print(f"{len(read)} events, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Retention by several threads and readers at once: nobody trips over a file that another one removed."""

from __future__ import annotations

import threading
from pathlib import Path

import penstock


def test_maintenance_beside_writers_and_readers(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    stop = threading.Event()
    with penstock.open(tmp_path, maintenance_interval_ms=1) as broker:
        topic = broker.create_topic("t", segment_bytes=1 << 20, retention_bytes=2 << 20)

        def read() -> None:
            try:
                with broker.consumer("t") as consumer:
                    while not stop.is_set():
                        consumer.poll(timeout=0.01)
                        topic.log(0).offset_for_timestamp(1)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        with broker.producer() as producer:
            for _ in range(60):
                producer.send_many("t", [b"x" * 1000] * 1000)
        stop.set()
        thread.join()
        assert topic.log(0).log_start_offset > 0
    assert errors == []

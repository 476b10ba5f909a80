"""Kafka's own performance tools: a Java machine for every run, which times itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from bench.compare.clients.kafka_client import KafkaClient
from bench.compare.values import Load

TOOLS = "org.apache.kafka.tools"
TUNED = ("batch.size=1048576", "linger.ms=5", "buffer.memory=268435456")
FETCH = str(8 << 20)
PAYLOAD_BYTES = 4 << 20


class KafkaJava(KafkaClient):
    """ProducerPerformance, ConsumerPerformance, ShareConsumerPerformance."""

    requires = ("confluent_kafka",)  # makes the topics
    fixed = MappingProxyType({"writing": 2_500_000, "reading": 2_500_000, "queueing": 500_000})
    missing: ClassVar[dict[str, str]] = {
        "keyed": "the tool sends no keys",
        "consume-group": "its consumer is always in a group: see consume",
        "single": "the tool does not wait for each",
        "latency": "the tools have no schedule",
        "parallel": "the tool writes to and reads from all partitions",
        "starting": "measured with confluent-kafka",
    }

    def __init__(self, place: Any, tuned: bool = True, **options: Any) -> None:
        super().__init__(place, tuned, **options)
        if not tuned:
            self.fixed = dict.fromkeys(self.fixed, 700_000)

    def _lay_out(self, load: Load) -> None:
        if load.size < PAYLOAD_BYTES:
            lines = load.block[: PAYLOAD_BYTES // load.size]
            self._payload().write_bytes(b"\n".join(lines) + b"\n")

    def _payload(self) -> Path:
        return Path(self.place["directory"]) / "payloads"

    def _what(self, load: Load) -> tuple[str, str]:
        """Lines of a file: a quarter of the time of values that the tool makes up byte by byte."""
        if load.size < PAYLOAD_BYTES and self.tuned:
            return "--payload-file", str(self._payload())
        return "--record-size", str(load.size)

    def _run(self, tool: str, *arguments: str) -> list[str]:
        command = ["java", "-Xmx1g", "-XX:+UseG1GC", "-cp", f"{self.place['jars']}/*", f"{TOOLS}.{tool}"]
        bootstrap = ("--bootstrap-server", self.place["bootstrap"])
        done = subprocess.run([*command, *bootstrap, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{tool}: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout.splitlines()

    def write(self, topic: str, load: Load) -> float:
        """Seconds of the tool's own clock, from its first record to its last acknowledgement."""
        self._lay_out(load)
        properties = [*(TUNED if self.tuned else ()), "max.request.size=4194304"]
        if self._lz4:
            properties.append("compression.type=lz4")
        lines = self._run(
            "ProducerPerformance",
            *("--topic", topic, "--num-records", str(load.count), "--throughput", "-1", *self._what(load)),
            *("--reporting-interval", "3600000", "--command-property", *properties),
        )
        rate = next(line for line in reversed(lines) if "records/sec" in line).split(",")[1].split()[0]
        return load.count / float(rate)

    def read(self, topic: str, count: int, group: str | None) -> float:
        """Seconds of fetching; joining the group is not counted."""
        fetch = ("--fetch-size", FETCH) if self.tuned else ()
        lines = self._run(
            "ConsumerPerformance",
            *("--topic", topic, "--num-records", str(count), "--timeout", "60000", "--hide-header", *fetch),
            *(("--group", group) if group else ()),
        )
        fields = [field.strip() for field in lines[-1].split(",")]
        consumed, rate = float(fields[4]), float(fields[9])
        assert consumed >= count, f"{consumed} of {count} records"
        return count / rate

    def replay(self, topic: str, count: int) -> float:
        return self.read(topic, count, None)

    def fill(self, queue: str, load: Load) -> None:
        self.create(queue)
        self.write(queue, load)

    def take(self, queue: str, count: int) -> float:
        """Seconds, with those of joining, which the tool counts; the share group begins with the oldest record."""
        group = f"share-{queue}"
        self.topics.share_from_beginning(group)
        lines = self._run(
            "ShareConsumerPerformance",
            *("--topic", queue, "--group", group, "--num-records", str(count), "--timeout", "60000", "--hide-header"),
        )
        fields = [field.strip() for field in lines[-1].split(",")]
        return float(fields[6]) / 1000

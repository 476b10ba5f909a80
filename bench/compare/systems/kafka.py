"""Apache Kafka in KRaft mode: one node, its own Java tools, three Python clients."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.compare.fetch import maven
from bench.compare.model import CACHE, DISK, Absent, Side
from bench.compare.process import Server, free_port
from bench.compare.systems.base import Running

VERSION = "4.2.0"
ARTIFACTS = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    f"org.apache.kafka:kafka-tools:{VERSION}",
    "org.slf4j:slf4j-nop:1.7.36",
)
# as Kafka's start script sets them
JVM = (
    "-server",
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)
CLUSTER = "AAAAAAAAQACAAAAAAAAAAQ"
HELLO = bytes.fromhex("0000000a 0012 0000 00000000 ffff")  # ApiVersions, version 0
# the last line: while others are measured it is stopped, which its controller must not take for its death
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={directory}/logs
auto.create.topics.enable=false
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
log.segment.delete.delay.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3600000
group.share.max.partition.max.record.locks=10000
group.share.partition.max.record.locks=10000
"""
SOCKET = "socket"
TOOL = "kafka_java:KafkaJava"
PYTHON = "Python"
WIRE = "acknowledged by the broker; "
SIDES = (
    Side(
        "confluent",
        "Kafka, confluent-kafka",
        "confluent:Confluent",
        PYTHON,
        SOCKET,
        WIRE + "linger.ms 5, batch.size 1 MB, batch.num.messages 100,000; queued.min.messages 1,000,000, "
        "fetch.queue.backoff.ms 1, consume(10,000); for latency linger.ms 0 at 1,000/s, 1 at 10,000/s; "
        "share consumer for the queue",
        CACHE,
        {"tuned": True},
    ),
    Side(
        "confluent-batch",
        "Kafka, confluent-kafka, produce_batch",
        "confluent:Confluent",
        PYTHON,
        SOCKET,
        WIRE + "as above, produce_batch of 10,000",
        CACHE,
        {"tuned": True, "batch": True},
        workloads=("produce-100", "produce-1k", "produce-10k"),
    ),
    Side(
        "confluent-default",
        "Kafka, confluent-kafka as it comes",
        "confluent:Confluent",
        PYTHON,
        SOCKET,
        WIRE + "default settings; consume(500)",
        CACHE,
        {"tuned": False},
        tuned=False,
    ),
    Side(
        "kafka-java",
        "Kafka, its Java tools",
        TOOL,
        "Java",
        SOCKET,
        WIRE + "ProducerPerformance with batch.size 1 MB, linger.ms 5, buffer.memory 256 MB; ConsumerPerformance with "
        "fetch-size 8 MB, without the time of joining; ShareConsumerPerformance with it",
        CACHE,
        {"tuned": True},
    ),
    Side(
        "kafka-java-default",
        "Kafka, its Java tools as they come",
        TOOL,
        "Java",
        SOCKET,
        WIRE + "default settings",
        CACHE,
        {"tuned": False},
        tuned=False,
    ),
    Side(
        "kafka-python",
        "Kafka, kafka-python",
        "kafka_python:KafkaPython",
        PYTHON,
        SOCKET,
        WIRE + "linger_ms 5, batch_size 1 MB; poll(max_records=10,000), 8 MB fetches",
        CACHE,
        {"tuned": True},
        workloads=("produce-100", "produce-1k", "one-by-one", "consume", "consume-group", "latency-1k", "latency-10k"),
    ),
    Side(
        "kafka-python-default",
        "Kafka, kafka-python as it comes",
        "kafka_python:KafkaPython",
        PYTHON,
        SOCKET,
        WIRE + "default settings",
        CACHE,
        {"tuned": False},
        tuned=False,
    ),
    Side(
        "aiokafka",
        "Kafka, aiokafka",
        "aiokafka:Aiokafka",
        PYTHON,
        SOCKET,
        WIRE + "linger_ms 5, max_batch_size 1 MB, create_batch; getmany(max_records=10,000), 8 MB fetches",
        CACHE,
        {"tuned": True},
        workloads=("produce-100", "produce-1k", "one-by-one", "consume", "consume-group", "latency-1k", "latency-10k"),
    ),
    Side(
        "aiokafka-default",
        "Kafka, aiokafka as it comes",
        "aiokafka:Aiokafka",
        PYTHON,
        SOCKET,
        WIRE + "default settings, send for each value",
        CACHE,
        {"tuned": False},
        tuned=False,
    ),
)


class Kafka:
    """One broker that is its own controller. With `bootstrap` somebody else's, which is not started nor stopped."""

    name = "kafka"
    sides = SIDES

    def __init__(self, bootstrap: str | None = None) -> None:
        self._bootstrap = bootstrap
        self._jars: Path | None = None

    def prepare(self, cache: Path) -> None:
        """The jars; they hold the Java tools as well. A broker that runs elsewhere can do without."""
        try:
            self._jars = maven.get(f"kafka-{VERSION}", ARTIFACTS, cache)
        except Absent:
            if self._bootstrap is None:
                raise

    def version(self) -> str:
        """Ours, or where the other one is."""
        return f"Apache Kafka {VERSION}" if self._bootstrap is None else f"Apache Kafka at {self._bootstrap}"

    def place(self, directory: Path) -> dict[str, str]:
        """Ports and a formatted directory for a server that is not started yet."""
        jars = str(self._jars) if self._jars else ""
        if self._bootstrap is not None:
            return {"directory": str(directory), "bootstrap": self._bootstrap, "jars": jars}
        port, controller = free_port(), free_port()
        directory.mkdir(parents=True)
        text = PROPERTIES.format(port=port, controller=controller, directory=directory)
        (directory / "server.properties").write_text(text)
        command = [*self._java("-Xmx256m"), "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]
        done = subprocess.run(
            [*command, str(directory / "server.properties")], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Absent(f"formatting failed: {(done.stdout + done.stderr).strip()[-300:]}")
        return {"directory": str(directory), "bootstrap": f"127.0.0.1:{port}", "port": str(port), "jars": jars}

    def start(
        self, directory: Path, durability: str, *, wait: bool = True, place: dict[str, str] | None = None
    ) -> Running:
        """One broker."""
        place = {**(place or self.place(directory)), "durability": durability}
        if self._bootstrap is not None:
            directory.mkdir(parents=True, exist_ok=True)
            return Running(place)
        properties = directory / "server.properties"
        flush = ("--override", "log.flush.interval.messages=1") if durability == DISK else ()
        command = [*self._java(*JVM), "kafka.Kafka", str(properties), *flush]
        running = Running(place, [Server(command, directory / "server.log")], HELLO)
        if wait:
            running.await_ready(90)
        return running

    def _java(self, *options: str) -> list[str]:
        return ["java", *options, "-cp", f"{self._jars}/*"]

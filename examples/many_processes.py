"""Three processes write to one topic while two read it: `python examples/many_processes.py`.

Every process opens the same directory; there is no server.
"""

import multiprocessing
import tempfile

import penstock
from penstock import TopicPartition

WRITERS = 3
PARTITIONS = 2
RECORDS_EACH = 50_000


def write(directory: str, writer: int) -> None:
    """Store this writer's records."""
    with penstock.open(directory) as broker, broker.producer() as producer:
        producer.send_many("events", [b"writer %d, record %d" % (writer, number) for number in range(RECORDS_EACH)])
        producer.flush()


def read(directory: str, partition: int, done: "multiprocessing.Queue[int]") -> None:
    """Count the records of one partition until the writers' last word, a record with the key `end`."""
    count = 0
    with penstock.open(directory) as broker, broker.consumer() as consumer:
        consumer.assign([TopicPartition("events", partition)])
        for record in consumer:  # waits for more without using the processor
            if record.key == b"end":
                break
            count += 1
    done.put(count)


def main(directory: str) -> int:
    """Run all processes; returns how many records the readers saw."""
    context = multiprocessing.get_context("spawn")
    done: multiprocessing.Queue[int] = context.Queue()
    with penstock.open(directory) as broker:
        topic = broker.create_topic("events", partitions=PARTITIONS)
        readers = [context.Process(target=read, args=(directory, number, done)) for number in range(PARTITIONS)]
        writers = [context.Process(target=write, args=(directory, number)) for number in range(WRITERS)]
        for process in readers + writers:
            process.start()
        for process in writers:
            process.join()
        for number in range(PARTITIONS):
            topic.append(b"", key=b"end", partition=number)
        counts = [done.get(timeout=60) for _ in readers]
        for process in readers:
            process.join()
    print(
        f"{WRITERS} writers stored {WRITERS * RECORDS_EACH:,} records; the readers saw {counts}, in all {sum(counts):,}"
    )
    return sum(counts)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        assert main(temporary) == WRITERS * RECORDS_EACH

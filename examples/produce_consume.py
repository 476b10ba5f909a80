"""Store a few orders, read them back: `python examples/produce_consume.py [DIRECTORY]`."""

import sys
import tempfile

import penstock


def main(directory: str) -> None:
    with penstock.open(directory) as broker:
        if "orders" not in broker.topics():
            broker.create_topic("orders", partitions=3)

        # Stored when it returns.
        stored = broker.topic("orders").append(b'{"order": 1}', key=b"customer-7")
        print(f"order 1 is in partition {stored.partition} at offset {stored.offset}")

        # Batched: faster, stored when flush returns (leaving the block flushes).
        with broker.producer(linger_ms=5, compression_type="lz4") as producer:
            for number in range(2, 11):
                producer.send("orders", b'{"order": %d}' % number, key=b"customer-%d" % (number % 3))
            producer.flush()

        # `for record in consumer` would wait for more; poll returns [] when there is nothing new.
        with broker.consumer("orders") as consumer:
            while records := consumer.poll(max_records=100, timeout=0):
                for record in records:
                    print(f"{record.topic}-{record.partition}@{record.offset} {record.key!r}: {record.value!r}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)

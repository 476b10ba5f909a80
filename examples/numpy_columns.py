"""Measurements as numpy arrays, in and out, without an object for each record: `python examples/numpy_columns.py`."""

import tempfile

import numpy as np

import penstock

COUNT = 200_000
READING = np.dtype([("sensor", "<u4"), ("celsius", "<f4")])


def main(directory: str) -> float:
    """Store made-up readings and average them; returns the mean temperature."""
    readings = np.zeros(COUNT, READING)
    readings["sensor"] = np.arange(COUNT) % 100
    readings["celsius"] = 20 + np.sin(np.arange(COUNT) / 1000)

    with penstock.open(directory) as broker:
        broker.create_topic("readings")
        with broker.producer() as producer:
            producer.send_array("readings", readings.view(np.uint8).reshape(COUNT, READING.itemsize))
            producer.flush()

        total, count = 0.0, 0
        with broker.consumer("readings") as consumer:
            while batches := consumer.poll_batches(timeout=0):
                for batch in batches:
                    # value_buffer is the stored file itself; gather the 8 bytes of each value by their positions
                    places = batch.value_starts[:, None] + np.arange(READING.itemsize)
                    stored = batch.value_buffer[places].view(READING)[:, 0]
                    total += float(stored["celsius"].sum(dtype=np.float64))
                    count += batch.count
    print(f"{count:,} readings, mean {total / count:.3f} degrees Celsius")
    return total / count


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(temporary)

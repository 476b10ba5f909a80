"""A queue with a worker: retries with back-off, a dead letter with its traceback, and another try for it."""

import tempfile
import time

import penstock

attempts: dict[bytes, int] = {}
mended = False


def send_email(message: penstock.Message) -> None:
    """Fails now and then, as the world does; and always for one address, until somebody mends that."""
    attempts[message.value] = attempts.get(message.value, 0) + 1
    if message.value == b"nobody@example.org" and not mended:
        raise ValueError("no such address")
    if message.value.startswith(b"3") and attempts[message.value] == 1:
        raise ConnectionError("the mail server is away")


with tempfile.TemporaryDirectory() as directory, penstock.open(directory) as broker:
    emails = broker.queue("emails", dead_letter="emails-dead")
    signups = broker.exchange("signups", type="topic")
    signups.bind(emails, "user.*.created")
    for number in range(100):
        signups.publish(b"%d@example.org" % number, routing_key="user.eu.created")
    signups.publish(b"nobody@example.org", routing_key="user.eu.created")

    retry = penstock.RetryPolicy(max_attempts=3, delay=0.01, max_delay=0.05)
    worker = emails.worker(send_email, threads=4, prefetch=10, retry=retry).start()
    dead = broker.queue("emails-dead")
    while emails.stats().acknowledged < 100 or not dead.stats().ready:
        time.sleep(0.01)

    (letter,) = emails.peek("dead")
    headers = dict(letter.headers)
    print("dead:", letter.value, headers["dead-letter-reason"], headers["dead-letter-error"].splitlines()[-1])

    mended = True
    print("redriven:", emails.redrive().moved)
    while emails.stats().acknowledged < 101:
        time.sleep(0.01)
    worker.stop()
    worker.join()
    print(emails.stats())
    assert sum(attempts.values()) == 100 + 11 + 3 + 1  # "3" and "30" to "39" took two attempts

"""A received message, and acknowledging many. Thread safety: any thread; settling is one change of the message's word."""

cimport cython
from libc.stdint cimport int64_t

from penstock._native.delivery_states cimport DeliveryStates
from penstock._native.control cimport monotonic_ns
from penstock._native.delivery_view cimport count_up, view_accept
from penstock._native.metrics cimport metrics_observe_shared

from penstock.errors import InvalidTypeError, StaleReceiptError


cdef object _around_ack = None


def set_around_ack(around):
    """Have `Message.ack` call `around(message)` instead, which is to call `accept` (for tracing); None: no longer."""
    global _around_ack
    _around_ack = around


def accept(Message message not None):
    """What `Message.ack` does."""
    message.accept()


@cython.no_gc  # nothing that it refers to refers to messages
@cython.freelist(1024)
cdef class Message:
    """One received message. Settle it by `ack`, `nack` or `reject` before its visibility time-out, or `extend` that.

    `value`: the body, bytes (or None). `key`: the record's key, bytes or None. `offset`: where it is stored in its partition.
    `timestamp_ms`: when it was sent, milliseconds since the epoch.

    As a context manager: acknowledges on leaving, and when an exception leaves, nacks (a failure).
    """

    @property
    def id(self):
        """The message's name: `<topic>-<partition>-<offset>`."""
        return f"{self.delivery.log.topic}-{self.delivery.log.number}-{self.offset}"

    @property
    def topic(self):
        """The topic it is stored in."""
        return self.delivery.log.topic

    @property
    def partition(self):
        """The partition it is stored in."""
        return self.delivery.log.number

    @property
    def group_id(self):
        """Its message group (the record's key), or None."""
        return None if self.key is None else (<bytes>self.key).decode("utf-8", "surrogateescape")

    @property
    def headers(self):
        """Headers as a new list of (str, bytes or None), without those that the queue itself uses."""
        return [pair for pair in self.pairs or () if not pair[0].startswith("penstock.")]

    @property
    def all_headers(self):
        """Every header as a new list of (str, bytes or None)."""
        return list(self.pairs or ())

    @property
    def delivery_count(self):
        """How often it was received so far, this time included (SQS's ApproximateReceiveCount)."""
        return self.receipt

    @property
    def failure_count(self):
        """How many of those deliveries failed: nacked, or timed out."""
        return self.failures

    @property
    def first_received_ms(self):
        """When it was first received, milliseconds since the epoch (SQS's ApproximateFirstReceiveTimestamp); None when it
        never was. Not exact in one case: the first lock ran out after the queue's `visibility_timeout` was changed."""
        return self.first_ms or None

    @property
    def attributes(self):
        """What SQS calls system attributes, under its names: a new dict of str."""
        found = {"SentTimestamp": str(self.timestamp_ms), "ApproximateReceiveCount": str(self.receipt)}
        if self.first_ms:
            found["ApproximateFirstReceiveTimestamp"] = str(self.first_ms)
        if self.key is not None:
            found["MessageGroupId"] = self.group_id
        for name, value in self.pairs or ():
            if name == "penstock.deduplication-id" and value is not None:
                found["MessageDeduplicationId"] = value.decode("utf-8", "surrogateescape")
        found["SequenceNumber"] = f"{self.offset:020d}"
        return found

    @property
    def receipt_handle(self):
        """Names this delivery, for `Queue.delete` and `Queue.change_visibility`, in any process."""
        return f"{self.delivery.log.number}.{self.offset}.{self.receipt}"

    @property
    def priority(self):
        """Its priority; 0 is the lowest."""
        return self.queue.priority_of(self.delivery.log.number)

    def ack(self):
        """It was dealt with: never delivered to this group again. `StaleReceiptError` when it was received again since."""
        if _around_ack is not None:
            _around_ack(self)
        else:
            self.accept()

    cdef int accept(self) except -1:
        if self.delivery.accept(self.offset, self.receipt):
            count_up(&self.delivery.control.acknowledgements, 1)
        self.settled = True
        if self.weight:
            _observe(self)
        if self.delivery.sync_each:
            self.delivery.sync()

    def nack(self, delay=0.0, failed=True):
        """Give it back, to be delivered again after `delay` seconds. `failed` (default) counts towards the delivery limit."""
        self.queue._nack(self, delay, failed)
        self.settled = True

    def reject(self, reason="rejected"):
        """It can never be dealt with: dead-letter it (or keep it as dead) without further deliveries."""
        self.queue._reject(self, reason)
        self.settled = True

    def extend(self, seconds):
        """Its visibility time-out ends `seconds` from now (0: give it back at once, which is no failure)."""
        self.queue._extend(self, seconds)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.settled:
            return
        if kind is None:
            self.ack()
        elif issubclass(kind, Exception):
            self.queue._failed(self, error)
            self.settled = True
        else:
            self.nack(failed=False)

    def __repr__(self):
        return f"<penstock.Message {self.id} delivery_count={self.receipt} value={self.value!r}>"


cdef int _observe(Message message) except -1:
    """Note how long it took from receiving to acknowledging."""
    if message.delivery.metrics != NULL:
        metrics_observe_shared(
            &message.delivery.metrics.processing_us, (monotonic_ns() - message.received_ns) // 1000, message.weight
        )
    message.weight = 0
    return 0


def ack_many(messages):
    """Acknowledge messages of any queues; returns those whose receipts are stale (the others are acknowledged)."""
    cdef Message message
    cdef DeliveryStates delivery
    cdef DeliveryStates counted = None
    cdef int64_t count = 0
    cdef int done
    cdef set synced = None
    cdef list given
    stale = []
    try:
        given = list(messages)  # looked through twice
    except TypeError:
        raise InvalidTypeError(f"messages is {type(messages).__name__}; an iterable of received messages is needed") from None
    for item in given:
        if not isinstance(item, Message):
            raise InvalidTypeError(f"messages has a {type(item).__name__}; received messages are needed")
    for item in given:
        message = <Message>item
        delivery = message.delivery
        if delivery is not counted:
            if count:
                count_up(&counted.control.acknowledgements, count)
            counted, count = delivery, 0
            if delivery.sync_each:
                synced = synced or set()
                synced.add(delivery)
        done = view_accept(&delivery.view, message.offset, message.receipt)
        if done < 0:
            try:
                done = delivery.accept(message.offset, message.receipt)
            except StaleReceiptError:
                stale.append(message)
                continue
        count += done
        message.settled = True
        if message.weight:
            _observe(message)
    if count:
        count_up(&counted.control.acknowledgements, count)
    if synced:
        for one in synced:
            one.sync()
    return stale

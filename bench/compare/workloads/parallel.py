"""Several producers or consumers as processes on one topic; they begin together."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from bench.compare import usage
from bench.compare.child import Child
from bench.compare.model import Turn
from bench.compare.turn import Meter, Setting
from bench.compare.values import Load
from bench.compare.workloads.sizing import most, sized, spare


def run(setting: Setting) -> Turn:
    """Messages a second, all processes together, from the word to go until the last is done."""
    number = setting.workload.options["processes"]
    role = setting.workload.options["role"]
    with ExitStack() as stack:
        first = stack.enter_context(Child(setting.job(role="first", member=0, members=number)))
        count = first.ready()["count"]
        jobs = [setting.job(role=role, member=member, members=number, share=count) for member in range(1, number)]
        children = [first, *(stack.enter_context(Child(job)) for job in jobs)]
        for child in children[1:]:
            child.ready()
        cpu, started = usage.cpu_s(setting.running.pids()), time.perf_counter()
        for child in children:
            child.go()
        answers = [child.receive() for child in children]
        seconds = time.perf_counter() - started
        server_cpu = usage.cpu_s(setting.running.pids()) - cpu
    total = sum(answer["count"] for answer in answers)
    turn = Turn(total / seconds)
    client_cpu = sum(answer["cpu_s"] for answer in answers)
    turn.more = {
        "count": total,
        "seconds": seconds,
        "client_cpu_us": client_cpu / total * 1e6,
        "server_cpu_us": server_cpu / total * 1e6,
    }
    return turn


def work(client: Any, job: dict[str, Any], gate: Any) -> dict[str, Any]:
    """In a client process. The first makes the topic, finds the size and, for reading, fills it.

    Every process has a partition of its own, as producers and consumers of a log have when there are enough of them.
    """
    load = Load.of(job["options"], most(job, 100) // job["members"])
    reading = job["options"]["role"] == "read"
    count = _prepare(client, job, load, reading) if job["role"] == "first" else job["share"]
    load = load.sized(count)
    client.ready(load)
    member = job["member"]
    gate.wait(count=count)
    with Meter() as meter:
        if reading:
            client.read(job["topic"], count, None, partition=member)
        else:
            client.write(job["topic"], load, partition=member)
    return meter.answer(count)


def _prepare(client: Any, job: dict[str, Any], load: Load, reading: bool) -> int:
    trials = iter(range(100))

    def trial(count: int) -> float:
        topic = spare(job, next(trials))
        client.create(topic)
        with Meter() as meter:
            client.write(topic, load.sized(count))
        if reading:
            with Meter() as meter:
                client.read(topic, count, None)
        client.drop(topic)
        return meter.seconds

    halved = {**job, "rate": job["rate"] and job["rate"] / job["members"], "records": load.count}
    count = sized(halved, load.size, trial, client.fixed)
    client.create(job["topic"], partitions=job["members"])
    if reading:
        for partition in range(job["members"]):
            client.write(job["topic"], load.sized(count), partition=partition)
    return count

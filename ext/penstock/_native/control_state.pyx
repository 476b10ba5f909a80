"""What a control file says, in a form that Python reads and writes; see `control.h` for the file itself.

Thread and process safety: reading, any, also while others publish (a snapshot is never half of two states). Crash policy:
a file that is missing, foreign or cut says nothing; what it says after a crash is judged by recovery.
"""

from libc.string cimport memcmp

from penstock._native.control cimport (
    PENSTOCK_CONTROL_MAGIC,
    PENSTOCK_CONTROL_SIZE,
    PENSTOCK_CONTROL_VERSION,
    control_checksum,
    control_file,
    control_slot,
    control_snapshot,
)
from penstock._native.mapping cimport Mapping


cdef dict slot_dict(control_slot *s):
    return {
        "log_end_offset": s.log_end_offset,
        "log_start_offset": s.log_start_offset,
        "active_base_offset": s.active_base_offset,
        "end_position": s.end_position,
        "index_entries": s.index_entries,
        "time_index_entries": s.time_index_entries,
        "bytes_since_index": s.bytes_since_index,
        "max_timestamp_ms": s.max_timestamp_ms,
        "max_timestamp_offset": s.max_timestamp_offset,
        "first_timestamp_ms": s.first_timestamp_ms,
        "generation": s.generation,
        "last_indexed_timestamp_ms": s.last_indexed_timestamp_ms,
    }


cdef void fill_slot(control_slot *s, dict values) except *:
    s.log_end_offset = values["log_end_offset"]
    s.log_start_offset = values["log_start_offset"]
    s.active_base_offset = values["active_base_offset"]
    s.end_position = values["end_position"]
    s.index_entries = values["index_entries"]
    s.time_index_entries = values["time_index_entries"]
    s.bytes_since_index = values["bytes_since_index"]
    s.max_timestamp_ms = values["max_timestamp_ms"]
    s.max_timestamp_offset = values["max_timestamp_offset"]
    s.first_timestamp_ms = values["first_timestamp_ms"]
    s.generation = values["generation"]
    s.last_indexed_timestamp_ms = values["last_indexed_timestamp_ms"]


def read_control(str path not None):
    """What a control file says, or None when it is missing, foreign or cut. Does not need (or disturb) a running broker.

    Keys: those of a published slot, and `incarnation`, `boot_id`, `checkpoint` (a slot known to be on the disk, or None).
    """
    try:
        return control_state(Mapping(path, PENSTOCK_CONTROL_SIZE, False, False))
    except FileNotFoundError:
        return None


cdef dict control_state(Mapping map):
    """The same, of a file that is mapped."""
    cdef control_file *c = <control_file *>map.data
    cdef control_slot slot
    cdef dict result
    if map.file_size() < PENSTOCK_CONTROL_SIZE:
        return None
    if memcmp(c.magic, PENSTOCK_CONTROL_MAGIC, 8) != 0 or c.version != PENSTOCK_CONTROL_VERSION:
        return None
    control_snapshot(c, &slot)
    result = slot_dict(&slot)
    result["incarnation"] = c.incarnation
    result["boot_id"] = bytes(c.boot_id[:36]).decode("ascii", "replace")
    result["checkpoint"] = _checkpoint(c)
    return result


cdef object _checkpoint(control_file *c):
    cdef object best = None
    cdef int i
    cdef control_slot *slot
    for i in range(2):
        slot = &c.checkpoints[i].value.slot
        if c.checkpoints[i].value.checksum == control_checksum(slot) and c.checkpoints[i].value.checksum != 0:
            if best is None or slot.log_end_offset > best["log_end_offset"]:
                best = slot_dict(slot)
    return best

from penstock._native.control cimport control_slot
from penstock._native.mapping cimport Mapping


cdef dict control_state(Mapping map)
cdef dict slot_dict(control_slot *s)
cdef void fill_slot(control_slot *s, dict values) except *

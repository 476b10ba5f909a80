from penstock._native.control cimport control_slot


cdef dict slot_dict(control_slot *s)
cdef void fill_slot(control_slot *s, dict values) except *

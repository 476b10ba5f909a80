"""Publishing by routing key: the native half of `Exchange`, for routes that are known and lead to one plain queue.

Thread safety: the routes change under the GIL only. They hold until somebody rings the bell of routing or of the catalog.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from penstock._native.bell cimport Bell
from penstock._native.records cimport RecordMetadata


cdef extern from "Python.h":
    str PyUnicode_FromFormat(const char *format, ...)


cdef class Route:
    """Where a routing key leads: `sends`, what stores a message in each place; or `append` of one topic, when that is all."""
    cdef readonly list sends
    cdef readonly object append, headers
    cdef readonly str prefix

    def __init__(self, list sends not None, append, str prefix not None, headers):
        self.sends = sends
        self.append = append
        self.prefix = prefix
        self.headers = headers


cdef class Publisher:
    """`_publish(value, routing_key, headers, mandatory, options)`, in the subclass, does what is not simple."""
    cdef dict _routes
    cdef Bell _routing, _catalog
    cdef uint32_t _routing_seen, _catalog_seen

    def __init__(self, Bell routing not None, Bell catalog not None):
        self._routing = routing
        self._catalog = catalog
        self._routes = {}

    def publish(self, value, routing_key="", headers=None, mandatory=False, **options):
        """Store a message in every queue that it is routed to; returns their ids (a publisher confirm: they are stored).

        `mandatory`: raise `UnroutableError` when it matches nothing, instead of dropping it ([]). `options`: `delay`,
        `priority`, `ttl`, `group_id`, `deduplication_id`, `at`, as for `Queue.send`. Raises what `Queue.send` raises;
        queues stored before the failing one keep their copy.
        """
        cdef Route route
        cdef RecordMetadata stored
        if headers is None and not options and value is not None and type(routing_key) is str:
            route = self.known_route(routing_key)
            if route is not None and route.append is not None:
                stored = route.append(value, None, route.headers, None, 0)
                return [PyUnicode_FromFormat("%U%lld", <PyObject *>route.prefix, <long long>stored.offset)]
        return self._publish(value, routing_key, headers, mandatory, options)

    cpdef Route known_route(self, str routing_key):
        """The route of a key, if it was found since the bells rang last."""
        if self._routing_seen != self._routing.words.value or self._catalog_seen != self._catalog.words.value:
            return None
        return self._routes.get(routing_key)

    def keep_route(self, str routing_key not None, Route route not None, uint32_t routing_seen, uint32_t catalog_seen, Py_ssize_t most):
        """Remember a route that was found when the bells had these values."""
        if self._routing_seen != routing_seen or self._catalog_seen != catalog_seen or len(self._routes) >= most:
            self._routes = {}
            self._routing_seen = routing_seen
            self._catalog_seen = catalog_seen
        self._routes[routing_key] = route

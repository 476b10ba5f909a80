from penstock._native.read_segment import ReadSegment
from penstock._native.region import Region

class LogRegion(Region):
    segment: ReadSegment
    next_offset: int
    next_position: int
    def first_batch_at(self, timestamp_ms: int) -> LogRegion | None: ...

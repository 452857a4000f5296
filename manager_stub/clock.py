"""The time, as the manager stores it and NSX's interface tells it: milliseconds since 1970."""

import time


def now_ms() -> int:
    return time.time_ns() // 1_000_000

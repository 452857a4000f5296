"""Who leads: of several managers on one PostgreSQL database one writes and publishes, the others stand by.

The leader has a lease, which it renews every second. Who stands by takes the lead when it has seen no
renewal for LEASE_S, by its own clock, so that clocks need not agree; at once if it was given back, or was its
own before it was started again. Whoever takes it makes the epoch higher by one, and the epoch is a fence:
every transaction asks first whether it is still the leader's, and holds off whoever would take the lead until
it ends. So a leader that was stopped, or cut off, writes nothing after another has taken over.

What it still publishes in that moment does no harm: a message was stored before it is sent, so the next
leader has the same one, byte for byte, and a host applies it once. Owns a thread, since the loop may be busy
for longer than a lease.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
import structlog

from manager_stub import database
from manager_stub.schema import leaders

log = structlog.get_logger("manager.lead")

RENEW_S: Final = 1.0
LEASE_S: Final = 6.0
_ANSWER_S: Final = 3
"""That the database may take for a renewal, so that one which is lost leaves time for another."""


class Lost(Exception):
    """This manager does not lead, or cannot know: the text says why. Nothing was written, unless the database
    went away with the last word: then only who reads it next can tell."""


class Lead:
    def __init__(self, url: sa.URL, me: str) -> None:
        """`me` is the address of this manager's REST interface."""
        self.leader = ""
        """Who leads, as far as it is known."""
        self.epoch = 0
        self._me = me
        self._engine = database.engine(url, _ANSWER_S)
        self._until = 0.0
        self._seen = (-1, -1)
        self._since = 0.0
        self._ended: Callable[[], object] = lambda: None
        self._stop = threading.Event()
        self._stop.set()

    @property
    def is_mine(self) -> bool:
        return _now_s() < self._until

    def take(self, ended: Callable[[], object]) -> bool:
        """Whether this manager leads now. `ended` is called once, by another thread, when it does not any
        more. Raises Lost where the database does not answer."""
        try:
            with self._engine.begin() as connection:
                if not sa.inspect(connection).has_table(leaders.name):
                    database.migrate(connection)  # of a newer database the leader is asked first
                taken = self._take(connection)
        except sa.exc.DBAPIError as error:
            self.leader = ""
            raise Lost(f"the database: {error.orig}") from None
        if taken:
            self._stop, self._ended = threading.Event(), ended
            threading.Thread(target=self._keep, args=[self._stop], name="lease", daemon=True).start()
        return taken

    def _take(self, connection: sa.Connection) -> bool:
        row = connection.execute(sa.select(leaders)).one()
        begun = _now_s()
        if (row.epoch, row.beat) != self._seen:
            self._seen, self._since = (row.epoch, row.beat), begun
        self.leader = row.url
        given_back = row.url == ""
        mine = row.epoch == self.epoch or (row.url == self._me and not self.epoch)
        if not (given_back or mine or begun >= self._since + LEASE_S):
            return False
        # Waits for the transaction that the old leader may be in the middle of, and for who else takes it.
        same = leaders.c.epoch == row.epoch, leaders.c.beat == row.beat
        mine_now = {"epoch": row.epoch + 1, "url": self._me, "beat": row.beat + 1}
        if not connection.execute(leaders.update().where(*same).values(mine_now)).rowcount:
            return False
        self.epoch, self.leader = row.epoch + 1, self._me
        self._until = begun + LEASE_S
        return True

    def check(self, connection: sa.Connection) -> None:
        """In a transaction: while it lasts nobody else takes the lead. Raises Lost."""
        # KEY SHARE keeps off whoever would take the lead, not the renewals.
        epoch = connection.execute(
            sa.select(leaders.c.epoch).with_for_update(read=True, key_share=True)
        ).scalar_one()
        if epoch != self.epoch:
            self.end(f"another manager leads, with epoch {epoch}")
            raise Lost(f"another manager leads, with epoch {epoch}; this one had {self.epoch}")

    def end(self, reason: str) -> None:
        if not self._stop.is_set():
            log.warning("this manager leads no more", epoch=self.epoch, reason=reason)
            self._stop.set()
            self._until = 0.0
            self._ended()

    def give_back(self) -> None:
        """In order, so that another need not wait."""
        if not self._stop.is_set():
            self._stop.set()
            self._until = 0.0
            mine = leaders.c.epoch == self.epoch
            try:
                with self._engine.begin() as connection:
                    connection.execute(leaders.update().where(mine).values(url=""))
            except sa.exc.DBAPIError as error:
                log.warning("the lead was not given back", reason=str(error.orig))

    def close(self) -> None:
        self._engine.dispose()

    def _keep(self, stop: threading.Event) -> None:
        """Renew the lease until it is lost. A database that does not answer may do so yet."""
        mine = leaders.c.epoch == self.epoch
        renewal = leaders.update().where(mine).values(beat=leaders.c.beat + 1)
        reason = "the lease has run out"
        while not stop.wait(RENEW_S):
            begun = _now_s()
            try:
                with self._engine.begin() as connection:
                    renewed = connection.execute(renewal).rowcount
            except sa.exc.DBAPIError as error:
                reason = f"the database: {error.orig}"
            else:
                if not renewed:
                    self.end("another manager leads")
                    return
                self._until = begun + LEASE_S
            if not self.is_mine:
                self.end(reason)
                return


def _now_s() -> float:
    """Goes on while the machine is suspended, as others' clocks do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)

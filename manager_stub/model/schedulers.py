"""Schedulers: when the rules of a section are in force."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from manager_stub.model.fields import Entity, Strict

Day = Literal["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]
DAYS: Final[tuple[Day, ...]] = get_args(Day)
MAX_INTERVALS: Final = 48


def minute_of(text: str) -> int:
    """Of the day; 24:00 is its end."""
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def day_of(text: str) -> datetime:
    return datetime.strptime(text, "%m/%d/%Y")


def _check_date(text: str) -> str:
    if not re.fullmatch(r"[0-9]{2}/[0-9]{2}/[0-9]{4}", text):
        raise ValueError(f"{text!r} is not a date as MM/DD/YYYY")
    try:
        day_of(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a day of the calendar") from None
    return text


def _check_time(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,2}:[0-9]{2}", text) or text[-2:] > "59" or minute_of(text) > 24 * 60:
        raise ValueError(f"{text!r} is not a time of day as HH:MM")
    return text


def _check_half_hour(text: str) -> str:
    if minute_of(_check_time(text)) % 30:
        raise ValueError(f"{text!r} is not a multiple of 30 minutes")
    return text


Date = Annotated[str, AfterValidator(_check_date)]
Time = Annotated[str, AfterValidator(_check_time)]
HalfHour = Annotated[str, AfterValidator(_check_half_hour)]


class TimeInterval(Strict):
    start_interval: HalfHour
    end_interval: HalfHour

    @model_validator(mode="after")
    def _ends_later(self) -> "TimeInterval":
        if minute_of(self.end_interval) <= minute_of(self.start_interval):
            raise ValueError("end_interval: not after start_interval; an interval over midnight is two")
        return self


class FirewallScheduler(Entity):
    """Recurring: from `start_date` to `end_date`, on these days, in these intervals; what is missing is no
    limit. Otherwise once, from one date and time to another."""

    resource_type: Literal["PolicyFirewallScheduler"] = "PolicyFirewallScheduler"
    recurring: bool = True
    days: Annotated[list[Day], Field(max_length=7)] = []
    time_interval: Annotated[list[TimeInterval], Field(max_length=MAX_INTERVALS)] = []
    start_date: Date | None = None
    end_date: Date | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    timezone: Literal["UTC", "LOCAL"] = "UTC"
    """LOCAL is that of each host."""

    @model_validator(mode="after")
    def _says_when(self) -> "FirewallScheduler":
        once = {name: getattr(self, name) for name in ("start_date", "end_date", "start_time", "end_time")}
        for name in ("start_time", "end_time") if self.recurring else ():
            if once[name] is not None:
                raise ValueError(f"{name}: not with recurring, which has time_interval")
        if self.recurring and not (self.days or self.start_date or self.end_date):
            raise ValueError("days: one of days, start_date and end_date is needed")
        for name in ("days", "time_interval") if not self.recurring else ():
            if getattr(self, name):
                raise ValueError(f"{name}: only with recurring")
        for name, value in once.items() if not self.recurring else ():
            if value is None:
                raise ValueError(f"{name}: needed without recurring")
        begins, ends = self.begins(), self.ends()
        if begins is not None and ends is not None and ends <= begins:
            raise ValueError("end_date: the schedule ends before it begins")
        return self

    def begins(self) -> datetime | None:
        if self.start_date is None:
            return None
        return day_of(self.start_date) + timedelta(minutes=minute_of(self.start_time or "00:00"))

    def ends(self) -> datetime | None:
        """The first moment after it."""
        if self.end_date is None:
            return None
        return day_of(self.end_date) + timedelta(minutes=minute_of(self.end_time or "24:00"))

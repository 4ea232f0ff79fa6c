"""Filters of deliveries: how they are read, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db.models import Q

from signalbus.ledger.base import delivery_filters
from signalbus.ledger.operations.bulk_steps import LASTING_KEYS
from signalbus.services.filters import FilterError, parse_filter, subject_from

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "condition"),
    [
        ("signal:admissions.cohort_saved", Q(message__signal="admissions.cohort_saved")),
        ("receiver:crm.*", Q(receiver__startswith="crm.")),
        ("receiver:*.sync", Q(receiver__endswith=".sync")),
        ("worker:*web*", Q(worker__contains="web")),
        ("state:dead", Q(state="dead")),
        ("state:dead,parked", Q(state="dead") | Q(state="parked")),
        ("queue:email", Q(queue="email")),
        ("queue:signalbus", Q(queue="signalbus") | Q(queue="")),
        ("subject:admissions.cohort:42", Q(message__subject="admissions.Cohort 42")),
        ("error:KeyError", Q(error="KeyError") | Q(error__startswith="KeyError:")),
        ("error:*timed out*", Q(error__contains="timed out")),
        ("attempts:3", Q(attempts=3)),
        ("attempts:>1", Q(attempts__gt=1)),
        ("attempts:<=2", Q(attempts__lte=2)),
        ("since:2h", Q(created_at__gte=NOW - timedelta(hours=2))),
        ("until:90m", Q(created_at__lte=NOW - timedelta(minutes=90))),
        ("since:2026-11-30T10:00", Q(created_at__gte=datetime(2026, 11, 30, 10, tzinfo=UTC))),
    ],
)
def test_each_key_is_a_condition(word: str, condition: Q):
    """A word of a filter selects the deliveries whose column has its value."""
    assert parse_filter([word], NOW).condition == condition


@pytest.mark.parametrize("now", [NOW, NOW.replace(tzinfo=None)], ids=["aware", "naive"])
@pytest.mark.parametrize(
    "word",
    [
        "since:999999d",
        "until:999999d",
        "since:0001-01-01T00:00:00+14:00",
        "until:9999-12-31T23:59:59-14:00",
        "since:2026-02-30",
    ],
)
def test_a_time_that_no_calendar_has_is_refused(word: str, now: datetime):
    """Before the year 1, after 9999, or a 30th of February."""
    with pytest.raises(FilterError, match="give an age, as 90m, 2h or 7d, or a time"):
        parse_filter([word], now)


@pytest.mark.parametrize("key", ["signal", "receiver", "queue", "worker", "error", "group", "release", "subject", "id"])
@pytest.mark.parametrize("character", ["\x00", "\ud800"], ids=["NUL", "a lone surrogate"])
def test_a_character_that_no_database_stores_is_refused(key: str, character: str):
    """PostgreSQL would answer with an error."""
    with pytest.raises(FilterError, match="no database stores"):
        parse_filter([f"{key}:a{character}b"], NOW)


def test_a_filter_selects_what_matches_all_its_words():
    """Several words narrow the selection; the states that are named can be asked for."""
    found = parse_filter(["state:dead", "receiver:crm.sync"], NOW)

    assert found.condition == Q(state="dead") & Q(receiver="crm.sync")
    assert found.states == ("dead",)
    assert str(found) == "state:dead receiver:crm.sync"


def test_an_empty_filter_selects_everything():
    """It is false, so that a caller can use its own default."""
    assert not parse_filter([], NOW)
    assert parse_filter([], NOW).condition == Q()


def test_ages_are_stored_as_times():
    """The text of a filter selects the same deliveries when it is read again an hour later."""
    text = str(parse_filter(["since:2h"], NOW))

    assert parse_filter([text], NOW + timedelta(hours=1)).condition == Q(created_at__gte=NOW - timedelta(hours=2))


def test_times_are_as_the_ledgers_columns_are_read():
    """Without USE_TZ, Django compares naive times in UTC."""
    naive = NOW.replace(tzinfo=None)

    assert parse_filter(["since:1d"], naive).condition == Q(created_at__gte=naive - timedelta(days=1))
    with_zone = parse_filter(["since:2026-11-30T12:00+02:00"], naive)
    assert with_zone.condition == Q(created_at__gte=datetime(2026, 11, 30, 10))


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("dead", "'dead' is no word of a filter: write words as state:dead"),
        ("state:", "'state:' is no word of a filter"),
        ("stat:dead", "'stat' is no key of a filter: did you mean 'state'"),
        ("xyzzy:1", "there are signal, receiver, state"),
        ("payload.slug:web-42", "payloads are not searched, as no index has them. Name a row of the payload"),
        ("state:ded", "no such state: did you mean 'dead'"),
        ("attempts:many", "give a number, as attempts:3 or attempts:>1"),
        ("since:yesterday", "give an age, as 90m, 2h or 7d"),
        ("since:2026-02-30T10:00", "give an age, as 90m, 2h or 7d"),
        ("id:42", "'42' is no id"),
        ("receiver:*", "selects everything: leave the word out"),
    ],
)
def test_bad_input_the_error_names_the_invalid_word_and_the_remedy(word: str, remedy: str):
    """The error says which word is wrong, and what to write."""
    with pytest.raises(FilterError, match=remedy.replace("*", r"\*").replace("(", r"\(")):
        parse_filter([word], NOW)


def test_bad_input_an_endless_filter_is_refused():
    """A filter has a limit, so that a page or a command cannot build a query without end."""
    with pytest.raises(FilterError, match="at most 20 words and 1000 characters"):
        parse_filter([f"id:{uuid4()}"] * 21, NOW)
    with pytest.raises(FilterError, match="at most 20 words"):
        parse_filter(["error:" + "x" * 1000], NOW)


def test_a_subject_may_name_a_model_that_is_gone():
    """Old messages about a removed model can still be found."""
    assert subject_from("shop.gone:7") == "shop.gone 7"
    assert subject_from("admissions.Cohort 42") == "admissions.Cohort 42"


def test_each_key_is_known_to_last_or_to_change():
    """An operation finds what it has changed by the words that last: whoever adds a key says which kind it is."""
    changing = {"state", "error", "worker", "attempts", "group", "release"}
    assert {*delivery_filters._KEYS, *delivery_filters._TIMES} == LASTING_KEYS | changing

"""Answer with the rows of a list as a file, CSV or JSON, in which no text becomes a formula of a spreadsheet."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

from django.http import HttpResponse, JsonResponse

from signalbus.core.printable_text import printable
from signalbus.ledger import operations as ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from django.http import HttpRequest

FORMATS: Final = ("csv", "json")
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins a formula


def format_of(request: HttpRequest) -> str:
    """Return the format of the file that the address asks for; empty if it asks for a page."""
    given = request.GET.get("format", "")
    return given if given in FORMATS else ""


def file_of(name: str, kind: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> HttpResponse:
    """Return the answer that is a file.

    Args:
        name: of the file without its ending, and of the list in JSON.
        kind: "csv" or "json".
        columns: what a row has, from left to right.
        rows: texts, numbers and None by column.
    """
    table = [{column: row[column] for column in columns} for row in rows]
    if kind == "json":
        return JsonResponse({"schema": 1, name: table})
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    # Quoted: in some countries a spreadsheet divides cells at semicolons, and a part could be a formula.
    writer = csv.writer(response, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([harmless_cell(row[column]) for column in columns] for row in table)
    return response


def iso(moment: datetime | None) -> str:
    """Return a time of the ledger for a file, in UTC; empty for none."""
    return "" if moment is None else ledger.in_utc(moment, ledger.using()).isoformat()


def harmless_cell(value: Any) -> str:
    """Return a cell of a CSV file that no spreadsheet takes for a formula.

    Args:
        value: a text of the ledger, a number, or None.
    """
    text = "" if value is None else printable(str(value))
    return f"'{text}" if text.startswith(FORMULA) else text

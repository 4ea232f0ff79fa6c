"""The incidents: what goes wrong, the questions of the team on call, and the right answers."""

from __future__ import annotations

import os
import signal as signal_numbers
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from signalbus.models import Delivery, Operation, Pause, RunningDelivery, State
from tasks.admissions.models import Academy, Cohort
from tasks.marketing.models import FormEntry
from tests.drill.shop import signals
from tests.drill.shop.models import Effect, Order
from tests.drill.shop.receivers import NUMBER
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from django.db.models import QuerySet

    from signalbus import Signal
    from tests.drill.answers import Answers, Question
    from tests.drill.production import Production

RECEIVERS = "tests.drill.shop.receivers"
PATIENCE = 600.0  # seconds for what the workers do, on a machine that has much else to do
OBEYED = timedelta(seconds=5)  # after which nothing of a paused receiver may start
AGE_OF_LOST = timedelta(seconds=10)  # before which an audit does not judge what was published
ORDER = f"shop.order:{NUMBER}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much goes wrong.

    Args:
        bug: orders that the bug concerns.
        by_card: orders that fail for another cause.
        flushed: orders whose messages the broker loses.
        others: orders of each other incident.
    """

    bug: int
    by_card: int = 50
    flushed: int = 500
    others: int = 50


class Drill:
    """The team on call.

    Args:
        production: the shop.
        answers: where the answers are kept.
        sizes: how much goes wrong.
    """

    def __init__(self, production: Production, answers: Answers, sizes: Sizes) -> None:
        self.production = production
        self.answers = answers
        self.sizes = sizes
        self.healthy_seconds = 0.0  # that a delivery to another receiver took while one failed
        cards = [Order(by_card=number >= sizes.bug) for number in range(sizes.bug + sizes.by_card)]
        self.orders = Order.objects.bulk_create(cards)

    def play(self) -> None:
        """Play all incidents, one after the other.

        Raises:
            WrongAnswer: a command does not say what it must say.
            AssertionError: something was lost or doubled, or did not happen.
        """
        for incident in (
            self.bug, self.broker_flushed, self.hanging_receiver, self.poison_message, self.wrong_payload,
            self.renamed_receiver,
        ):  # fmt: skip
            incident()

    def bug(self) -> None:
        """A receiver fails for most orders by a bug, and for some because a service is away."""
        bug, cards = self.sizes.bug, self.sizes.by_card
        receiver = f"{RECEIVERS}.book_invoice"
        self._send(signals.order_placed, self.orders)
        wait_until(lambda: self._deliveries("book_invoice").exclude(error="").count() > bug // 10, PATIENCE, "failures")
        self.healthy_seconds = self._save_cohort()
        failed = self._deliveries("book_invoice").exclude(error="")
        wait_until(lambda: failed.count() == bug + cards, PATIENCE, "all to fail once")
        ask = self._asker("a bug in one receiver")
        with ask("notice") as question:
            question.run("status")
            question.answer = question.read(r"^\d+ failed and wait for their next attempt, \d+ parked, \d+ dead")[0]
        with ask("stop") as stop:
            stop.run("pause", f"receiver:{receiver}", "--reason", "no VAT rates")
            stop.read(r"is paused: workers obey within 5 seconds")
        with ask("find Order 42") as question:
            question.run("history", ORDER)
            question.read(r"reserve_stock  done")
            error = question.read(rf"book_invoice .*(LookupError: order {NUMBER}: no VAT rate)")[1]
            question.answer = f"{error}; its other receiver is done"
        # While the workers still obey the pause, a delivery that runs is in no group.
        wait_until(lambda: not failed.exclude(state=State.HELD).exists(), PATIENCE, "all to be held")
        with ask("group") as question:
            question.run("failed", "--group")
            group = question.read(rf"^(\w+)  {bug}\b.*book_invoice\n.*LookupError")[1]
            question.read(rf"^(\w+)  {cards}\b.*book_invoice\n.*ConnectionError")
            question.answer = f"{bug} LookupError, {cards} ConnectionError"
        stop.answer = f"paused; the last one started {self._last_start('book_invoice'):.1f} s later"
        self.production.deploy()
        with ask("retry only these") as question:
            question.run("retry", f"group:{group}", "--reason", "shop-2 has the VAT rates")
            operation = question.read(r"^Operation (\d+): retry group:\w+, one first, then ten")[1]
            question.run("resume", f"receiver:{receiver}")
            question.answer = f"operation {operation}: one first, then ten, then the others"
        self._wait_for_end(signals.order_placed)
        wait_until(lambda: Operation.objects.get(pk=operation).ended_at, PATIENCE, "the operation to end")
        with ask("prove") as question:
            question.run("audit", "--since", "1h")
            self._read_account(question, "book_invoice", bug + cards, done=bug, dead=cards)
            question.run("failed", "--group")
            question.read(rf"^\w+  {cards} dead .*book_invoice\n.*ConnectionError")
            question.answer = f"{bug} done, {cards} dead for the other cause, 0 missing"
        self._each_once("book_invoice", bug)
        self._each_once("reserve_stock", bug + cards)

    def broker_flushed(self) -> None:
        """The broker loses all that it holds."""
        count = self.sizes.flushed
        ask = self._asker("the broker flushed")
        self.production.suspend()
        try:
            self._send(signals.order_paid, self.orders[:count])
            self.production.lose_messages()
            sent = timezone.now()
        finally:
            self.production.go_on()
        with ask("find Order 42") as question:
            question.run("history", ORDER)
            question.read(r"book_payment  (published|done)")
            question.answer = f"{question.read(r'send_receipt  (published|done)')[1]}, to both receivers"
        wait_until(lambda: timezone.now() - sent > AGE_OF_LOST, what="the messages to be overdue")
        with ask("notice") as question:
            if question.run("audit", "--since", "1h", "--wait", "5", allowed=(0, 1)):
                question.answer = question.read(r"^CommandError: (\d+ missing)")[1]
            else:  # the sweepers were quicker, as they may be on a slow machine
                question.answer = self.production.read_log(r"published \d+ lost deliveries again")
        with ask("retry only these") as question:
            question.run("audit", "--since", "1h", "--wait", "5", "--repair")
            question.answer = question.read(r"^\d+ due again|^0 missing")[0]
        self._wait_for_end(signals.order_paid)
        with ask("prove") as question:
            question.run("audit", "--since", "1h")
            self._read_account(question, "send_receipt", count, done=count)
            self._read_account(question, "book_payment", count, done=count)
            question.answer = f"{count} done by each receiver, 0 missing"
        self._each_once("send_receipt", count)
        self._each_once("book_payment", count)

    def hanging_receiver(self) -> None:
        """A receiver hangs at one order."""
        count = self.sizes.others
        ask, receiver = self._asker("a hanging receiver"), f"{RECEIVERS}.print_label"
        self._send(signals.order_packed, self.orders[:count])
        others = self._deliveries("print_label", "count_package").filter(state=State.DONE)
        wait_until(lambda: others.count() == 2 * count - 1, PATIENCE, "all others to be done")
        wait_until(self._hangs, PATIENCE, "the receiver to hang in a run of its own")
        with ask("notice") as question:
            question.run("running")
            hung = question.read(r"^(\S+ s|\S+ min \S+ s)  shop\.order_packed -> \S*print_label  attempt \d")[1]
            pids = question.read_all(r"print_label  attempt \d  in \S*:(\d+) ")
            question.answer = f"print_label for {hung}, with its process"
        with ask("find Order 42") as question:
            question.run("history", ORDER)
            question.read(r"count_package  done")
            question.answer = question.read(r"print_label  (running since .*)$")[1]
        with ask("group") as question:
            question.run("running", "--json")
            found = set(question.read_all(r'"delivery": "(\S+)"'))
            assert len(found) == 1, f"{found} run, and only one hangs"
            question.answer = "1 delivery of print_label"
        with ask("stop") as question:
            question.run("pause", f"receiver:{receiver}", "--reason", "it hangs")
            question.kill(*pids)
            question.answer = "paused, its process ended"
        self._end_other_runs("print_label", set(pids))
        self.production.deploy()
        with ask("retry only these") as question:
            question.run("resume", f"receiver:{receiver}")
            question.answer = question.read(r"1 held delivery is released")[0]
        self._wait_for_end(signals.order_packed)
        with ask("prove") as question:
            question.run("audit", "--since", "1h")
            self._read_account(question, "print_label", count, done=count)
            question.answer = f"{count} done, 0 missing"
        self._each_once("print_label", count)
        self._each_once("count_package", count)

    def poison_message(self) -> None:
        """A message ends each process that runs it."""
        count = self.sizes.others
        ask, receiver = self._asker("a poison message"), f"{RECEIVERS}.shrink_photo"
        self._send(signals.order_photographed, self.orders[:count])
        lost = self._order_deliveries("shrink_photo").exclude(error="")
        wait_until(lost.exists, PATIENCE, "the first lost process")
        with ask("notice") as question:
            question.run("failed", "signal:shop.order_photographed")
            question.answer = question.read(rf"shrink_photo about shop.Order {NUMBER}\n\s+(.*its process was lost.*)$")[
                1
            ]
        with ask("find Order 42") as question:
            question.run("history", ORDER)
            question.answer = question.read(r"shrink_photo  (.*its process was lost.*)$")[1]
        with ask("group") as question:
            question.run("failed", "--group", "signal:shop.order_photographed")
            group = question.read(r"^(\w+)  1 \w+  shop.order_photographed -> \S*shrink_photo")[1]
            question.answer = "1 delivery of shrink_photo"
        with ask("stop") as question:
            question.run("pause", f"receiver:{receiver}", "--reason", "it ends its process")
            question.answer = question.read(r"is paused: workers obey within 5 seconds")[0]
        done = self._deliveries("shrink_photo").filter(state=State.DONE)
        wait_until(lambda: done.count() >= count - 1, PATIENCE, "the others")
        self.production.deploy()
        with ask("retry only these") as question:
            question.run("retry", f"group:{group}", "--reason", "shop-4 reads it")
            question.read(r"^1 delivery due again")
            question.run("resume", f"receiver:{receiver}")
            question.answer = "1 delivery due again"
        self._wait_for_end(signals.order_photographed)
        with ask("prove") as question:
            question.run("audit", "--since", "1h")
            self._read_account(question, "shrink_photo", count, done=count)
            question.answer = f"{count} done, 0 missing"
        self._each_once("shrink_photo", count)

    def wrong_payload(self) -> None:
        """Messages with a wrong payload are on their way; right ones follow."""
        count = self.sizes.others
        ask, receiver = self._asker("a wrong payload"), f"{RECEIVERS}.lower_price"
        due = timezone.now() + timedelta(hours=1)
        for order in self.orders[:count]:
            signals.order_discounted.send_later(due, sender=Order, instance=order, percent=90)
        with ask("find Order 42") as question:
            question.run("history", ORDER)
            message = question.read(r"shop\.order_discounted  (\S+) ")[1]
            question.read(r"lower_price  pending")
            question.run("show", message)
            question.read(r"percent: 90")
            question.answer = "percent: 90; pending, due in an hour"
        with ask("stop") as question:
            question.run("pause", f"receiver:{receiver}", "--reason", "90 percent instead of 9")
            question.answer = question.read(r"is paused: workers obey within 5 seconds")[0]
        self._send(signals.order_discounted, self.orders[:count], percent=9)
        right = self._deliveries("lower_price").filter(state__in=(State.HELD, State.DONE))  # a pause takes 5 seconds
        wait_until(lambda: right.count() == count, PATIENCE, "the right ones to be held")
        with ask("discard only these") as question:
            question.run("discard", f"receiver:{receiver}", "state:pending", "--reason", "90 percent instead of 9")
            question.answer = question.read(rf"^{count} deliveries discarded")[0]
            question.run("resume", f"receiver:{receiver}")
            question.read(r"\d+ held deliver\w+ \w+ released")
        self._wait_for_end(signals.order_discounted)
        with ask("prove") as question:
            question.run("audit", "--since", "1h")
            self._read_account(question, "lower_price", 2 * count, done=count, discarded=count)
            question.answer = f"{count} discarded, {count} right ones done, 0 missing"
        self._each_once("lower_price", count)

    def renamed_receiver(self) -> None:
        """The workers' release has renamed a receiver, and the senders' release has not."""
        count = self.sizes.others
        ask = self._asker("a renamed receiver")
        self._send(signals.order_shipped, self.orders[:count])
        unknown = self._deliveries("tell_customer").exclude(error="")  # parked, but for a moment now and then
        wait_until(lambda: unknown.count() == count, PATIENCE, "all to be parked")
        with ask("notice") as question:
            question.run("status")
            question.answer = question.read(r"^.*\b[1-9]\d* parked, \d+ dead")[0]
        with ask("find Order 42") as question:
            question.run("history", ORDER)
            question.answer = question.read(r"tell_customer  (?:parked|published) .*(this worker does not know .*)$")[1]
        with ask("group") as question:
            question.run("failed", "--group", "signal:shop.order_shipped")
            question.read(rf"^\w+  {count}\b.*  shop.order_shipped -> \S*tell_customer")
            question.answer = f"{count} of tell_customer, as one group"
        self.production.deploy()
        self._wait_for_end(signals.order_shipped)
        with ask("prove") as question:
            question.run("audit", "--since", "1h")
            self._read_account(question, "tell_customer", count, done=count)
            question.answer = f"{count} done, 0 missing"
        self._each_once("tell_customer", count)  # a delivery keeps the name of its receiver

    @staticmethod
    def _save_cohort() -> float:
        """Save a cohort of the checkout's own apps; return the seconds until marketing has noted it."""
        academy = Academy.objects.create(name="Downtown", slug="downtown")
        began = time.monotonic()
        cohort = Cohort.objects.create(academy=academy, name="Web 42", slug="web-42")
        noted = FormEntry.objects.filter(kind="cohort created", subject=str(cohort.pk))
        wait_until(noted.exists, PATIENCE, "the cohort to be noted")
        return time.monotonic() - began

    def _asker(self, incident: str) -> Callable[[str], AbstractContextManager[Question]]:
        """Return a function that asks a question of an incident; measure how slow commands are meanwhile."""
        self.answers.measure_start(self.production.environment)
        return lambda asked: self.answers.question(incident, asked, self.production.environment)

    @staticmethod
    def _send(signal: Signal, orders: list[Order], **payload: object) -> None:
        signal.send_many(Order, [{"instance": order, **payload} for order in orders])

    @staticmethod
    def _deliveries(*receivers: str) -> QuerySet[Delivery]:
        return Delivery.objects.filter(receiver__in=[f"{RECEIVERS}.{name}" for name in receivers])

    def _order_deliveries(self, receiver: str) -> QuerySet[Delivery]:
        return self._deliveries(receiver).filter(message__subject=f"shop.Order {NUMBER}")

    def _hangs(self) -> bool:
        """Return whether the run that counts hangs: after a group commit a receiver runs a second time, alone."""
        delivery = self._order_deliveries("print_label").get()
        with transaction.atomic():
            locked = (
                not Delivery.objects.filter(pk=delivery.pk).select_for_update(skip_locked=True, of=("self",)).exists()
            )
        runs = RunningDelivery.objects.filter(delivery=delivery.pk)
        return (locked and runs.exists()) or runs.filter(worker=delivery.worker).exists()

    def _end_other_runs(self, receiver: str, ended: set[str]) -> None:
        """End the processes that run the order of a receiver since, as `running` shows them, until it is held.

        A run that hung in a group commit is followed by one alone, which may begin while the team looks at the first.
        """
        delivery = self._order_deliveries(receiver).get()

        def held() -> bool:
            workers = RunningDelivery.objects.filter(delivery=delivery.pk).values_list("worker", flat=True)
            for pid in {worker.rpartition(":")[2] for worker in workers} - ended:
                ended.add(pid)
                os.kill(int(pid), signal_numbers.SIGKILL)
            return self._order_deliveries(receiver).filter(state=State.HELD).exists()

        wait_until(held, PATIENCE, "it to be held")

    @staticmethod
    def _wait_for_end(signal: Signal) -> None:
        open_ = Delivery.objects.filter(message__signal=signal.name, ended_at=None)
        wait_until(lambda: not open_.exists(), PATIENCE, f"all of {signal.name} to end")

    def _last_start(self, receiver: str) -> float:
        """Return how long after its pause a receiver started for the last time, in seconds.

        Raises:
            AssertionError: it is longer than a pause may take.
        """
        since = Pause.objects.get(name=f"{RECEIVERS}.{receiver}").since
        last = self._deliveries(receiver).aggregate(last=Max("started_at"))["last"]
        assert last - since < OBEYED, f"{receiver} started {last - since} after its pause"
        return max(0.0, float((last - since).total_seconds()))

    @staticmethod
    def _read_account(question: Question, receiver: str, sent: int, **counts: int) -> None:
        """Read a row of an audit: these counts, and no others."""
        words = ("done", "skipped", "dead", "discarded", "retrying", "waiting", "running", "missing")
        numbers = [sent, *(counts.get(word, 0) for word in words)]
        question.read(r"^" + "".join(rf" +{number}" for number in numbers) + rf"  \S+ -> \S+\.{receiver}$")
        question.read(r"^0 missing\.$")

    @staticmethod
    def _each_once(receiver: str, count: int) -> None:
        """Assert that a receiver did its work once for each of the first orders."""
        done = Counter(Effect.objects.filter(receiver=receiver).values_list("order", flat=True))
        assert set(done) == set(range(1, count + 1)), f"{receiver} lacks orders, or has others: {len(done)} of {count}"
        doubled = [order for order, times in done.items() if times > 1]
        assert not doubled, f"{receiver} did these more than once: {doubled[:10]}"

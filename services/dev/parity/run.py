"""`playhead parity`: the same requests to two live servers, and where their answers differ."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import aiohttp

from services.dev.parity.compare import Finding, compare
from services.dev.parity.discover import discover, reads_only, requests_for
from services.dev.parity.masks import LIVE_MASKS, WRITE_MASKS
from services.dev.parity.recordings import Answer, Recording, RecordingError, Request, load_recordings
from services.dev.parity.rules import Difference, Mask, RuleError, load_differences
from services.dev.parity.server import Server, ServerError
from services.dev.parity.translate import Translator

REQUESTS_MAX = 20_000  # of one comparison


class UnusableError(Exception):
    """No comparison was possible; the text says why."""


class Outcome(StrEnum):
    """How the answers to one request compare."""

    SAME = "same"
    DECLARED = "declared"  # same but for differences that are made on purpose
    DIFFERS = "differs"
    FAILED = "failed"  # one server did not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityOptions:
    """What to compare; `base` is the server that is right, usually the original."""

    base: str
    against: str
    requests: Path | None = None  # recordings; None: reads made from what `base` lists
    writes: bool = False
    differences: Path | None = None  # None: those of this release
    ids_max: int = 20  # executions, documents and credentials each that are asked about
    concurrency: int = 4
    seconds: float = 300.0
    base_token: str | None = None
    against_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One request and what came of it."""

    request: Request
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    declared: tuple[str, ...] = ()  # ids of the differences that were seen
    problem: str | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """The whole comparison, in the order of the requests."""

    base: str
    against: str
    compared: list[Compared] = field(default_factory=list)
    skipped: int = 0  # requests that write, without --writes
    unfinished: int = 0  # requests that the time did not suffice for

    def count(self, outcome: Outcome) -> int:
        """Return how many requests had `outcome`."""
        return sum(1 for item in self.compared if item.outcome is outcome)

    @property
    def same(self) -> bool:
        """Whether nothing differs that is not declared, and everything was compared."""
        return not (self.count(Outcome.DIFFERS) or self.count(Outcome.FAILED) or self.unfinished)


async def run_parity(options: ParityOptions) -> Report:
    """Compare the two servers.

    Raises:
        UnusableError: a server, a file of differences or the recordings cannot be used, or there is nothing to ask.
    """
    try:
        differences = [item for item in load_differences(options.differences) if not item.only_recorded]
        recordings = load_recordings(options.requests) if options.requests is not None else None
    except (RuleError, RecordingError) as error:
        raise UnusableError(str(error)) from error
    connector = aiohttp.TCPConnector(limit=2 * options.concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:
        base = Server(session, options.base, token=options.base_token)
        against = Server(session, options.against, token=options.against_token)
        comparison = _Comparison(base, against, differences, Report(base=base.url, against=against.url))
        try:
            await base.ask(_PROBE)
            await against.ask(_PROBE)
            async with asyncio.timeout(options.seconds) as limit:
                if recordings is not None and options.writes:
                    await comparison.replay(recordings)
                else:
                    await comparison.read(
                        await _reads(base, recordings, options, comparison.report), options.concurrency
                    )
        except ServerError as error:
            raise UnusableError(str(error)) from error
        except TimeoutError:
            if not limit.expired():
                raise
    if not comparison.report.compared:
        raise UnusableError(f"the {options.seconds:g} seconds were over before anything was compared")
    comparison.report.compared.sort(key=lambda item: item.request.name)
    return comparison.report


_PROBE = Request(name="probe", method="GET", path="/api/health")


async def _reads(
    base: Server, recordings: Sequence[Recording] | None, options: ParityOptions, report: Report
) -> list[Request]:
    if recordings is None:
        made = requests_for(await discover(base, limit=options.ids_max))
    else:
        every = [recording.request for recording in recordings]
        made = [request for request in every if reads_only(request)]
        report.skipped = len(every) - len(made)
    if not made or len(made) > REQUESTS_MAX:
        raise UnusableError(f"{len(made)} requests to send; 1 to {REQUESTS_MAX} are possible")
    report.unfinished = len(made)
    return made


class _Comparison:
    """Asks both servers and fills the report."""

    def __init__(self, base: Server, against: Server, differences: Sequence[Difference], report: Report) -> None:
        self._base = base
        self._against = against
        self._differences = differences
        self.report = report

    async def read(self, requests: Sequence[Request], concurrency: int) -> None:
        """Send reads, `concurrency` at once. What differs is asked again: both may stand on a database that moves."""
        waiting = iter(requests)

        async def lane() -> None:
            for request in waiting:
                compared = await self._once(request)
                if compared.outcome is not Outcome.SAME and compared.outcome is not Outcome.DECLARED:
                    compared = await self._once(request)
                self._add(compared)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(lane())

    async def replay(self, recordings: Sequence[Recording]) -> None:
        """Send every recorded request in its order to both servers, with the ids that each has minted for its own."""
        self.report.unfinished = len(recordings)
        names = (Translator(), Translator())
        for recording in recordings:
            try:
                one = await self._base.ask(names[0].request(recording.request))
                two = await self._against.ask(names[1].request(recording.request))
            except ServerError as error:
                self._add(Compared(request=recording.request, outcome=Outcome.FAILED, problem=str(error)))
                continue
            if recording.answer is not None:
                names[0].learn(recording.answer, one)
                names[1].learn(recording.answer, two)
            self._add(self._compared(recording.request, one, two, WRITE_MASKS))

    async def _once(self, request: Request) -> Compared:
        try:
            one, two = await self._base.ask(request), await self._against.ask(request)
        except ServerError as error:
            return Compared(request=request, outcome=Outcome.FAILED, problem=str(error))
        return self._compared(request, one, two, LIVE_MASKS)

    def _compared(self, request: Request, one: Answer, two: Answer, masks: Sequence[Mask]) -> Compared:
        plain = compare(request, one, two, masks=masks)
        if not plain:
            return Compared(request=request, outcome=Outcome.SAME)
        possible = [difference for difference in self._differences if difference.covers(request)]
        left = compare(request, one, two, masks=masks, differences=possible)
        if left:
            return Compared(request=request, outcome=Outcome.DIFFERS, findings=tuple(left))
        seen = tuple(
            item.id
            for item in possible
            if compare(request, one, two, masks=masks, differences=[other for other in possible if other is not item])
        )
        return Compared(request=request, outcome=Outcome.DECLARED, declared=seen)

    def _add(self, compared: Compared) -> None:
        self.report.compared.append(compared)
        self.report.unfinished -= 1

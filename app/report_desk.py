"""The only door from pages to reports: found in one folder, planned, started as processes, read as they go.

Whatever a folder holds may be half written, broken or hostile: each report is read by itself, and one that
cannot be read is listed with the reason.
"""

import json
import re
import threading
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cache import ByteCache
from app.report_folder import (
    GOING,
    REQUEST_FILE,
    STORE,
    ReportFolder,
    Standing,
    Wanted,
)
from workbench.errors import UnknownModelError, UnsupportedError, WorkbenchError
from workbench.training.run_folder import folder_name
from workbench.writing import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from app.report_findings import Findings

# A folder of `workbench report` may be called anything; one name, no path, nothing hidden.
NAME = re.compile(r"[^\x00-\x1f\x7f/\\.][^\x00-\x1f\x7f/\\]{0,119}")
MAX_FINDINGS = 512 << 20
LONG, PLAN_FILE = 2000, "plan.json"


class NothingYetError(WorkbenchError):
    """A report that has not come to any result."""


@dataclass(frozen=True)
class Row:
    """One report in the list.

    Args:
        state: as of `Standing`, or "broken" for a folder that cannot be read; its message says why.
        made: when, in seconds since 1970.
        is_ours: whether the dashboard started it, and can resume it.
    """

    name: str
    title: str
    standing: Standing
    state: str
    models: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    data: str = ""
    made: float = 0.0
    is_ours: bool = True

    @property
    def is_going(self) -> bool:
        """Whether it will have moved on a second later."""
        return self.state in GOING

    @property
    def date(self) -> str:
        """When it was made."""
        return datetime.fromtimestamp(self.made).strftime("%Y-%m-%d %H:%M") if self.made else ""

    def fits(self, words: str) -> bool:
        """Whether all of these words are in its name, title, models, probes, date or state."""
        said = " ".join((self.name, self.title, *self.models, *self.probes, self.date, self.state))
        return all(word in said.lower() for word in words.lower().split())


class ReportDesk:
    """The reports of one folder.

    Args:
        root: made when the first report is started; None refuses to start any.
        reads_files: whether reports may read text of this machine that a visitor names.
    """

    def __init__(self, root: Path | None, *, reads_files: bool = True) -> None:
        self.root, self.reads_files = root, reads_files
        self._findings: ByteCache[Findings] = ByteCache(MAX_FINDINGS, lambda f: f.nbytes, keep=1)
        self._reading, self._lock = threading.Lock(), threading.Lock()

    def rows(self) -> list[Row]:
        """Every report, newest first; what cannot be read is there too.

        Raises:
            WorkbenchError: the folder cannot be read.
        """
        if self.root is None or not self.root.is_dir():
            return []
        try:
            found = [path for path in self.root.iterdir() if _is_report(path)]
        except OSError as error:
            raise WorkbenchError(
                f"cannot read the reports in {self.root}: {error.strerror}"
            ) from error
        rows = [self.row(ReportFolder(path)) for path in found]
        return sorted(rows, key=lambda row: (row.made, row.name), reverse=True)

    def row(self, folder: ReportFolder) -> Row:
        """How one report stands."""
        name, made = folder.name, _made(folder)
        try:
            if folder.has_request:
                wanted, standing = folder.wanted, folder.standing
                return Row(
                    name=name,
                    title=wanted.title or name,
                    standing=standing,
                    state=standing.state,
                    models=tuple(map(_short, wanted.models)),
                    probes=wanted.probes,
                    data=wanted.data,
                    made=made,
                )
            jobs = [job for job, _, _ in folder.ended()]
            standing = folder.standing
            return Row(
                name=name,
                title=name,
                standing=standing,
                state=standing.state,
                models=tuple(dict.fromkeys(job.model for job in jobs)),
                probes=tuple(dict.fromkeys(job.probe for job in jobs)),
                data=next((job.data for job in jobs), ""),
                made=made,
                is_ours=False,
            )
        except (WorkbenchError, OSError) as error:
            broken = Standing(state="failed", message=str(error)[:LONG])
            return Row(name, name, broken, "broken", made=made)

    def find(self, name: Any) -> ReportFolder:
        """The report of a name.

        Raises:
            UnknownModelError: none; a path is never one.
        """
        if self.root is not None and isinstance(name, str) and NAME.fullmatch(name):
            try:
                path = self.root / name
                inside = _is_report(path) and path.resolve().parent == self.root.resolve()
            except (OSError, ValueError):
                inside = False
            if inside:
                return ReportFolder(path)
        shown = str(name)[:60].encode("utf-8", "replace").decode()
        raise UnknownModelError(f"no report {shown!r}: it was removed, or never was")

    def start(self, wanted: Wanted) -> str:
        """Start a new report; the name of its folder.

        Raises:
            WorkbenchError: no folder for reports, it cannot be written to, or a request that may not be made.
        """
        from app.report_worker import start

        if self.root is None:
            raise UnsupportedError(
                "this dashboard has no folder for reports: start it with --reports DIR"
            )
        self.check_data(wanted.data)
        folder = _new_folder(self.root, wanted)
        start(folder)
        return folder.name

    def check_data(self, data: str) -> None:
        """Refuse what a visitor from elsewhere may not ask for.

        Raises:
            UnsupportedError: files of this machine.
        """
        if data != "stdlib" and not self.reads_files:
            raise UnsupportedError(
                "data: this dashboard can be reached from other machines, so it reads no files of this one"
            )

    def ask(self, name: Any, what: str) -> None:
        """Have a report cancelled or resumed.

        Raises:
            WorkbenchError: no such report, or none of this state.
        """
        from app.report_worker import start

        folder = self.find(name)
        if not folder.has_request:
            raise UnsupportedError(
                f"{folder.name} was made by `workbench report`: the same command goes on with it"
            )
        with self._lock:
            now = folder.standing
            if what == "resume":
                if not now.can_resume:
                    raise UnsupportedError(f"{name} is {now.state}: there is nothing to resume")
                start(folder)
            elif what == "cancel":
                folder.cancel()
            else:
                raise UnsupportedError(f"no action {what[:40]!r}: there are cancel and resume")

    def findings(self, name: Any) -> "Findings":
        """What a report has found so far, read once for each state of its store.

        Raises:
            NothingYetError: what is to be asked is still being worked out.
            WorkbenchError: no such report, or nothing in it can be read.
        """
        from app.report_findings import Findings

        folder = self.find(name)
        if not (folder.path / STORE / PLAN_FILE).exists():
            raise NothingYetError("There are no results yet.")
        key = (folder.name, folder.stamp)
        with self._reading:  # two visitors never read it twice
            found = self._findings.get(key)
            if found is None:
                found = Findings.read(folder.path / STORE)
                self._findings.put(key, found)
        return found

    def jobs(self, name: Any) -> "pd.DataFrame":
        """One row for each job: model probe status seconds error.

        Raises:
            WorkbenchError: no such report, or a broken one.
        """
        import pandas as pd

        folder = self.find(name)
        if not (folder.path / STORE / PLAN_FILE).exists():
            raise NothingYetError("There are no jobs yet.")
        rows = [
            {
                "model": job.model,
                "probe": job.probe,
                "status": status,
                "seconds": record.seconds if record and status == "ok" else None,
                "why": record.error if record else "",
            }
            for job, status, record in folder.ended()
        ]
        frame = pd.DataFrame(rows, columns=["model", "probe", "status", "seconds", "why"])
        return frame.astype({"seconds": "float64"})


def _new_folder(root: Path, wanted: Wanted) -> ReportFolder:
    first = _short(wanted.models[0])
    more = f"-and-{len(wanted.models) - 1}-more" if len(wanted.models) > 1 else ""
    name = folder_name(wanted.title or f"{first}{more}")
    for number in range(1, 10_000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not root.is_dir():
                raise WorkbenchError(f"cannot make reports in {root}: it is no folder") from None
            continue
        except OSError as error:
            raise WorkbenchError(f"cannot make {path}: {error.strerror}") from error

        write_atomically(path / REQUEST_FILE, json.dumps(asdict(wanted), indent=1))
        return ReportFolder(path)
    raise WorkbenchError(f"{root} holds too many reports called {name!r}: choose another title")


def _short(spec: str) -> str:
    return Path(spec).name or spec


def _is_report(path: Path) -> bool:
    """A folder of its own, no link, that holds a request or results."""
    if path.is_symlink() or not path.is_dir():
        return False
    return (path / REQUEST_FILE).is_file() or (path / STORE / PLAN_FILE).is_file()


def _made(folder: ReportFolder) -> float:
    for path in (folder.path / REQUEST_FILE, folder.path / STORE / PLAN_FILE, folder.path):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0

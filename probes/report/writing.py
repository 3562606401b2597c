"""Writing a report: three files, each whole or not at all."""

from pathlib import Path

from probes.report.content import Content, content
from probes.report.discovery import LEVEL, METHOD
from probes.report.markdown import markdown
from probes.report.page import page
from probes.report.results import Results
from probes.store import Store
from workbench.errors import WorkbenchError
from workbench.results import provenance, save_table
from workbench.writing import write_atomically


def write_report(store: Store | str | Path, out: str | Path) -> Path:
    """Write report.html, report.md and findings.parquet to a folder, from stored results alone.

    Returns:
        The page.

    Raises:
        WorkbenchError: nothing was asked yet, or the folder cannot be written to; the results are kept.
    """
    store = store if isinstance(store, Store) else Store(store)
    results, out = Results.read(store), Path(out)
    whole = content(results)
    try:
        save_table(whole.findings, out / "findings.parquet", _made_by(results, whole))
        write_atomically(out / "report.md", markdown(whole))
        write_atomically(out / "report.html", page(whole))
    except OSError as error:
        raise WorkbenchError(
            f"cannot write the report to {out}: {error.strerror}. The results in {store.folder} are kept: "
            "the same command writes it from them"
        ) from error
    return out / "report.html"


def _made_by(results: Results, whole: Content) -> dict[str, object]:
    data = {job.data: job.data_hash for job in results.jobs if job.kind == "data"}
    return provenance(
        command=whole.command,
        models={job.model: job.model_hash for job in results.jobs},
        probes={job.probe: job.version for job in results.jobs},
        data=data,
        settings={job.probe: job.config for job in results.jobs},
        false_discovery={"method": METHOD, "level": LEVEL, "tests": whole.discovery.n_tested},
    )

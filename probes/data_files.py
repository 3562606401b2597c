"""Documents from files, with the distrust that files from elsewhere deserve."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from workbench.errors import ConfigError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py", ".tex", ".html", ".csv")
READ = "stdlib, a folder of text files, or a .jsonl, .parquet or .txt file"
MAX_BYTES = 256 << 20


def read_documents(spec: str) -> tuple[tuple[str, ...], bool]:
    """The documents of a name or path, and whether they are prompts.

    Raises:
        ConfigError: nothing there, a file that is broken or of another kind, or no text in it.
    """
    if not isinstance(spec, str) or not spec.strip() or not spec.isprintable() or len(spec) > 4096:
        raise ConfigError(f"no data {str(spec)[:60]!r}: give {READ}")
    if spec == "stdlib":
        return _standard_library(), False
    path = Path(spec).expanduser()
    try:
        if path.is_dir():
            found = _folder(path)
        elif not path.is_file():
            raise ConfigError(f"no data at {spec[:200]!r}: give {READ}")
        else:
            found = _file(path)
    except OSError as error:
        raise ConfigError(f"cannot read {spec[:200]!r}: {error.strerror or error}") from error
    documents = tuple(document for document in found if document.strip())
    if not documents:
        raise ConfigError(f"there is no text in {spec[:200]!r}")
    return documents, path.suffix == ".txt" and path.is_file()


@cache
def _standard_library() -> tuple[str, ...]:
    """The files that no bundled model and no tokenizer of one has seen."""
    from workbench.training.corpora import standard_library

    files = standard_library().held_out
    return tuple(path.read_text(encoding="utf-8", errors="replace") for path in files)


def _folder(folder: Path) -> Iterator[str]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in TEXT_SUFFIXES)
    if not paths:
        raise ConfigError(f"no text files in {folder}: {', '.join(TEXT_SUFFIXES)} are read")
    _check_size(folder, sum(path.stat().st_size for path in paths if path.is_file()))
    for path in paths:
        if path.is_file():
            yield _text(path)


def _file(path: Path) -> Iterator[str]:
    _check_size(path, path.stat().st_size)
    if path.suffix == ".jsonl":
        return _json_lines(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".txt":
        return iter(_text(path).splitlines())
    raise ConfigError(f"{path} is no data: give {READ}")


def _check_size(path: Path, n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise ConfigError(
            f"{path} holds {n_bytes >> 20} MiB; probes read at most {MAX_BYTES >> 20} MiB: give a part of it"
        )


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start}") from error
    return _checked(text, str(path))


def _checked(text: str, where: str) -> str:
    if "\0" in text:
        raise ConfigError(f"{where} has a null character: it is no text")
    return text


def _json_lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where} is not JSON: {error}") from error
        text = value.get("text") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ConfigError(f'{where} holds no text: write {{"text": "…"}}')
        yield _whole(text, where)


def _whole(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where} is not valid Unicode at character {error.start}") from error
    return _checked(text, where)


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = file.schema_arrow
        if "text" not in columns.names:
            raise ConfigError(
                f"{path} has no column 'text': it has {', '.join(map(str, columns.names))[:200]}"
            )
        # A few bytes of a hostile file may stand for gigabytes of repeated text.
        unpacked = sum(
            file.metadata.row_group(group).total_byte_size
            for group in range(file.metadata.num_row_groups)
        )
        _check_size(path, unpacked)
        rows = file.read(columns=["text"]).column("text").to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path} is not a whole Parquet file: {error}") from error
    for number, text in enumerate(rows):
        if not isinstance(text, str):
            raise ConfigError(f"{path}, row {number}: text is {type(text).__name__}, not a string")
        yield _checked(text, f"{path}, row {number}")

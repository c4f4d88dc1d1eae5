"""Voiceprints in PostgreSQL with the extension pgvector: for several machines, and more prints than fit in memory.

`postgresql://user@host/database` names the store; `?schema=NAME` another schema than `voiceprints`, so that several
stores share a database. Other parameters are libpq's own. Searches are exact until `build_index` is called.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np

from speechbrain_bccmt.voiceprints.database import refuse_newer, refuse_other_model, refuse_other_size

_MARK, _VERSION = "voiceprints of speechbrain_bccmt", 1
_SCHEMA = """
CREATE TABLE model (fingerprint TEXT NOT NULL, source TEXT NOT NULL, size INTEGER NOT NULL, revision TEXT NOT NULL);
CREATE TABLE speaker (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name TEXT COLLATE "C" NOT NULL UNIQUE);
CREATE TABLE utterance (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    speaker BIGINT NOT NULL REFERENCES speaker (id),
    embedding BYTEA STORAGE EXTERNAL NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    file TEXT NOT NULL,
    enrolled TEXT NOT NULL,
    label TEXT NOT NULL,
    bandwidth DOUBLE PRECISION
);
CREATE INDEX utterance_of ON utterance (speaker);
"""
# Unit directions, which are searched. Created with the first prints, as their size is the model's.
_DIRECTIONS = """
CREATE TABLE direction (
    speaker BIGINT PRIMARY KEY REFERENCES speaker (id) ON DELETE CASCADE, unit vector({size}) NOT NULL
);
ALTER TABLE direction ALTER unit SET STORAGE PLAIN;
"""
# Our tables come first, then wherever pgvector is installed.
_SETTINGS = """
SELECT set_config('search_path', quote_ident(%s) || ', ' || coalesce(
    (SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace
     WHERE extname = 'vector'), 'public'), false), set_config('lock_timeout', %s, false)
"""
WAIT_SECONDS = 30.0
# With an index, at least this many near prints are scored exactly. Among 100,000 names this always finds the best one;
# 100 miss 4 % (benchmarks/identification.py).
_LOOKED_AT = 400


class VoicePrintServer:
    """A schema of a PostgreSQL database with the voiceprints of one model; see `voiceprints.database.Database`.

    Parameters
    ----------
    url : str
        See the module.
    fingerprint : str or None
        The model's; None if prints are neither made nor compared.
    source : str
        Where the model is, for messages.

    Raises
    ------
    ImportError
        If psycopg is not installed.
    """

    def __init__(self, url: str, fingerprint: str | None = None, source: str = ""):
        try:
            import pgvector.psycopg
            import psycopg
        except ImportError as error:
            raise ImportError(
                "voiceprints in PostgreSQL need psycopg and pgvector: pip install 'speechbrain_bccmt[postgres]' "
                f"({error})"
            ) from error
        self._psycopg, self._pgvector, self._local = psycopg, pgvector.psycopg, threading.local()
        self.fingerprint, self.source = fingerprint, str(source)
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self.schema = query.pop("schema", "voiceprints")
        self._url = urlunsplit(parts._replace(query=urlencode(query)))
        secret = f":{parts.password}@" if parts.password else None
        self.place = url.replace(secret, "@", 1) if secret else url

    def exists(self) -> bool:
        """Return whether the schema is there."""
        with self._open() as connection:
            return self._is_begun(connection)

    @contextlib.contextmanager
    def reading(self, size: int | None = None) -> Iterator[_Connection | None]:
        """Open a transaction on one consistent state; None if the store is still empty."""
        with self._open(one_state=True) as connection:
            if not self._is_begun(connection):
                raise FileNotFoundError(f"{self.place}: there is no such store of voiceprints")
            model = self._check_model(connection, size)
            yield None if model is None else connection

    @contextlib.contextmanager
    def writing(self, size: int | None = None, create: bool = False) -> Iterator[_Connection]:
        """Open the only writing transaction, and commit it at the end; `create` creates a store if needed."""
        with self._open() as connection:
            # Held until the end of the transaction. Needs no table, as there may be none yet.
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(?))", (f"{_MARK} {self.schema}",))
            if not self._is_begun(connection):
                if not create:
                    raise FileNotFoundError(f"{self.place}: there is no such store of voiceprints")
                self._begin(connection)
            if self._check_model(connection, size) is None and size is not None:
                connection.execute(
                    "INSERT INTO model VALUES (?, ?, ?, '')", (self.fingerprint, self.source, size)
                )
                connection.execute(_DIRECTIONS.format(size=size))
            yield connection
            if size is None and connection.execute("SELECT 1 FROM speaker LIMIT 1").fetchone() is None:
                # Nobody is left: free for any model.
                connection.execute("DELETE FROM model")
                connection.execute("DROP TABLE IF EXISTS direction")
            connection.execute("UPDATE model SET revision = ?", (uuid.uuid4().hex,))

    def keep_directions(
        self, connection: _Connection, speakers: Sequence[int], directions: np.ndarray
    ) -> None:
        """Store the directions (n, d) that the search compares with."""
        self._pgvector.register_vector(connection.raw)
        connection.executemany(
            "INSERT INTO direction VALUES (?, ?) ON CONFLICT (speaker) DO UPDATE SET unit = EXCLUDED.unit",
            list(zip(speakers, directions, strict=True)),
        )

    def search(self, probes: np.ndarray, n_best: int) -> list[list[tuple[str, float]]]:
        """Return the best names and their exact cosines for each unit probe (p, d), out of all or by the index."""
        with self.reading(probes.shape[1]) as connection:
            if connection is None:
                return [[] for _ in probes]
            self._pgvector.register_vector(connection.raw)
            connection.execute("SET LOCAL jit = off")
            scored = "SELECT speaker, unit <#> ? AS score FROM direction ORDER BY score LIMIT ?"
            looked_at = max(_LOOKED_AT, 2 * n_best)
            # pgvector looks at no more than 1,000.
            indexed = looked_at <= 1000 and self._has_index(connection)
            if indexed:
                connection.execute(f"SET LOCAL hnsw.ef_search = {looked_at}")
                half = f"halfvec({probes.shape[1]})"
                near = f"SELECT speaker, unit FROM direction ORDER BY unit::{half} <#> ?::{half} LIMIT {looked_at}"
                scored = f"SELECT speaker, unit <#> ? AS score FROM ({near}) AS near ORDER BY score LIMIT ?"
            query = (
                f"SELECT name, -score FROM ({scored}) AS best JOIN speaker ON id = speaker ORDER BY score, id"
            )
            found = []
            for probe in probes:
                values = (probe, probe, n_best) if indexed else (probe, n_best)
                found.append(connection.execute(query, values).fetchall())
            return found

    def build_index(self, memory_mb: int) -> None:
        """Build an HNSW index of the directions in half precision; searches then look only at near prints."""
        with self.reading() as connection:
            model = connection and connection.execute("SELECT size FROM model").fetchone()
            if model is None:
                raise ValueError(f"{self.place}: nobody is enrolled yet")
        with self._open(transaction=False) as connection:
            connection.execute(f"SET maintenance_work_mem = '{memory_mb}MB'")
            connection.execute(
                "CREATE INDEX IF NOT EXISTS direction_near ON direction "
                f"USING hnsw ((unit::halfvec({model[0]})) halfvec_ip_ops)"
            )
            connection.execute("RESET maintenance_work_mem")

    def purge(self) -> None:
        """Rewrite the tables, and the index, without what was deleted. Nobody can use them meanwhile."""
        with self.reading() as connection:
            tables = ["utterance", "speaker"] + (["direction"] if connection is not None else [])
        with self._open(transaction=False) as connection:
            for table in tables:
                connection.execute(f"VACUUM (FULL) {table}")

    @contextlib.contextmanager
    def _open(self, one_state: bool = False, transaction: bool = True) -> Iterator[_Connection]:
        """Begin a transaction, committed at the end, and report errors in our own words."""
        psycopg = self._psycopg
        try:
            raw = self._connect()
            raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ if one_state else None
            raw.read_only = one_state
            with raw.transaction() if transaction else contextlib.nullcontext():
                yield _Connection(raw)
        except psycopg.errors.LockNotAvailable:
            raise OSError(
                f"{self.place}: cannot be used as store of voiceprints: another program has been writing it for "
                f"{WAIT_SECONDS:g} s"
            ) from None
        except psycopg.Error as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OSError(f"{self.place}: cannot be used as store of voiceprints: {text}") from None

    def _connect(self):
        """Return the connection of this thread and process; a new one if it is in use or the server closed it."""
        raw = getattr(self._local, "connection", None)
        idle = self._psycopg.pq.TransactionStatus.IDLE
        if raw is not None and self._local.process == os.getpid() and raw.info.transaction_status == idle:
            with contextlib.suppress(self._psycopg.OperationalError):
                raw.execute(_SETTINGS, (self.schema, f"{WAIT_SECONDS}s"))
                return raw
        raw = self._psycopg.connect(self._url, autocommit=True, connect_timeout=10)
        self._local.connection, self._local.process = raw, os.getpid()
        raw.execute(_SETTINGS, (self.schema, f"{WAIT_SECONDS}s"))
        return raw

    def _is_begun(self, connection: _Connection) -> bool:
        """Check that the schema is a store; False if there is none."""
        found = connection.execute(
            "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = ?", (self.schema,)
        ).fetchone()
        if found is None:
            return False
        mark, _, version = (found[0] or "").rpartition(" ")
        if mark != _MARK or not version.isdecimal():
            raise ValueError(f"{self.place}: its schema {self.schema} is no store of voiceprints")
        refuse_newer(self.place, int(version), _VERSION)
        return True

    def _begin(self, connection: _Connection) -> None:
        if not connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
            connection.execute("CREATE EXTENSION vector SCHEMA public")
        sql = self._psycopg.sql
        name, mark = sql.Identifier(self.schema), sql.Literal(f"{_MARK} {_VERSION}")
        for statement in ("CREATE SCHEMA {name}", "COMMENT ON SCHEMA {name} IS {mark}"):
            connection.raw.execute(sql.SQL(statement).format(name=name, mark=mark))
        connection.raw.execute(_SCHEMA)

    def _check_model(self, connection: _Connection, size: int | None) -> tuple | None:
        """Check the model of an existing store, and the size of embeddings; None if nobody is enrolled."""
        model = connection.execute("SELECT fingerprint, source, size FROM model").fetchone()
        if model is not None:
            refuse_other_model(self.place, model[:2], (self.fingerprint, self.source))
            if size is not None:
                refuse_other_size(self.place, model[2], size)
        return model

    @staticmethod
    def _has_index(connection: _Connection) -> bool:
        return connection.execute("SELECT to_regclass('direction_near')").fetchone()[0] is not None


class _Connection:
    """A connection that takes `?` for a value, as SQLite does."""

    def __init__(self, raw):
        self.raw = raw

    def execute(self, query: str, values: Sequence = ()):
        return self.raw.execute(query.replace("?", "%s"), values or None, prepare=False)

    def executemany(self, query: str, rows: Sequence[Sequence]) -> None:
        if rows:
            with self.raw.cursor() as cursor:
                cursor.executemany(query.replace("?", "%s"), rows)

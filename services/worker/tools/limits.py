"""Every limit of the tools that is not a setting, with its unit and the reason for its value."""

from __future__ import annotations

# --- all kinds --------------------------------------------------------------------------------------------------------
TOOL_LIMIT_MAX = 1024  # of one kind at once, as the commands of a worker
SCRIPT_MAX_BYTES = 4 << 20  # source text of a tool, from a file or address

# --- credentials ------------------------------------------------------------------------------------------------------
CREDENTIAL_REQUEST_SECONDS = 5.0  # the original's NOETL_CREDENTIAL_CACHE fetch timeout
CREDENTIAL_ATTEMPTS_MAX = 3  # the original's
CREDENTIAL_CACHE_SECONDS = 60.0  # a changed secret is used after a minute at the latest; the original waits five
CREDENTIAL_STALE_SECONDS = 600.0  # a copy is used for so long while the API does not answer
CREDENTIALS_CACHED_MAX = 256
AUTH_DEPTH_MAX = 4  # a credential that names a credential

# --- SQL --------------------------------------------------------------------------------------------------------------
SQL_STATEMENTS_MAX = 10_000  # of one call
SQL_STATEMENTS_SHOWN_MAX = 100  # that get a `command_<n>` in the output
SQL_ROWS_AT_ONCE = 1000  # fetched between two looks at the size of the output
SQL_PARAMS_MAX = 32_767  # of the Postgres protocol

# --- postgres ---------------------------------------------------------------------------------------------------------
POSTGRES_CONNECT_SECONDS = 10.0  # a server on the same network answers in milliseconds
POSTGRES_IDLE_SECONDS = 60.0  # then an unused connection is closed
POSTGRES_POOLS_MAX = 32  # databases with open connections at once; the least used one goes first
POSTGRES_POOL_IDLE_SECONDS = 600.0  # then a pool that nobody uses is forgotten
POSTGRES_CLOSE_SECONDS = 2.0  # to say goodbye to the server

# --- tokens -----------------------------------------------------------------------------------------------------------
TOKEN_REQUEST_SECONDS = 10.0  # one request for an access token
TOKEN_RESPONSE_MAX_BYTES = 1 << 20
TOKEN_SECONDS_DEFAULT = 300.0  # of a token whose answer does not say how long it lives
TOKEN_EARLY_SECONDS = 30.0  # before its end a token is fetched anew
TOKENS_CACHED_MAX = 256

# --- duckdb -----------------------------------------------------------------------------------------------------------
DUCKDB_THREADS = 2  # of one call; the worker runs several
DUCKDB_FILE_DAYS = 1.0  # an execution's file is deleted when nobody wrote it for so long
DUCKDB_SWEPT_MAX = 1000  # files looked at in one sweep
DUCKDB_SAMPLE_ROWS = 5  # in `command_<n>_sample`
CHILD_ERROR_TAIL_BYTES = 4096  # of a child's stderr, for the error text

# --- playbook and agent -----------------------------------------------------------------------------------------------
EXECUTE_REQUEST_SECONDS = 30.0  # starting an execution commits its first events
EXECUTE_ATTEMPTS_MAX = 1  # an unanswered start may have happened: the policy of the task decides about another
STATUS_REQUEST_SECONDS = 10.0
STATUS_ATTEMPTS_MAX = 8  # tries of one look, over about 10 s: an API restart fits in
STATUS_WAIT_SECONDS = 0.1  # before the second look at a child; grows to
STATUS_WAIT_MAX_SECONDS = 2.0  # the original's interval
STATUS_WAIT_GROWTH = 1.5

# --- python -----------------------------------------------------------------------------------------------------------
PYTHON_MEMORY_MIN_BYTES = 64 << 20  # an interpreter needs some 30 MiB of address space for itself

# --- transfer ---------------------------------------------------------------------------------------------------------
TRANSFER_CHUNK_ROWS = 1000  # rows at once, without `chunk_size`
TRANSFER_CHUNK_ROWS_MAX = 100_000
TRANSFER_PARTS_AHEAD = 8  # parts of a COPY that the source may be ahead of the target
TRANSFER_FIELD_MAX_BYTES = 16 << 20  # of one CSV field
TRANSFER_COLUMNS_MAX = 1600  # of Postgres
TRANSFER_PATH_PARTS_MAX = 32  # in `data_path` and in the sources of a mapping

# --- secrets and keychain ---------------------------------------------------------------------------------------------
SECRET_REQUEST_SECONDS = 10.0  # one request to a secret store
SECRET_MAX_BYTES = 1 << 20  # of one secret
SECRET_TTL_SECONDS = 3600  # how long the keychain of an execution keeps it
KEYCHAIN_ATTEMPTS_MAX = 3  # tries to store an entry

# --- container and script (Kubernetes) --------------------------------------------------------------------------------
KUBERNETES_REQUEST_SECONDS = 10.0  # one request to the API server
KUBERNETES_ATTEMPTS_MAX = 5  # looks at a job that may fail in a row
KUBERNETES_ANSWER_MAX_BYTES = 4 << 20
KUBERNETES_WAIT_SECONDS = 0.2  # before the second look at a job; grows to
KUBERNETES_WAIT_MAX_SECONDS = 5.0
KUBERNETES_WAIT_GROWTH = 1.6
KUBERNETES_LOG_MAX_BYTES = 1 << 20  # of a job's output
KUBERNETES_SCRIPT_MAX_BYTES = 100_000  # of a script: it travels as one argument, of which Linux takes 128 KiB
KUBERNETES_TTL_SECONDS = 600  # how long the cluster keeps a finished job, without `ttl_seconds`
KUBERNETES_BACKOFF_MAX = 10  # retries by the cluster
KUBERNETES_LOG_TAIL_CHARS = 500  # end of the output in the error text

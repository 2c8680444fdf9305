"""Every limit of the worker that is not a setting, with its unit and the reason for its value."""

from __future__ import annotations

# --- calls to the API -------------------------------------------------------------------------------------------------
CLAIM_REQUEST_SECONDS = 10.0  # one claim takes milliseconds; a command context may have 10 MiB (engine_spec.md 4.2)
CLAIM_ATTEMPTS_MAX = 3  # tries in the process before the message is given back
CLAIM_NAK_SECONDS = 1.0  # the original's delay before a message that could not be claimed comes again; jittered upwards
EVENT_REQUEST_SECONDS = 20.0  # one report of events; the API answers after its commit
EVENT_RETRY_SECONDS = 120.0  # a report is tried for so long: an API restart with its migrations fits in
HEARTBEAT_REQUEST_SECONDS = 10.0  # the original's
POOL_REQUEST_SECONDS = 5.0  # registration and pool heartbeat
DEREGISTER_REQUEST_SECONDS = 0.7  # at shutdown; the API takes the worker for dead without it, only later
BODY_PIECEWISE_BYTES = 1 << 19  # a larger body is sent piece by piece: other commands go on meanwhile
BACKOFF_SECONDS = 0.05  # first wait between tries; doubles, jittered
BACKOFF_MAX_SECONDS = 3.0
RETRY_AFTER_MAX_SECONDS = 15.0  # a longer Retry-After is cut to this
REGISTER_RETRY_SECONDS = 1.0  # between attempts to register while the API is away
ERROR_DETAIL_MAX_CHARS = 500  # of an API refusal in a log line or an error text

# --- commands ---------------------------------------------------------------------------------------------------------
FETCH_SECONDS = 30.0  # one wait for notifications; the original's NOETL_WORKER_NATS_FETCH_TIMEOUT_SECONDS
SEGMENT_FETCH_SECONDS = 2.0  # the same for one of several durables: it keeps a free place from the others meanwhile
ACK_WAIT_SECONDS = 30.0  # a notification is acknowledged right after the claim, which takes at most three requests
STARTED_GRACE_SECONDS = 0.01  # a tool that ends within it is reported in one batch: one round trip less
SHUTDOWN_RESERVE_SECONDS = 1.0  # of NOETL_SHUTDOWN_SECONDS, kept for killing children and for the deregistration
TOOL_SECONDS_MAX = 86_400.0  # a tool's own time limit at most: one day, as the settings
ERROR_MESSAGE_MAX_CHARS = 2000  # of an error text in an event; the API keeps as many
COMPACT_CONTEXT_MAX_BYTES = 16_384  # the scalars of an output that travel in `result.context`; larger ones are dropped
RESPONSE_OVERHEAD_BYTES = 1 << 20  # of a child's answer beside the output itself: captured prints and the traceback

# --- task sequences and cursors ---------------------------------------------------------------------------------------
TASKS_MAX = 200  # of one sequence; as the engine's
SELECT_MAX = 100  # members in `output.select`
SEQUENCE_RUNS_MAX = 10_000  # runs of all tasks of one sequence, retries and jumps included: it always ends
SEQUENCE_VARIABLES_MAX_BYTES = 2 << 20  # of what a sequence sets: it is in the event even when its result is stored
CURSOR_ROWS = 100_000  # rows of one slot without `cursor.options.max_iterations`; the original's default
CURSOR_ROWS_MAX = 10_000_000
CURSOR_CONCURRENCY_MAX = 64  # rows of one slot at once
CLAIM_SQL_ATTEMPTS_MAX = 3  # runs of a claim whose connection is lost
FRAME_SECONDS = 30  # of one claim, without `frame.max_seconds`; the original's default
FRAMES_SHOWN_MAX = 100  # frames that a slot's result tells about
FRAME_LEASE_SECONDS_MIN, FRAME_LEASE_SECONDS_MAX = 5.0, 3600.0  # what the server accepts
FRAME_HEARTBEAT_SECONDS_MIN = 1.0
RETRY_ATTEMPTS = 3  # tries in all without `attempts`; the original's default
RETRY_ATTEMPTS_MAX = 1000  # of one task; as the engine's of a step
RETRY_DELAY_SECONDS = 1.0  # without `delay`; the original's default
RETRY_DELAY_SECONDS_MAX = 86_400.0  # between two attempts: one day; a lease is held meanwhile
SLEEPERS_MAX = 256  # retries that wait without counting as a command in flight; more of them count
CANCEL_CHECK_SECONDS = 2.0  # between questions whether an execution with running tools was cancelled

# --- templates and secrets --------------------------------------------------------------------------------------------
REFERENCES_MAX = 64  # stored results that one command may load; as the engine's of one decision
REFERENCES_BYTES_MAX = 256 << 20  # of all of them together
REFERENCE_DEPTH_MAX = 4  # nesting at which references are looked for: `ctx.<step>.results[i]`
RENDER_DEPTH_MAX = 64  # nesting of a tool configuration
THREAD_TEMPLATE_CHARS = 4096  # a longer template, or one with loops, is rendered in a thread: heartbeats go on
KEYCHAIN_RENEW_BEFORE_SECONDS = 300.0  # of its end an entry is renewed; the original worker's refresh threshold
KEYCHAIN_REQUEST_SECONDS = 30.0  # one answer of a token endpoint; the original's
KEYCHAIN_WAIT_SECONDS = 120.0  # for one entry, with those that it is made from and commands that make it just now
KEYCHAIN_ANSWER_MAX_BYTES = 1 << 20
KEYCHAIN_TTL_SECONDS = {"local": 3600, "shared": 86_400, "global": 86_400}  # by scope, without one; the original's
KEYCHAIN_NESTING_MAX = 8  # entries whose definition needs another entry
KEYCHAINS_CACHED_MAX = 64  # playbooks whose definitions are kept
KEYCHAIN_ENTRIES_MAX = 16  # entries that one command may name
SECRET_REDACT_MIN_CHARS = 8  # shorter secrets would blank out ordinary words

# --- python tool ------------------------------------------------------------------------------------------------------
CHILD_START_SECONDS = 15.0  # a fresh interpreter answers in about 40 ms; a loaded machine needs more
CHILD_RUNS_MAX = 1000  # then a child is replaced, so that what user code leaves behind does not add up
CHILD_EXIT_SECONDS = 1.0  # wait for a killed child to be reaped
STDOUT_MAX_CHARS = 65_536  # of what user code prints
TRACEBACK_FRAMES_MAX = 10  # of user code
TRACEBACK_MAX_CHARS = 4000
PLAIN_DEPTH_MAX = 200  # nesting of an output; cycles end here

# --- shell tool -------------------------------------------------------------------------------------------------------
SHELL_OUTPUT_MAX_BYTES = 1 << 20  # of stdout and of stderr each; the rest is dropped and `truncated` says so
SHELL_COMMANDS_MAX = 100  # in `cmds`
SHELL_PREVIEW_MAX_CHARS = 120  # of a command in the output, as the original's `cmd_preview`
SHELL_ERROR_TAIL_CHARS = 500  # end of stderr in the error text

# --- http tool --------------------------------------------------------------------------------------------------------
HTTP_CONNECTIONS_MAX = 100  # of all commands together
HTTP_REDIRECTS_MAX = 10
HTTP_CHUNK_BYTES = 65_536

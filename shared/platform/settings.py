"""Every setting of every service, read once from the environment. Names are the original's where it has one.

A service builds its class in `app.py` and passes values on; nothing else reads the environment. Each field's description is
what `playhead settings` prints.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.platform.access_settings import AccessSettings
from shared.wire.subjects import subject_token

Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class CommonSettings(BaseSettings):
    """What every service reads."""

    model_config = SettingsConfigDict(env_prefix="", case_sensitive=False, extra="ignore", frozen=True)

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS server(s), credentials inline if any")
    noetl_server_url: str = Field("http://127.0.0.1:8082", description="base URL of the API that other parts call")
    noetl_internal_api_token: SecretStr = Field(
        SecretStr(""), description="bearer token of /api/internal/*; empty: those routes answer 503"
    )
    noetl_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level logged")
    noetl_log_format: Literal["json", "text"] = Field("json", description="log lines as JSON or as text for people")
    noetl_shutdown_seconds: Seconds = Field(8.0, description="time to finish what runs after SIGTERM (s)")
    nats_stream: str = Field("NOETL_COMMANDS", description="JetStream stream of command notifications")
    nats_subject: str = Field("noetl.commands", description="subject of command notifications")
    noetl_event_nats_stream: str = Field("NOETL_EVENTS", description="JetStream stream of events")
    noetl_metrics_host: str = Field(
        "127.0.0.1", description="address of /metrics, /livez and /readyz of non-API services"
    )
    otel_exporter_otlp_endpoint: str = Field("", description="OTLP/HTTP endpoint for traces; empty: no export")


class ApiSettings(CommonSettings, AccessSettings):
    """`playhead api`."""

    noetl_host: str = Field("127.0.0.1", description="address the API binds")
    noetl_port: Port = Field(8082, description="port the API binds; 0 = any free port")
    noetl_postgres_dsn: SecretStr = Field(
        SecretStr(""), description="Postgres DSN; empty: built from POSTGRES_HOST, _PORT, _USER, _PASSWORD, _DB"
    )
    postgres_host: str = Field("127.0.0.1", description="Postgres host, used when NOETL_POSTGRES_DSN is empty")
    postgres_port: Port = Field(5432, description="Postgres port")
    postgres_user: str = Field("noetl", description="Postgres user")
    postgres_password: SecretStr = Field(SecretStr(""), description="Postgres password")
    postgres_db: str = Field("noetl", description="Postgres database")
    noetl_postgres_pool_min: Count = Field(2, description="connections kept open")
    noetl_postgres_pool_max: Count = Field(10, description="connections at most, per API process")
    noetl_ingest_lanes: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="concurrent write transactions; an execution always uses the same lane"
    )
    noetl_ingest_queue_max: Count = Field(2048, description="writes waiting at most; beyond: 503 + Retry-After")
    noetl_ingest_batch_max: Count = Field(128, description="writes that share one transaction at most")
    noetl_max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = Field(
        8 * 1024 * 1024, description="request body at most (bytes); beyond: 413"
    )
    noetl_region: str = Field(
        "", description="region whose credentials this server gives out; `meta.region` of one wins"
    )
    noetl_streams_max: Count = Field(10_000, description="event streams (SSE) open at most; beyond: 503")
    noetl_streams_per_client_max: Count = Field(2000, description="event streams of one token or address; beyond: 429")
    noetl_batch_max_events_per_request: Count = Field(256, description="events in one batch at most; beyond: 422")
    noetl_event_inline_max_bytes: Annotated[int, Field(ge=1024, le=8 * 1024 * 1024)] = Field(
        262_144, description="tool output kept in the event (bytes); larger goes to the result store by reference"
    )
    noetl_command_claim_lease_seconds: Seconds = Field(120.0, description="lease of a claimed command (s)")
    noetl_command_worker_heartbeat_stale_seconds: Seconds = Field(
        30.0, description="a worker without a heartbeat for so long is taken for dead (s)"
    )
    noetl_command_reaper_pending_retry_seconds: Seconds = Field(
        30.0, description="a command nobody claimed is announced again after so long (s)"
    )
    noetl_command_attempts_max: Count = Field(25, description="claims of one command at most, then it fails")
    noetl_runtime_offline_seconds: Seconds = Field(60.0, description="a worker row is marked offline after so long (s)")
    noetl_outbox_lease_seconds: Seconds = Field(30.0, description="lease of claimed outbox rows (s)")
    noetl_outbox_attempts_max: Count = Field(25, description="publish attempts of one outbox row, then dead letter")
    noetl_outbox_retention_seconds: Seconds = Field(3600.0, description="published outbox rows are kept so long (s)")
    noetl_reconcile_undecided_seconds: Seconds = Field(
        2.0, description="an undecided execution untouched for so long is handed to the reconciler (s)"
    )
    noetl_snowflake_node_id: Annotated[int, Field(ge=-1, le=1023)] = Field(
        -1, description="node number in new ids; -1: a free one is leased from the database"
    )
    noetl_snowflake_layout: Literal["app", "sql"] = Field("app", description="bit layout of new ids")
    noetl_encryption_key: SecretStr = Field(
        SecretStr(""), description="base64 of 32 bytes: encrypts credentials and keychain at rest"
    )
    noetl_encryption_key_file: str = Field("", description="file that holds the key, instead of NOETL_ENCRYPTION_KEY")
    noetl_loop_in_flight_default: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="items at once of a parallel loop that does not say"
    )
    noetl_recursive_calls_max: Annotated[int, Field(ge=0, le=100_000)] = Field(
        1000, description="starts of playbooks that are among their own callers, below one execution"
    )
    noetl_command_routing_enabled: bool = Field(False, description="publish commands on a subject per pool")
    noetl_registration_strict: bool = Field(False, description="warnings of a playbook keep it from registering (422)")
    noetl_event_partitions: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="partitions of event subjects")
    noetl_sql_write: Literal["never", "asked", "always"] = Field(
        "asked", description="may SQL of POST /api/postgres/execute write: never, with `allow_write`, or always"
    )
    noetl_sql_timeout_seconds: Seconds = Field(30.0, description="time limit of a statement given by a person (s)")
    noetl_sql_rows_max: Count = Field(10_000, description="rows that such a statement shows at most")
    mcp_playbook_call_timeout_seconds: Seconds = Field(
        90.0, description="wait of an MCP tools/call for its playbook (s)"
    )
    noetl_mcp_discovery_hosts: str = Field(
        "", description="hosts (comma-separated) whose tool lists are read in spite of a private address"
    )
    noetl_enable_gcp_token_api: bool = Field(True, description="answer POST /api/gcp/token")
    noetl_gcp_token_url: str = Field(
        "https://oauth2.googleapis.com/token", description="token endpoint of Google Cloud; the only one that is asked"
    )
    noetl_gcp_metadata_url: str = Field(
        "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token",
        description="metadata server of Google Cloud",
    )
    noetl_gcp_credentials_dir: str = Field(
        "", description="directory of key files that `credentials_path` may name; empty: none"
    )
    gcp_project_id: str = Field("", description="Google Cloud project that analyses link to; empty: no links")
    google_cloud_project: str = Field("", description="the same, by its other usual name")
    gke_cluster_name: str = Field("", description="cluster in the links of analyses")
    gcp_region: str = Field("", description="region in the links of analyses")


class OutboxSettings(CommonSettings):
    """`playhead outbox`."""

    noetl_outbox_publisher_batch_size: Annotated[int, Field(ge=1, le=1000)] = Field(200, description="rows per claim")
    noetl_outbox_publisher_idle_sleep_seconds: Seconds = Field(0.5, description="poll interval without a kick (s)")
    noetl_outbox_publisher_error_sleep_seconds: Seconds = Field(2.0, description="longest wait after an error (s)")
    noetl_outbox_publish_timeout_seconds: Seconds = Field(5.0, description="wait for a JetStream ack (s)")
    noetl_outbox_metrics_port: Port = Field(9101, description="port of /metrics; 0 = any free port")


class OrchestratorSettings(CommonSettings):
    """`playhead orchestrator`."""

    noetl_orchestrator_consumer: str = Field("noetl_orchestrator", description="durable consumer on the event stream")
    noetl_orchestrator_batch_size: Annotated[int, Field(ge=1, le=1000)] = Field(200, description="messages per fetch")
    noetl_orchestrator_cache_max: Count = Field(10_000, description="folded executions kept in memory at most")
    noetl_orchestrator_reconcile_seconds: Seconds = Field(2.0, description="interval of the reconciler (s)")
    noetl_loop_in_flight_default: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="items at once of a parallel loop that does not say"
    )
    noetl_orchestrator_metrics_port: Port = Field(9102, description="port of /metrics; 0 = any free port")


class ProjectorSettings(CommonSettings):
    """`playhead projector`."""

    noetl_projector_nats_consumer: str = Field("noetl_projector", description="durable consumer on the event stream")
    noetl_projector_batch_size: Annotated[int, Field(ge=1, le=1000)] = Field(500, description="messages per fetch")
    noetl_projector_metrics_port: Port = Field(9103, description="port of /metrics; 0 = any free port")


class WorkerSettings(CommonSettings):
    """`playhead worker`."""

    noetl_api_token: SecretStr = Field(
        SecretStr(""),
        description="API token of the role worker; empty: NOETL_INTERNAL_API_TOKEN, which is accepted as one",
    )
    noetl_sealed_credentials: bool = Field(
        False, description="true: credentials come sealed for a key that this process makes at its start"
    )
    nats_consumer: str = Field("noetl_worker_pool", description="durable consumer on the command stream")
    nats_filter_subject: str = Field("", description="subject filter of the durable; empty: all commands")
    worker_id: str = Field("", description="name of this worker; empty: worker-<8 hex>, fresh per process")
    noetl_worker_pool_name: str = Field("default", description="pool of this worker, sent at registration")
    noetl_worker_pool_segments: str = Field(
        "", description="pools to serve, as shared,python; empty: all commands, or with routing those of its own pool"
    )
    noetl_command_routing_enabled: bool = Field(False, description="commands come on a subject per pool")
    noetl_worker_max_inflight_commands: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="commands at once")
    noetl_worker_command_timeout_seconds: Seconds = Field(180.0, description="tool time limit without its own (s)")
    noetl_command_heartbeat_interval_seconds: Seconds = Field(15.0, description="lease renewal while a tool runs (s)")
    noetl_worker_heartbeat_seconds: Seconds = Field(15.0, description="interval of the pool registration (s)")
    noetl_worker_python_processes: Annotated[int, Field(ge=1, le=64)] = Field(2, description="warm python children")
    noetl_worker_python_memory_bytes: Annotated[int, Field(ge=64 << 20)] = Field(
        2 << 30, description="address space of a python child at most (bytes)"
    )
    noetl_worker_result_max_bytes: Annotated[int, Field(ge=1024)] = Field(
        64 * 1024 * 1024, description="tool output at most (bytes); larger fails the command"
    )
    noetl_inline_max_bytes: Annotated[int, Field(ge=1024)] = Field(
        262_144, description="tool output sent inline (bytes); larger is stored by reference first"
    )
    noetl_worker_tool_limits: str = Field(
        "duckdb=2,shell=8",
        pattern=r"^( *[A-Za-z_]+ *= *[1-9][0-9]{0,2} *(,|$))* *$",
        description="calls of a tool kind at once, as kind=number with commas, numbers up to 999",
    )
    noetl_worker_files_dir: str = Field(
        "", description="where relative file paths of tools start; empty: where it runs"
    )
    noetl_worker_data_dir: str = Field("", description="files of duckdb tools; empty: below the temporary directory")
    noetl_worker_duckdb_extensions: str = Field(
        "", description="repository of DuckDB extensions, as an address or directory; empty: DuckDB's own"
    )
    noetl_worker_postgres_connections: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="connections to one database of postgres tools"
    )
    kubeconfig: str = Field("", description="cluster of container and script tools; empty: the one around the worker")
    kubernetes_service_host: str = Field("", description="set by Kubernetes in its pods")
    kubernetes_service_port: str = Field("443", description="set by Kubernetes in its pods")
    noetl_keychain_env_vars: str = Field("", description="variables that secrets tools may read, with commas")
    noetl_worker_postgres_auth: str = Field("", description="credential of postgres tools that name none")
    noetl_worker_metrics_port: Port = Field(9104, description="port of /metrics; 0 = any free port")

    def segments(self) -> list[str]:
        """Return the pools whose commands this worker gets, each once; empty: all commands.

        With routing, a worker of the default pool serves what needs no pool of its own, and the bare subject of before.
        """
        named = [subject_token(part.strip()) for part in self.noetl_worker_pool_segments.split(",") if part.strip()]
        if not named and self.noetl_command_routing_enabled and not self.nats_filter_subject:
            own = self.noetl_worker_pool_name
            named = ["legacy", "shared", "python", "system"] if own == "default" else [subject_token(own)]
        return list(dict.fromkeys(named))


ALL_SETTINGS: dict[str, type[CommonSettings]] = {
    "api": ApiSettings,
    "outbox": OutboxSettings,
    "orchestrator": OrchestratorSettings,
    "projector": ProjectorSettings,
    "worker": WorkerSettings,
}

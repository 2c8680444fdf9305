"""A small client of the Kubernetes API: jobs, their pods and logs. Configured by the cluster around it or by KUBECONFIG."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from services.worker.jsontext import encoded as json_bytes
from services.worker.tools.base import ToolError
from services.worker.tools.limits import (
    KUBERNETES_ANSWER_MAX_BYTES,
    KUBERNETES_LOG_MAX_BYTES,
    KUBERNETES_REQUEST_SECONDS,
)
from shared.platform.settings import WorkerSettings

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NOT_CONFIGURED = (
    "this tool runs a Kubernetes job, and this worker knows no cluster: run the worker in one with a service account that may "
    "create jobs, or set KUBECONFIG; a shell tool runs commands without a cluster"
)
_RETRYABLE = frozenset({429, 500, 502, 503, 504})
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the API is and how to log in. `token_file` is read at every request: its content changes."""

    url: str
    namespace: str
    token: str | None = None
    token_file: Path | None = None
    tls: ssl.SSLContext | bool = True


def _failed(kind: str, code: str, text: str, *, retryable: bool = False) -> ToolError:
    return ToolError(kind, code, text, retryable=retryable)


def _named(items: Any, name: Any, part: str) -> Mapping[str, Any]:
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping) and item.get("name") == name and isinstance(item.get(part), Mapping):
            found: Mapping[str, Any] = item[part]
            return found
    return {}


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> ssl.SSLContext | bool:
    if cluster.get("insecure-skip-tls-verify") is True:
        return False
    data, file = cluster.get("certificate-authority-data"), cluster.get("certificate-authority")
    context = ssl.create_default_context(
        cafile=str(folder / str(file)) if file else None,
        cadata=base64.b64decode(str(data)).decode() if data else None,
    )
    if user.get("client-certificate-data") and user.get("client-key-data"):
        with tempfile.TemporaryDirectory() as name:  # the library reads files only
            certificate, key = Path(name) / "certificate", Path(name) / "key"
            key.touch(mode=0o600)
            certificate.write_bytes(base64.b64decode(str(user["client-certificate-data"])))
            key.write_bytes(base64.b64decode(str(user["client-key-data"])))
            context.load_cert_chain(certificate, key)
    elif user.get("client-certificate") and user.get("client-key"):
        context.load_cert_chain(folder / str(user["client-certificate"]), folder / str(user["client-key"]))
    return context


def _from_kubeconfig(path: Path, kind: str) -> Cluster:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(document, Mapping):
            raise ValueError("it is no object")
        context = _named(document.get("contexts"), document.get("current-context"), "context")
        cluster = _named(document.get("clusters"), context.get("cluster"), "cluster")
        user = _named(document.get("users"), context.get("user"), "user")
        if not cluster.get("server"):
            raise ValueError("its current context names no server")
        token_file = user.get("tokenFile")
        return Cluster(
            url=str(cluster["server"]).rstrip("/"),
            namespace=str(context.get("namespace") or "default"),
            token=str(user["token"]) if user.get("token") else None,
            token_file=path.parent / str(token_file) if token_file else None,
            tls=_tls(cluster, user, path.parent) if str(cluster["server"]).startswith("https") else True,
        )
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _failed(kind, "NOT_CONFIGURED", f"KUBECONFIG {path} cannot be used: {error}") from error


def _from_inside(settings: WorkerSettings, account: Path) -> Cluster:
    host = settings.kubernetes_service_host
    host = f"[{host}]" if ":" in host else host
    namespace = account / "namespace"
    return Cluster(
        url=f"https://{host}:{settings.kubernetes_service_port}",
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        token_file=account / "token",
        tls=ssl.create_default_context(cafile=str(account / "ca.crt")),
    )


def find_cluster(settings: WorkerSettings | None, kind: str) -> Cluster:
    """Return the cluster of KUBECONFIG, else the one around this worker.

    Raises:
        ToolError: there is none, or its configuration cannot be used.
    """
    if settings is not None and settings.kubeconfig:
        return _from_kubeconfig(Path(settings.kubeconfig.split(":")[0]).expanduser(), kind)
    if settings is not None and settings.kubernetes_service_host and (SERVICE_ACCOUNT / "token").exists():
        try:
            return _from_inside(settings, SERVICE_ACCOUNT)
        except (OSError, ValueError) as error:
            raise _failed(kind, "NOT_CONFIGURED", f"the service account cannot be used: {error}") from error
    raise _failed(kind, "NOT_CONFIGURED", NOT_CONFIGURED)


class Kubernetes:
    """Calls of one tool to a cluster."""

    def __init__(self, session: aiohttp.ClientSession, cluster: Cluster, namespace: str, kind: str) -> None:
        self._session, self._cluster, self._kind = session, cluster, kind
        self.namespace = namespace

    async def _headers(self) -> dict[str, str]:
        file = self._cluster.token_file
        try:
            token = (await asyncio.to_thread(file.read_text)).strip() if file is not None else self._cluster.token
        except OSError as error:
            raise _failed(self._kind, "NOT_CONFIGURED", f"the token of the cluster cannot be read: {error}") from error
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def _ask(
        self, method: str, path: str, body: object = None, *, limit: int = KUBERNETES_ANSWER_MAX_BYTES
    ) -> bytes:
        url = f"{self._cluster.url}{path}"
        try:
            async with self._session.request(
                method,
                url,
                data=None if body is None else json_bytes(body),
                headers={"Content-Type": "application/json", **await self._headers()},
                ssl=self._cluster.tls,
                timeout=aiohttp.ClientTimeout(total=KUBERNETES_REQUEST_SECONDS),
                allow_redirects=False,
            ) as response:
                raw = bytearray()
                async for chunk in response.content.iter_chunked(65_536):
                    raw += chunk[: limit - len(raw)]
                    if len(raw) >= limit:
                        break
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"the Kubernetes API does not answer: {type(error).__name__}"
            raise _failed(self._kind, "KUBERNETES", text, retryable=True) from error
        if status >= 300:
            raise self._refusal(status, bytes(raw))
        return bytes(raw)

    def _refusal(self, status: int, raw: bytes) -> ToolError:
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            answer = None
        said = answer.get("message") if isinstance(answer, dict) else None
        text = f"the Kubernetes API answered {status}" + (f": {said}" if said else "")
        return _failed(self._kind, f"KUBERNETES_{status}", text, retryable=status in _RETRYABLE)

    async def _json(self, method: str, path: str, body: object = None) -> Json:
        try:
            answer = orjson.loads(await self._ask(method, path, body))
        except orjson.JSONDecodeError as error:
            text = "the Kubernetes API answers no JSON, or too much of it"
            raise _failed(self._kind, "KUBERNETES", text) from error
        return answer if isinstance(answer, dict) else {}

    async def create_job(self, manifest: Mapping[str, Any]) -> Json:
        """Create a job and return it."""
        return await self._json("POST", f"/apis/batch/v1/namespaces/{self.namespace}/jobs", manifest)

    async def job(self, name: str) -> Json:
        """Return a job."""
        return await self._json("GET", f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}")

    async def delete_job(self, name: str) -> None:
        """Delete a job with its pods."""
        options = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        await self._ask("DELETE", f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}", options)

    async def pods(self, job: str) -> list[Json]:
        """Return the pods of a job, the newest last."""
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=job-name%3D{job}&limit=50"
        items = (await self._json("GET", path)).get("items") or []
        return sorted(items, key=lambda pod: str((pod.get("metadata") or {}).get("creationTimestamp") or ""))

    async def log(self, pod: str) -> str:
        """Return the output of a pod, the first `KUBERNETES_LOG_MAX_BYTES` of it."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log?limitBytes={KUBERNETES_LOG_MAX_BYTES}"
        return (await self._ask("GET", path, limit=KUBERNETES_LOG_MAX_BYTES)).decode(errors="replace")

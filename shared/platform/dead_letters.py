"""Messages that cannot be handled are kept in Postgres, with the reason, where an operator finds them."""

from __future__ import annotations

import orjson

from shared.messaging.consumer import Message
from shared.platform.api_client import ApiClient

TEXT_BYTES_MAX = 4096  # kept of a message that is no JSON


async def keep_dead_letter(
    api: ApiClient, message: Message, *, source: str, reason: str, execution_id: int | None = None
) -> None:
    """Store `message` as a dead letter of `source`; the caller terminates it afterwards.

    Raises:
        ApiUnavailableError: it is not stored; give the message back.
    """
    try:
        payload: object = orjson.loads(message.data)
    except orjson.JSONDecodeError:
        payload = {"text": message.data[:TEXT_BYTES_MAX].decode(errors="replace")}
    await api.dead_letter(
        source=source,
        subject=message.subject,
        msg_id=message.headers.get("Nats-Msg-Id"),
        payload=payload,
        reason=reason,
        deliveries=message.deliveries,
        execution_id=execution_id,
    )

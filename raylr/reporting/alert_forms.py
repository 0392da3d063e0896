"""An alert, and the forms in which webhooks take it: Slack's, Discord's, or plain JSON."""

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

Kind = Literal["failed", "diverged", "stalled", "worker lost", "done"]
Form = Literal["auto", "slack", "discord", "json"]
# Hosts of the two services' webhooks: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, where `text` is
# the message and &, < and > are escaped; docs.discord.com/developers/resources/webhook, where `content` is, of at most 2000
# letters, and `allowed_mentions` says who is called.
HOSTS: dict[str, Form] = {
    "slack.com": "slack",
    "slack-gov.com": "slack",
    "discord.com": "discord",
    "discordapp.com": "discord",
}
MAX_DISCORD = 2000


@dataclass(frozen=True)
class Alert:
    """What is told. Position, epoch and LR are None where nothing is known of them yet."""

    event: Kind
    run: str
    run_dir: str
    cause: str
    position: int | None = None
    epoch: float | None = None
    lr: Mapping[str, float] = field(default_factory=dict)
    host: str = field(default_factory=platform.node)
    time: float = field(default_factory=time.time)

    @property
    def text(self) -> str:
        """The alert in one line."""
        where = "" if self.position is None else f" at position {self.position:,}"
        where += "" if self.epoch is None else f" (epoch {self.epoch:.2f})"
        several = len(self.lr) > 1
        rates = ", ".join(f"{name} {lr:.4g}" if several else f"{lr:.4g}" for name, lr in self.lr.items())
        where += f", LR {rates}" if rates else ""
        return f"{self.run}: {self.event}{where}: {self.cause}"

    def body(self, form: Form) -> dict[str, Any]:
        """What is posted."""
        if form == "slack":
            return {"text": self.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
        if form == "discord":
            return {"content": self.text[:MAX_DISCORD], "allowed_mentions": {"parse": []}}
        return {**asdict(self), "text": self.text}


def form_of(url: str, form: Form = "auto") -> Form:
    """Return the form as given, or that of the URL's host.

    >>> form_of("https://hooks.slack.com/services/T0/B0/x"), form_of("https://example.org/hook")
    ('slack', 'json')
    """
    if form != "auto":
        return form
    host = urlsplit(url).hostname or ""
    return next((kind for name, kind in HOSTS.items() if host == name or host.endswith(f".{name}")), "json")
